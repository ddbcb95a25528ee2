package attack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// manifests are the lab of this package, see its comment.
const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: attacker, namespace: shop, labels: {app: attacker}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.66.0.2}, {ip: "fd66::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: victim, namespace: shop, labels: {app: victim}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.66.0.3}, {ip: "fd66::3"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: peer, namespace: shop, labels: {app: peer}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.66.0.4}, {ip: "fd66::4"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: shop, labels: {app: outsider}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 5353, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.66.0.5}, {ip: "fd66::5"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: newcomer, namespace: shop, labels: {app: newcomer}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.66.0.6}, {ip: "fd66::6"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: newcomer, namespace: shop}
spec:
  podSelector: {matchLabels: {app: newcomer}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: outsider}}}], ports: [{port: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: attacker, namespace: shop}
spec:
  podSelector: {matchLabels: {app: attacker}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: outsider}}}], ports: [{port: 5353, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: victim, namespace: shop}
spec:
  podSelector: {matchLabels: {app: victim}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}, {from: [{podSelector: {matchLabels: {app: outsider}}}], ports: [{port: 5353, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: peer, namespace: shop}
spec:
  podSelector: {matchLabels: {app: peer}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: victim}}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}]
`

// state is how the daemon is while a trick is tried.
type state string

const (
	bare       state = "bare"       // no Bulkhead at all: the trick must win
	up         state = "up"         // the daemon runs
	restarting state = "restarting" // it is killed and started again in a loop
	down       state = "down"       // it was killed; the holder lives
)

// host is one workload, or the bridge, as who attacks sees it.
type host struct {
	name    string // shop/victim
	path    string // of its network namespace
	netns   string // its name in /run/netns
	device  string // its interface
	v4, v6  netip.Addr
	mac     net.HardwareAddr
	link    netip.Addr // its link-local address, invalid where it has none
	guarded string     // the host's end of its veth
}

// arena is one lab with its ears, its allowed traffic and the state of its daemon.
type arena struct {
	*lab.Lab
	attacker, victim, peer, outsider *host
	node                             *host // the bridge that all hang on
	frames                           []*ear
	sockets                          []*ear
	trade                            *trade

	senders struct {
		sync.Mutex
		of map[string]*sender
	}

	mu     sync.Mutex // held while the state changes
	state  state
	cycles atomic.Int64 // kills and starts so far
	stop   func()       // ends the loop of kills and starts; nil when there is none
}

var arenas struct {
	sync.Mutex
	guarded, bare *arena
}

// enter gives the shared lab: the bare one, or the one with Bulkhead.
func enter(t *testing.T, without bool) *arena {
	t.Helper()
	needRoot(t)
	arenas.Lock()
	defer arenas.Unlock()
	at := &arenas.guarded
	if without {
		at = &arenas.bare
	}
	if *at == nil {
		w, err := newArena(without)
		if err != nil {
			t.Fatal(err)
		}
		*at = w
	}
	return *at
}

func closeArenas() error {
	arenas.Lock()
	defer arenas.Unlock()
	var errs []error
	for _, w := range []*arena{arenas.guarded, arenas.bare} {
		if w != nil {
			errs = append(errs, w.close())
		}
	}
	arenas.guarded, arenas.bare = nil, nil
	return errors.Join(errs...)
}

// ready bounds how long a lab, or a daemon that comes back, may take on a busy machine.
const ready = 2 * time.Minute

func newArena(without bool) (*arena, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	l, err := lab.Up(ctx, lab.Options{Manifests: manifests, Mode: "enforce", NoBulkhead: without})
	if err != nil {
		return nil, err
	}
	w := &arena{Lab: l, state: up, stop: nil}
	w.senders.of = map[string]*sender{}
	if without {
		w.state = bare
	}
	if err := w.furnish(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// furnish looks the hosts up, opens the ears and starts the allowed traffic.
func (w *arena) furnish() (err error) {
	for _, h := range []struct {
		name string
		at   **host
	}{{"attacker", &w.attacker}, {"victim", &w.victim}, {"peer", &w.peer}, {"outsider", &w.outsider}} {
		if *h.at, err = w.host("shop/" + h.name); err != nil {
			return err
		}
	}
	n := w.Node("n1")
	w.node = &host{name: "n1", path: n.Path(), netns: n.NetNS, device: n.Nets[0].Bridge, v4: n.Nets[0].Gateway4, v6: n.Nets[0].Gateway6}
	if err := w.node.look(); err != nil {
		return err
	}
	if w.state == bare {
		if err := w.openBridge(); err != nil {
			return err
		}
	}
	for _, h := range []*host{w.victim, w.peer, w.outsider, w.node} {
		e, err := newEar(h)
		if err != nil {
			return err
		}
		w.frames = append(w.frames, e)
	}
	for _, h := range []*host{w.victim, w.outsider} {
		e, err := newSocketEar(h)
		if err != nil {
			return err
		}
		w.sockets = append(w.sockets, e)
	}
	if w.state != bare { // where tricks win, they spoil it
		w.trade, err = newTrade(w.peer, w.victim)
	}
	return err
}

// openBridge takes br_netfilter off the bridge of a bare lab: it drops what lies about its length
// (bridge-nf-call-iptables), but only where somebody has loaded it.
func (w *arena) openBridge() error {
	return firewall.Enter(w.node.path, func() error {
		for _, family := range []string{"iptables", "ip6tables", "arptables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+family, []byte("0"), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// host looks up a pod's addresses and interfaces.
func (w *arena) host(name string) (*host, error) {
	p, err := w.Pod(name)
	if err != nil {
		return nil, err
	}
	h := &host{name: name, path: p.Path(), netns: p.NetNS, device: "eth0", v4: p.Addrs[0], v6: p.Addrs[1]}
	if err := h.look(); err != nil {
		return nil, err
	}
	var index int
	err = firewall.Enter(h.path, func() error {
		link, err := netlink.LinkByName(h.device)
		if err == nil {
			index = link.Attrs().ParentIndex // of a veth: its other end's
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, firewall.Enter(w.Node(p.Node).Path(), func() error {
		link, err := netlink.LinkByIndex(index)
		if err == nil {
			h.guarded = link.Attrs().Name
		}
		return err
	})
}

func (h *host) look() error {
	return firewall.Enter(h.path, func() error {
		link, err := netlink.LinkByName(h.device)
		if err != nil {
			return err
		}
		h.mac = link.Attrs().HardwareAddr
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.IsLinkLocalUnicast() {
				h.link = ip
			}
		}
		return err
	})
}

// addr is the host's address of one family.
func (h *host) addr(v6 bool) netip.Addr {
	if v6 {
		return h.v6
	}
	return h.v4
}

func (w *arena) close() error {
	if w.stop != nil {
		w.stop()
	}
	w.senders.Lock()
	for _, s := range w.senders.of {
		s.close()
	}
	w.senders.Unlock()
	if w.trade != nil {
		w.trade.close()
	}
	for _, e := range append(w.frames, w.sockets...) {
		e.close()
	}
	return w.Down()
}

// be brings the daemon into a state. Restarting goes on until the next call.
func (w *arena) be(t testing.TB, want state) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == want {
		return
	}
	if w.state == bare || want == bare {
		t.Fatal("a lab without Bulkhead stays so")
	}
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	var err error
	switch alive := w.DaemonPID("n1") != 0; {
	case want == down && alive:
		err = w.kill()
	case want == up && !alive:
		err = w.start()
	case want == restarting:
		w.stop = w.restarts(t, alive)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.state = want
}

// kill ends the daemon as a crash would.
func (w *arena) kill() error {
	for pid := w.DaemonPID("n1"); pid != 0; pid = w.DaemonPID("n1") {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (w *arena) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	return w.StartDaemon(ctx, "n1")
}

// restarts kills and starts the daemon in a loop. What it gives ends the loop, with the daemon in
// whichever state.
func (w *arena) restarts(t testing.TB, alive bool) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	var failed error
	go func() { // ends with stop
		defer close(done)
		for failed == nil {
			if alive {
				failed = w.kill()
			} else {
				failed = w.start()
			}
			alive = !alive
			w.cycles.Add(1)
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(end)
		<-done
		if failed != nil {
			t.Errorf("restarting the daemon: %v", failed)
		}
	}
}

// client speaks to the daemon; the caller closes it.
func (w *arena) client() *api.Client { return api.NewClient(w.Node("n1").Socket()) }

// eventually waits for a condition with more patience than any machine should need.
func eventually(f func() bool) bool { return within(30*time.Second, f) }

func within(patience time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
