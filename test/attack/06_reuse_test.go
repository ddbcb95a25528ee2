package attack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// reuseRules let `allowed` call port 80 of the server, and `thief` port 81.
const reuseRules = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - {from: [{podSelector: {matchLabels: {app: allowed}}}], ports: [{port: 80}]}
  - {from: [{podSelector: {matchLabels: {app: thief}}}], ports: [{port: 81}]}
`

// number reads a size from the environment.
func number(t testing.TB, key string, standard int) int {
	t.Helper()
	s := os.Getenv(key)
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// knocker connects again and again from a workload, from before its first rule on.
type knocker struct {
	wg      sync.WaitGroup
	stop    chan struct{}
	entered atomic.Int64 // when it last got through, Unix nanoseconds
}

func (p *plot) knock(to netip.AddrPort) *knocker {
	k := &knocker{stop: make(chan struct{})}
	for range 4 { // as many knock at a time
		k.wg.Add(1)
		go func() { // ends with stop
			defer k.wg.Done()
			for {
				select {
				case <-k.stop:
					return
				default:
				}
				if p.reaches(to, 200*time.Millisecond) {
					k.entered.Store(time.Now().UnixNano())
				}
			}
		}()
	}
	return k
}

func (k *knocker) end() {
	close(k.stop)
	k.wg.Wait()
}

// reaches says whether a connection can be made.
func (p *plot) reaches(to netip.AddrPort, patience time.Duration) bool {
	done := false
	_ = firewall.Enter(p.path(), func() error {
		c, err := net.DialTimeout("tcp", to.String(), patience)
		if err == nil {
			done = true
			c.Close()
		}
		return nil
	})
	return done
}

// TestThreat6: somebody gets the address that an allowed workload just gave back, and events come in
// any order. It is judged as itself from the moment its ADD returns, which is before a runtime starts
// anything in it. BULKHEAD_REUSES sets how often each order is tried.
func TestThreat6(t *testing.T) {
	y := newYard(t, "enforce")
	server := y.pod("server", 2, map[string]string{"app": "server"})
	for _, port := range []int{80, 81} {
		go greet(server.listen(t, port)) // ends with the listener
	}
	must(t, y.apply(reuseRules, ""))
	at := func(v6 bool, port uint16) netip.AddrPort { return netip.AddrPortFrom(server.addr(v6), port) }
	var exposed []time.Duration
	var mu sync.Mutex
	for _, order := range []struct {
		name   string
		former func(t *testing.T, a *plot) // what is told of the former owner before the new one is there
		late   func(t *testing.T, a *plot) // and after
	}{
		{"in order", func(t *testing.T, a *plot) { must(t, a.event("DEL")) }, nil},
		{"DEL comes late", nil, func(t *testing.T, a *plot) { must(t, a.event("DEL")) }},
		{"DEL comes twice, late", func(t *testing.T, a *plot) { must(t, a.event("DEL")) }, func(t *testing.T, a *plot) { must(t, a.event("DEL")) }},
		{"DEL never comes", nil, nil},
		{"the former owner's ADD is repeated", nil, func(_ *testing.T, a *plot) { _ = a.event("ADD") }},
	} {
		t.Run(order.name, func(t *testing.T) {
			for i := range number(t, "BULKHEAD_REUSES", 2) {
				address, v6 := 100+i%3, i%2 == 1
				a := y.pod("allowed", address, map[string]string{"app": "allowed"})
				if !eventually(func() bool { return a.reaches(at(v6, 80), time.Second) }) {
					t.Fatal("the allowed workload cannot call")
				}
				must(t, a.unplug())
				if order.former != nil {
					order.former(t, a)
				}
				b := y.plot("thief", address, map[string]string{"app": "thief"})
				k := b.knock(at(v6, 80))
				must(t, b.event("ADD"))
				begun := time.Now()
				if order.late != nil {
					order.late(t, a)
				}
				if !eventually(func() bool { return b.reaches(at(v6, 81), time.Second) }) {
					t.Error("the new owner has not its own right")
				}
				time.Sleep(300 * time.Millisecond) // long enough for a late event to do harm
				k.end()
				after := time.Duration(k.entered.Load() - begun.UnixNano())
				mu.Lock()
				exposed = append(exposed, max(after, 0))
				mu.Unlock()
				if after > 0 {
					t.Logf("got through as the former owner for %v after its ADD returned", after)
				}
				if after > time.Second {
					t.Error("more than a second")
				}
				must(t, b.event("DEL"))
				_ = a.event("DEL")
				must(t, b.unplug())
				must(t, a.gone())
				must(t, b.gone())
			}
		})
	}
	slices.Sort(exposed)
	if n := len(exposed); n > 0 {
		t.Logf("exposure after ADD returned, %d reuses: median %v, worst %v", n, exposed[n/2], exposed[n-1])
	}
}

// greet accepts and closes.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, "hello")
		c.Close()
	}
}
