package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// TestThreat4: A3, root in the container with CAP_NET_ADMIN, changes its own namespace. The rules there
// cannot be changed, what can be added does not help, and while the daemon is up it is told of within
// a second (THREATS row 4).
func TestThreat4(t *testing.T) {
	threat(t, 4, slices.Concat(ruleTricks(), interfaceTricks(), addressTricks()))
}

// tamper is a trick of root in the container: a script that changes something, what it sends then, and
// a script that puts things back. told is part of the sentence by which the daemon tells of it.
type tamper struct {
	name     string
	script   string
	undo     string
	told     string
	send     func(a *attempt) error // default: a datagram to the victim
	harmless string
	// refused says that the kernel may refuse the script where Bulkhead is.
	refused bool
	// restarts has it tried while the daemon restarts, too: what could gain by that.
	restarts bool
	wins     func(a *attempt, at *host, b []byte) bool
}

func (x tamper) trick() trick {
	tr := trick{name: x.name, alone: true, harmless: x.harmless, wins: x.wins, run: x.run}
	if !x.restarts {
		tr.states = []state{bare, up, down}
	}
	return tr
}

func (x tamper) run(a *attempt) error {
	words := strings.NewReplacer("VICTIM6", a.victim.v6.String(), "VICTIMMAC", a.victim.mac.String(), "VICTIM", a.victim.v4.String(),
		"OUTSIDER", a.outsider.v4.String(), "PEER", a.peer.v4.String(), "ATTACKER6", a.attacker.v6.String(), "ATTACKER", a.attacker.v4.String(),
		"GATEWAY6", a.node.v6.String(), "GATEWAY", a.node.v4.String(), "MAC", a.attacker.mac.String())
	undo := func() error {
		if x.undo == "" {
			return nil
		}
		out, err := a.exec(a.attacker, lab.Admin, "sh", "-c", words.Replace(x.undo))
		if err != nil {
			return fmt.Errorf("put back: %w: %s", err, out)
		}
		return nil
	}
	began := time.Now()
	out, err := a.exec(a.attacker, lab.Admin, "sh", "-c", "set -e; "+words.Replace(x.script))
	if err != nil && !(x.refused && a.state != bare) {
		return fmt.Errorf("%w: %s", err, out)
	}
	send := x.send
	if send == nil {
		send = toVictim
	}
	err = send(a)
	if err == nil && a.state == up && x.told != "" {
		err = a.told(x.told, began)
	}
	if again := undo(); again != nil {
		return again
	}
	return err
}

// told waits for the daemon's alert about the attacker that says so.
func (a *attempt) told(sentence string, began time.Time) error {
	c := a.client()
	defer c.Close()
	var seen []string
	if !eventually(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		list, err := c.Alerts(ctx, string(alert.Tamper), 1000)
		if err != nil {
			return false
		}
		seen = seen[:0]
		for _, raw := range list {
			var got alert.Alert
			if json.Unmarshal(raw, &got) != nil || got.Client.Workload != a.attacker.name {
				continue
			}
			seen = append(seen, got.Reason)
			if strings.Contains(got.Reason, sentence) {
				a.Logf("told %v after it began: %s", got.First.Sub(began).Round(time.Millisecond), got.Reason)
				return true
			}
		}
		return false
	}) {
		return fmt.Errorf("no alert says %q; they say:\n%s", sentence, strings.Join(seen, "\n"))
	}
	return nil
}

// toVictim sends what policy denies, as any program would.
func toVictim(a *attempt) error {
	return a.datagrams(a.attacker.path, netip.AddrPort{}, netip.AddrPortFrom(a.victim.v4, 53), netip.AddrPortFrom(a.victim.v6, 53))
}

// toVictim4 is toVictim over IPv4 alone.
func toVictim4(a *attempt) error {
	return a.datagrams(a.attacker.path, netip.AddrPort{}, netip.AddrPortFrom(a.victim.v4, 53))
}

