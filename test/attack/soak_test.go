package attack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// soak is a yard in which everything happens at once, in an order that a seed decides.
type soak struct {
	*yard
	random *rand.Rand
	server *plot
	keeper *stream       // of a workload that is always allowed, and loses nothing
	guests map[int]*plot // by the number of their address
	done   map[string]int
	rules  string // in force
}

const soakGuests = 6

// TestSoak edits policies, lets workloads come and go, attacks, and kills the daemon, at random, for
// BULKHEAD_BUDGET (15 s). Then the kernel holds what policy says, allowed traffic lost nothing, and
// after more comings and goings (BULKHEAD_CHURN) nothing has leaked. BULKHEAD_SEED repeats a run.
func TestSoak(t *testing.T) {
	needRoot(t)
	seed := uint64(number(t, "BULKHEAD_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("BULKHEAD_SEED=%d", seed)
	budget := 15 * time.Second
	if text := os.Getenv("BULKHEAD_BUDGET"); text != "" {
		var err error
		budget, err = time.ParseDuration(text)
		must(t, err)
	}
	s := &soak{yard: newYard(t, "enforce"), random: rand.New(rand.NewPCG(seed, seed)), guests: map[int]*plot{}, done: map[string]int{}}
	s.server = s.pod("server", 2, map[string]string{"app": "server"})
	keeper := s.pod("keeper", 3, map[string]string{"app": "keeper"})
	s.listeners(t)
	s.edit()
	s.keeper = tcp(t, "the keeper's connection", keeper.path(), s.server, false, 7, clientTalks|serverTalks)
	for end := time.Now().Add(budget); time.Now().Before(end) && !t.Failed(); {
		s.step()
		s.alive()
	}
	t.Logf("done: %v", s.done)
	s.compare()
	s.leaks(number(t, "BULKHEAD_CHURN", 24))
}

// listeners are the ports that policies speak of.
func (s *soak) listeners(t *testing.T) {
	for port := 8000; port < 8004; port++ {
		go greet(s.server.listen(t, port)) // ends with the listener
	}
}

// step does one thing.
func (s *soak) step() {
	acts := []struct {
		name string
		do   func()
	}{
		{"edit", s.edit}, {"edit", s.edit}, {"come", s.come}, {"come", s.come}, {"go", s.leave},
		{"attack", s.attack}, {"restart", s.restart}, {"edit and kill", s.editAndKill},
	}
	a := acts[s.random.IntN(len(acts))]
	s.done[a.name]++
	a.do()
}

// edit puts another policy in force: which guests may call which ports. The keeper may always.
func (s *soak) edit() {
	s.rules = s.policy()
	must(s, s.apply(s.rules, ""))
}

func (s *soak) policy() string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - {from: [{podSelector: {matchLabels: {app: keeper}}}], ports: [{port: 7}]}
`)
	for app := range soakGuests {
		if s.random.IntN(2) == 0 {
			fmt.Fprintf(&b, "  - {from: [{podSelector: {matchLabels: {app: guest-%d}}}], ports: [{port: %d}]}\n", app, 8000+s.random.IntN(4))
		}
	}
	return b.String()
}

// come brings a guest, on an address that others had.
func (s *soak) come() {
	n := 100 + s.random.IntN(soakGuests)
	if s.guests[n] != nil {
		return
	}
	app := fmt.Sprintf("guest-%d", s.random.IntN(soakGuests))
	s.guests[n] = s.pod(app, n, map[string]string{"app": app})
}

// leave ends a guest: in order, without DEL, or with a DEL that comes late.
func (s *soak) leave() {
	for n, p := range s.guests {
		s.dismiss(n, p, s.random.IntN(3))
		return
	}
}

func (s *soak) dismiss(n int, p *plot, how int) {
	delete(s.guests, n)
	if how == 0 {
		must(s, p.event("DEL"))
	}
	must(s, p.unplug())
	must(s, p.gone())
	if how == 1 {
		must(s, p.event("DEL"))
	}
}

// attack lets a guest do what root in a container may.
func (s *soak) attack() {
	for _, p := range s.guests {
		switch s.random.IntN(4) {
		case 0:
			must(s, p.datagrams(2000, func(i int) (uint16, netip.AddrPort) { return 0, netip.AddrPortFrom(s.server.v4, uint16(1+i)) }))
		case 1:
			_ = p.nft("flush ruleset")
		case 2:
			_ = p.nft(`table ip evil { chain c { type filter hook output priority -300; log prefix "bh out allow" group 4711; accept; }
}`)
		case 3:
			_ = p.nft("delete table inet " + firewall.TableName)
		}
		return
	}
}

// nft loads rules in a workload's namespace, as root in the container would.
func (p *plot) nft(rules string) error {
	return firewall.Enter(p.path(), func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		return cmd.Run()
	})
}

func (s *soak) restart() {
	s.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[s.random.IntN(2)])
	s.start()
}

// editAndKill kills the daemon at some moment of a change. What is in force then is one of the two.
func (s *soak) editAndKill() {
	done := make(chan struct{})
	text := s.policy()
	go func() { defer close(done); _ = s.apply(text, "") }()
	time.Sleep(time.Duration(s.random.IntN(40)) * time.Millisecond)
	s.end(syscall.SIGKILL)
	<-done
	s.start()
	s.edit()
}

// alive fails when the keeper's connection does not go on.
func (s *soak) alive() {
	before := s.keeper.heard()
	if !eventually(func() bool { now := s.keeper.heard(); return now[0] > before[0] && now[1] > before[1] }) {
		s.Errorf("the allowed connection does not go on after %v", s.done)
	}
}

// compare holds the kernel to what policy says: read back by CHECK, and with packets.
func (s *soak) compare() {
	everybody := []*plot{s.server}
	for _, p := range s.guests {
		everybody = append(everybody, p)
	}
	for _, p := range everybody {
		var err error
		if !eventually(func() bool { err = p.event("CHECK"); return err == nil }) {
			s.Errorf("%s: the kernel does not hold what it should: %v", p.id, err)
		}
	}
	for _, p := range s.guests {
		for port := 8000; port < 8004; port++ {
			want := strings.Contains(s.rules, fmt.Sprintf("app: %s}}}], ports: [{port: %d}]", p.name, port))
			if got := p.reaches(netip.AddrPortFrom(s.server.v4, uint16(port)), patience(want)); got != want {
				s.Errorf("%s calls port %d: %v; policy says %v:\n%s", p.name, port, got, want, s.rules)
			}
		}
	}
}

// patience is long for what must work, and short for what must not.
func patience(want bool) time.Duration {
	if want {
		return 20 * time.Second
	}
	return 300 * time.Millisecond
}

// leaks lets guests come and go, and counts what is left.
func (s *soak) leaks(churn int) {
	for n, p := range s.guests {
		s.dismiss(n, p, 0)
	}
	s.restart() // what it had to do for those before is over
	s.come()
	s.settleGuests()
	routines, files := s.holds()
	elements, tables := s.kernel()
	for i := range churn {
		s.come()
		if i%2 == 1 || i == churn-1 {
			s.settleGuests()
		}
	}
	if !eventually(func() bool { r, f := s.holds(); return r <= routines && f <= files }) {
		r, f := s.holds()
		s.Errorf("goroutines %d, descriptors %d after %d comings and goings; before: %d, %d", r, f, churn, routines, files)
	}
	if !eventually(func() bool { e, t := s.kernel(); return e == elements && t == tables }) {
		e, t := s.kernel()
		s.Errorf("elements %d, guards %d after %d comings and goings; before: %d, %d", e, t, churn, elements, tables)
	}
	names, err := filepath.Glob(netnsPath(s.name + "*"))
	must(s, err)
	if len(names) != 3 { // node, server, keeper
		s.Errorf("namespaces: %v", names)
	}
	s.Logf("after %d more: %d goroutines, %d descriptors, %d elements, %d guards, as before", churn, routines, files, elements, tables)
}

// settleGuests sends all guests away and waits until the daemon knows it.
func (s *soak) settleGuests() {
	for n, p := range s.guests {
		s.dismiss(n, p, 0)
	}
	if !eventually(func() bool {
		list, err := s.client.Workloads(s.Context())
		return err == nil && len(list) == 2
	}) {
		s.Error("workloads that are gone are still known")
	}
}

var (
	staticElement = regexp.MustCompile(`10\.77\.\d+\.\d+ \. \w+ \. \d+`)
	guardTable    = regexp.MustCompile(`table netdev ` + firewall.GuardPrefix)
)

// kernel counts the elements by which the server lets others in, and the guards on the node.
func (s *soak) kernel() (elements, guards int) {
	list := func(path string, argv ...string) string {
		var out []byte
		must(s, firewall.Enter(path, func() (err error) {
			out, err = exec.Command("nft", argv...).CombinedOutput()
			return err
		}))
		return string(out)
	}
	elements = len(staticElement.FindAllString(list(s.server.path(), "list", "set", "inet", firewall.TableName, "ingress4"), -1))
	return elements, len(guardTable.FindAllString(list(netnsPath(s.name), "list", "tables"), -1))
}

// TestWorkloadCost: a workload costs the daemon one goroutine, its own. BULKHEAD_WORKLOADS sets how
// many there are.
func TestWorkloadCost(t *testing.T) {
	y := newYard(t, "learn")
	y.pod("first", 2, map[string]string{"app": "first"})
	routines, files := y.holds()
	memory := y.memory()
	n := number(t, "BULKHEAD_WORKLOADS", 15)
	for i := range n {
		y.pod("many", 100+i, map[string]string{"app": "many"})
	}
	if !eventually(func() bool { r, _ := y.holds(); return r <= routines+n }) {
		r, _ := y.holds()
		t.Errorf("%d goroutines for %d workloads", r-routines, n)
	}
	r, f := y.holds()
	t.Logf("%d workloads: %d goroutines, %d descriptors, %d KiB, over %d, %d, %d KiB with one", n+1, r, f, y.memory()>>10, routines, files, memory>>10)
}
