package attack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// Ways past the workload's rules with devices of its own: what A3, with CAP_NET_ADMIN, builds so that
// frames leave which no chain of the namespace has seen.

// building is held by whoever changes the attacker's interfaces: eth0 has one master.
var building sync.Mutex

// besideUs are these ways; each is undone before the next.
func besideUs() []trick {
	return []trick{
		{name: "macvlan_child", counter: "spoofed", alert: alert.Spoof, run: func(a *attempt) error {
			return a.built([]string{"link add bhmv link eth0 type macvlan mode bridge", "link set bhmv up"}, []string{"link del bhmv"}, func() error {
				mac, err := macOf(a.attacker, "bhmv")
				if err != nil {
					return err
				}
				four, six := a.udp(false, a.outsider, 5353, a.token), a.udp(true, a.outsider, 5353, a.token)
				copy(four[6:], mac)
				copy(six[6:], mac)
				return a.framesOn(a.attacker, "bhmv", four, six)
			})
		}},
		{name: "bridged_from_another_namespace", counter: "raw", alert: alert.RawSocket, run: func(a *attempt) error {
			return a.built(
				[]string{"link add bhv0 type veth peer name bhv1", "link add bhbr type bridge", "link set eth0 master bhbr",
					"link set bhv0 master bhbr", "link set bhv0 up", "link set bhbr up"},
				[]string{"link set eth0 nomaster", "link del bhbr"},
				func() error {
					return a.fromChild("bhv1", a.udp(false, a.victim, 53, a.token), a.udp(true, a.victim, 53, a.token))
				})
		}},
		// What goes to lo is nobody's business, until traffic control moves it on behind every rule.
		{name: "tc_redirect_behind_every_rule", counter: "raw", alert: alert.RawSocket, run: func(a *attempt) error {
			return a.built(nil, nil, func() error {
				undo := func() { _, _ = a.exec(a.attacker, lab.Admin, "tc", "qdisc", "del", "dev", "lo", "clsact") }
				defer undo()
				for _, argv := range [][]string{
					strings.Fields("tc qdisc add dev lo clsact"),
					strings.Fields("tc filter add dev lo egress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0"),
				} {
					if out, err := a.exec(a.attacker, lab.Admin, argv...); err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
				}
				return a.framesOn(a.attacker, "lo", a.udp(false, a.victim, 53, a.token), a.udp(true, a.victim, 53, a.token))
			})
		}},
	}
}

// built makes interfaces as the attacker with CAP_NET_ADMIN, runs f and takes them away again.
func (a *attempt) built(add, del []string, f func() error) (err error) {
	building.Lock()
	defer building.Unlock()
	defer func() {
		for _, args := range del {
			if out, e := a.exec(a.attacker, lab.Admin, append([]string{"ip"}, strings.Fields(args)...)...); e != nil && err == nil {
				err = fmt.Errorf("undo: %w: %s", e, out)
			}
		}
	}()
	for _, args := range add {
		if out, err := a.exec(a.attacker, lab.Admin, append([]string{"ip"}, strings.Fields(args)...)...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return f()
}

func macOf(h *host, device string) (mac net.HardwareAddr, err error) {
	return mac, firewall.Enter(h.path, func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	})
}

// framesOn sends frames on a device that is there for a moment only.
func (a *attempt) framesOn(from *host, device string, frames ...[]byte) error {
	return firewall.Enter(from.path, func() error { return a.sendAll(device, frames) })
}

// sendAll sends frames on a device of the calling thread's namespace.
func (a *attempt) sendAll(device string, frames [][]byte) error {
	send, closePort, err := openPacket(device, false)
	if err != nil {
		return err
	}
	defer closePort()
	for _, f := range frames {
		if err := send(f); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		a.sent.Add(1)
	}
	return nil
}

// fromChild moves a device into a namespace that has no rules of ours, and sends frames there.
func (a *attempt) fromChild(device string, frames ...[]byte) error {
	name := fmt.Sprintf("bhattack%08x", rand.Uint32())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		return fmt.Errorf("child namespace: %w: %s", err, out)
	}
	path := "/run/netns/" + name
	defer func() { _ = exec.Command("ip", "netns", "del", name).Run() }()
	child, err := firewall.OpenNamespace(path)
	if err != nil {
		return err
	}
	defer child.Close()
	// Before the namespace, whose end would take it away some time later.
	defer func() { _, _ = a.exec(a.attacker, lab.Admin, "ip", "link", "del", "bhv0") }()
	err = firewall.Enter(a.attacker.path, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(link, int(child.Fd()))
	})
	if err != nil {
		return fmt.Errorf("move %s: %w", device, err)
	}
	return firewall.Enter(path, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("%s in the child namespace: %w", device, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		// Its other end's bridge learns of that a little later.
		if !eventually(func() bool { return isUp(a.attacker, "bhv0") }) {
			return errors.New("bhv0 does not come up")
		}
		return a.sendAll(device, frames)
	})
}

func isUp(h *host, device string) bool {
	up := false
	_ = firewall.Enter(h.path, func() error { // not there: not up
		link, err := netlink.LinkByName(device)
		up = err == nil && link.Attrs().OperState == netlink.OperUp
		return err
	})
	return up
}