// toOutsider sends what policy allows, for somebody to make something else of it.
func toOutsider(a *attempt) error {
	return a.datagrams(a.attacker.path, netip.AddrPort{}, netip.AddrPortFrom(a.outsider.v4, 5353))
}

// datagrams sends one datagram to each from a socket in the namespace at path. Where the kernel refuses
// it, it was stopped, which only the bare lab may not do.
func (a *attempt) datagrams(path string, from netip.AddrPort, to ...netip.AddrPort) error {
	for _, at := range to {
		err := firewall.Enter(path, func() error {
			var local *net.UDPAddr
			if from.IsValid() {
				local = net.UDPAddrFromAddrPort(from)
			}
			c, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(a.token)
			return err
		})
		if err == nil {
			a.sent.Add(1)
		} else if a.state == bare {
			return err
		}
	}
	return nil
}

// atVictim wins where the victim hears it, whoever else may.
func atVictim(a *attempt, at *host, b []byte) bool {
	return at == a.victim && strings.Contains(string(b), string(a.token))
}

// ruleTricks change nftables or stand beside it.
func ruleTricks() []trick {
	const table = "nft -f - <<X\ntable %s evil { chain c { type %s; policy accept; %s; }; }\nX\n"
	beside := func(name, family, chain, rule string) tamper {
		return tamper{name: name, script: fmt.Sprintf(table, family, chain, rule), undo: "nft delete table " + family + " evil",
			told: "table " + family + " evil was added"}
	}
	nat := beside("nat_after_ours", "ip", "nat hook output priority 100", "ip daddr OUTSIDER udp dport 5353 dnat to VICTIM:53")
	nat.send, nat.wins, nat.restarts = toOutsider, atVictim, true
	source := beside("source_nat", "ip", "nat hook postrouting priority 100", "oifname eth0 udp dport 5353 snat to PEER")
	source.send = toOutsider
	source.wins = func(a *attempt, at *host, b []byte) bool { // as the peer
		return atVictimOrOutsiderFrom(a, b, a.peer.v4)
	}
	mangle := beside("mangle_after_ours", "ip", "route hook output priority 100", "ip daddr OUTSIDER udp dport 5353 ip daddr set VICTIM")
	mangle.send, mangle.wins = toOutsider, atVictim
	behind := beside("netdev_egress_after_ours", "netdev", "filter hook egress device eth0 priority 500", "ip daddr OUTSIDER udp dport 5353 ip daddr set VICTIM ether daddr set VICTIMMAC")
	behind.send, behind.wins = toOutsider, atVictim
	tricks := []tamper{
		{name: "flush_delete_add", refused: true, restarts: true, told: "flushed", script: `set +e; for i in 1 2 3; do
nft flush ruleset; nft delete table inet bulkhead; nft flush chain inet bulkhead output; nft add rule inet bulkhead output accept
nft insert rule inet bulkhead output accept; nft add chain inet bulkhead x; nft add element inet bulkhead egress4 '{ VICTIM . udp . 53 }'
nft 'add table inet bulkhead { flags dormant; }'; nft delete table inet bulkhead-tripwire; done 2>/dev/null; true`},
		beside("accept_before_ours", "inet", "filter hook output priority -400", "accept"),
		beside("accept_egress_before_ours", "netdev", "filter hook egress device eth0 priority -500", "accept"),
		beside("notrack", "inet", "filter hook output priority -300", "notrack accept"),
		nat, source, mangle, behind,
		{name: "tc_after_egress", restarts: true, told: "clsact", undo: "tc qdisc del dev eth0 clsact",
			script: "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress bpf bytecode '1,6 0 0 4294967295,'"},
	}
	return tricksOf(tricks)
}

func tricksOf(list []tamper) (out []trick) {
	for _, x := range list {
		out = append(out, x.trick())
	}
	return out
}

