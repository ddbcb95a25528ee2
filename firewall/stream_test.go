package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// stream exchanges one small message after another until it is stopped; every one must come back.
// Over UDP nothing is sent twice, so one lost packet ends it.
type stream struct {
	name  string
	conn  net.Conn
	count atomic.Int64
	err   error
	stop  context.CancelFunc
	done  sync.WaitGroup
	over  chan struct{}
}

// stream starts one from the workload; the test fails if it ends before it is stopped.
func (w *testWorkload) stream(t testing.TB, network string, to netip.AddrPort) *stream {
	t.Helper()
	c, err := w.dial(network, to, patience(true))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{name: network + " to " + to.String(), conn: c, stop: cancel, over: make(chan struct{})}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer close(s.over)
		for i := 0; ctx.Err() == nil; i++ {
			if !exchange(c, []byte(fmt.Sprintf("%08d", i)), patience(true)) {
				s.err = fmt.Errorf("message %d did not come back", i)
				return
			}
			s.count.Add(1)
			time.Sleep(500 * time.Microsecond)
		}
	}()
	t.Cleanup(func() { cancel(); s.done.Wait(); c.Close() })
	return s
}

func (s *stream) broken() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// end stops the stream and says what it went through.
func (s *stream) end(t testing.TB) {
	t.Helper()
	s.stop()
	s.done.Wait()
	if s.err != nil {
		t.Errorf("stream %s: %v", s.name, s.err)
	}
	if s.count.Load() < 20 {
		t.Errorf("stream %s: only %d messages", s.name, s.count.Load())
	}
}

// wait lets the stream carry n more messages.
func (s *stream) wait(t testing.TB, n int64) {
	t.Helper()
	until := s.count.Load() + n
	for deadline := time.Now().Add(10 * time.Second); s.count.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stream %s stands still at %d messages", s.name, s.count.Load())
		}
	}
}

func startStreams(t testing.TB, client, server *testWorkload) []*stream {
	var out []*stream
	for _, v6 := range []bool{false, true} {
		out = append(out, client.stream(t, "tcp", netip.AddrPortFrom(server.addr(v6), 80)),
			client.stream(t, "udp", netip.AddrPortFrom(server.addr(v6), 53)))
	}
	return out
}

// TestChangesLoseNothing changes sets and rules two hundred times under traffic that stays allowed.
func TestChangesLoseNothing(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			node := newTestNode(t)
			client, server := node.workload(t), node.workload(t)
			if !guarded {
				client.unguarded()
				server.unguarded()
			}
			server.serve(t, 80, 53)
			client.apply(t, policy.Learn, policy.Sides{})
			server.apply(t, policy.Learn, policy.Sides{})
			streams := startStreams(t, client, server)
			defer func() {
				if t.Failed() {
					for _, w := range []*testWorkload{client, server} {
						t.Log(testIn(t, w.path, "nft", "list", "ruleset"))
					}
				}
			}()
			for i := range 100 {
				out, in := egress(append(churn(i), allows(server)...)...), ingress(append(churn(i+7), allows(client)...)...)
				mode := policy.Enforce
				switch i % 10 {
				case 3:
					mode = policy.Learn
				case 5:
					mode = policy.AlertMode
				case 7:
					out, in = policy.Sides{}, ingress(testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0))
				case 8:
					out, in = egress(append(allows(server), testEntry("10.77.0.0/24", identity.TCP, 1, 99))...), policy.Sides{}
				}
				client.apply(t, mode, both(out, ingress()))
				server.apply(t, mode, both(egress(), in))
				for _, s := range streams {
					if s.broken() {
						t.Fatalf("row %d: %s: %v", i, s.name, s.err)
					}
				}
				if i%10 == 0 {
					streams[i/10%4].wait(t, 1)
				}
			}
			for _, s := range streams {
				s.end(t)
			}
		})
	}
}

// churn are entries of other peers that come and go.
func churn(i int) []policy.Entry {
	return []policy.Entry{
		testEntry(fmt.Sprintf("10.9.0.%d", i%200+1), identity.TCP, 443, 443),
		testEntry(fmt.Sprintf("10.8.%d.0/24", i%50), identity.TCP, uint16(1000+i), uint16(2000+i)),
		testEntry("10.8.0.0/16", identity.UDP, uint16(5000+i), uint16(5000+i)),
		testEntry(fmt.Sprintf("10.7.0.%d", i%100+1), 0, 0, 0),
		testEntry(fmt.Sprintf("fd99::%x:0/112", i%9), identity.TCP, 1, 1024),
	}
}

// TestTightenKeepsAnswering switches a server to enforce whose clients are allowed by a block, so that
// what may be answered has to be known from before.
func TestTightenKeepsAnswering(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for _, sides := range []policy.Sides{egress(), both(egress(), ingress(testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0)))} {
			t.Run(fmt.Sprintf("guarded=%v/ingress isolated=%v", guarded, sides.Ingress.Isolated), func(t *testing.T) {
				node := newTestNode(t)
				client, server := node.workload(t), node.workload(t)
				if !guarded {
					server.unguarded()
				}
				server.apply(t, policy.Learn, policy.Sides{})
				server.serve(t, 80, 53)
				server.talk(t, 8080)
				streams := startStreams(t, client, server)
				talker := client.listen(t, netip.AddrPortFrom(server.v4, 8080))
				for _, mode := range []policy.Mode{policy.Enforce, policy.AlertMode, policy.Enforce, policy.Learn, policy.Enforce} {
					server.apply(t, mode, sides)
					talker.more(t)
					for _, s := range streams {
						s.wait(t, 3)
					}
				}
				for _, s := range streams {
					s.end(t)
				}
			})
		}
	}
}