// atVictimOrOutsiderFrom wins where the token comes from an address that is not the attacker's.
func atVictimOrOutsiderFrom(a *attempt, b []byte, from netip.Addr) bool {
	text := string(b)
	return strings.Contains(text, string(a.token)) && strings.Contains(text, string(from.AsSlice()))
}

// interfaceTricks rename, move and add interfaces.
func interfaceTricks() []trick {
	from := func(addr string) func(a *attempt) error {
		return func(a *attempt) error {
			return a.datagrams(a.attacker.path, netip.AddrPortFrom(netip.MustParseAddr(addr), 0), netip.AddrPortFrom(netip.MustParseAddr("10.67.0.3"), 53))
		}
	}
	return append(tricksOf([]tamper{
		{name: "rename", restarts: true, script: "ip link set eth0 name evil0", undo: "ip link set evil0 name eth0", told: "interface eth0 was renamed to evil0"},
		{name: "change_mac", script: "ip link set eth0 address 02:00:00:00:66:66", undo: "ip link set eth0 address MAC", send: toVictim4,
			told: "the MAC address of interface eth0 was changed"},
		{name: "macvlan", restarts: true, script: "ip link add mv0 link eth0 type macvlan mode bridge; ip addr add 10.67.0.9/24 dev mv0; ip link set mv0 up; ip neigh add 10.67.0.3 lladdr VICTIMMAC dev mv0",
			undo: "ip link del mv0", send: from("10.67.0.9"), told: "interface mv0 (macvlan) was added"},
		{name: "vxlan", script: "ip link add vx0 type vxlan id 66 remote VICTIM dstport 4789 dev eth0; ip addr add 10.67.0.9/24 dev vx0; ip link set vx0 up; ip neigh add 10.67.0.3 lladdr VICTIMMAC dev vx0",
			undo: "ip link del vx0", send: from("10.67.0.9"), told: "interface vx0 (vxlan) was added"},
		{name: "bridge", script: "ip link add evil type bridge; ip link add va type veth peer name vb; ip link set va master evil up; ip link set vb up; ip link set evil up; ip addr add 10.67.0.9/24 dev vb; ip neigh add 10.67.0.3 lladdr VICTIMMAC dev vb; ip link set eth0 master evil",
			undo: "ip link set eth0 nomaster; ip link del evil; ip link del va", send: from("10.67.0.9"), told: "interface eth0 was made a port of evil"},
	}), movedTrick(), behindTrick())
}

// movedTrick moves the interface to a namespace of the attacker's own, where none of our rules are.
func movedTrick() trick {
	return trick{name: "move_to_own_namespace", alone: true, run: func(a *attempt) (err error) {
		child := fmt.Sprintf("bhmoved%d", tokens.Add(1))
		if out, err := shell("ip netns add " + child); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		defer func() { _, err := shell("ip netns del " + child); must(a, err) }()
		began := time.Now()
		if err := a.move(a.attacker.netns, child); err != nil {
			return err
		}
		err = a.datagrams("/run/netns/"+child, netip.AddrPort{}, netip.AddrPortFrom(a.victim.v4, 53), netip.AddrPortFrom(a.victim.v6, 53))
		if err == nil && a.state == up {
			err = a.told("interface eth0 (veth) is gone", began)
		}
		if back := a.move(child, a.attacker.netns); back != nil {
			return back
		}
		return err
	}}
}

// move moves eth0 with its addresses and routes, as who is root in both namespaces can.
func (a *attempt) move(from, to string) error {
	h := a.attacker
	out, err := shell(fmt.Sprintf(`ip -n %[1]s link set eth0 netns %[2]s
ip -n %[2]s addr add %[3]s/24 dev eth0; ip -n %[2]s addr add %[4]s/64 dev eth0 nodad
ip -n %[2]s link set eth0 up; ip -n %[2]s route add default via %[5]s; ip -n %[2]s -6 route add default via %[6]s`,
		from, to, h.v4, h.v6, a.node.v4, a.node.v6))
	if err != nil {
		return fmt.Errorf("move eth0: %w: %s", err, out)
	}
	return nil
}

// shell runs a script on the machine: for what is done in namespaces of the attacker's own.
func shell(script string) (string, error) {
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	return string(out), err
}

// behindTrick puts a namespace of the attacker's own behind its workload: what is sent from there is
// forwarded and never meets the chains of output.
func behindTrick() trick {
	return trick{name: "veth_to_own_namespace", alone: true, states: []state{bare, up, down}, run: func(a *attempt) (err error) {
		child := fmt.Sprintf("bhbehind%d", tokens.Add(1))
		if out, err := shell("ip netns add " + child); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		defer func() { _, err := shell("ip netns del " + child); must(a, err) }()
		began := time.Now()
		if out, err := shell(fmt.Sprintf(`ip -n %[1]s link add va type veth peer name vb netns %[2]s
ip -n %[1]s addr add 10.67.0.1/24 dev va; ip -n %[1]s link set va up
ip -n %[2]s addr add 10.67.0.2/24 dev vb; ip -n %[2]s link set vb up; ip -n %[2]s route add default via 10.67.0.1
ip netns exec %[1]s sysctl -qw net.ipv4.ip_forward=1
ip netns exec %[1]s nft 'table ip evil { chain c { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }'`, a.attacker.netns, child)); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		err = a.datagrams("/run/netns/"+child, netip.AddrPort{}, netip.AddrPortFrom(a.victim.v4, 53))
		if err == nil && a.state == up {
			err = a.told("interface va (veth) was added", began)
		}
		if out, back := shell(fmt.Sprintf(`ip -n %[1]s link del va; ip netns exec %[1]s sysctl -qw net.ipv4.ip_forward=0
ip netns exec %[1]s nft delete table ip evil`, a.attacker.netns)); back != nil {
			return fmt.Errorf("%w: %s", back, out)
		}
		return err
	}}
}

// addressTricks change addresses, routes and sysctls.
func addressTricks() []trick {
	return tricksOf([]tamper{
		{name: "address_of_peer", restarts: true, script: "ip addr add PEER/32 dev eth0", undo: "ip addr del PEER/32 dev eth0", told: "address 10.66.0.4/32 was added",
			send: func(a *attempt) error {
				return a.datagrams(a.attacker.path, netip.AddrPortFrom(a.peer.v4, 0), netip.AddrPortFrom(a.victim.v4, 53), netip.AddrPortFrom(a.outsider.v4, 5353))
			}},
		{name: "route_by_another", script: "ip route add VICTIM/32 via OUTSIDER", undo: "ip route del VICTIM/32", send: toVictim4,
			told: "a route to 10.66.0.3/32 via 10.66.0.5 on interface eth0 was added"},
		{name: "routing_rule", script: "ip rule add to VICTIM table 66; ip route add default via OUTSIDER table 66", undo: "ip rule del to VICTIM table 66; ip route flush table 66",
			send: toVictim4, told: "a rule of routing was added"},
		{name: "sysctls", told: "sysctl net.ipv4.conf.eth0.forwarding was changed from 0 to 1",
			script: "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.proxy_arp=1 net.ipv6.conf.eth0.accept_ra=2 net.ipv4.conf.eth0.arp_announce=0 net.ipv4.conf.all.accept_local=1 net.ipv4.conf.eth0.rp_filter=0",
			undo:   "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.eth0.proxy_arp=0 net.ipv6.conf.eth0.accept_ra=1 net.ipv4.conf.all.accept_local=0"},
		{name: "sysctl_untold", told: "sysctl net.ipv4.conf.eth0.arp_ignore was changed from 0 to 8", // found by the look each ten seconds
			script: "sysctl -qw net.ipv4.conf.eth0.arp_ignore=8", undo: "sysctl -qw net.ipv4.conf.eth0.arp_ignore=0"},
	})
}
