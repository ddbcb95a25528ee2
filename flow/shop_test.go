package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// morning is when the histories of these tests begin.
var morning = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// event is one record with its names, ready for Observe.
type event struct {
	record         Record
	client, server identity.Peer
	backends       []identity.Backend
}

// town is a small world of workloads for histories.
type town struct {
	t    testing.TB
	pods map[string]*identity.Workload
	vips map[netip.Addr]string
	back map[identity.VIPKey][]identity.Backend
	now  time.Time
	log  []event
}

func newTown(t testing.TB) *town {
	return &town{t: t, pods: map[string]*identity.Workload{}, now: morning,
		vips: map[netip.Addr]string{}, back: map[identity.VIPKey][]identity.Backend{}}
}

// pod returns the workload "namespace/service-n", made at its first mention.
func (w *town) pod(namespace, service string, n int) *identity.Workload {
	id := fmt.Sprintf("%s/%s-%d", namespace, service, n)
	if p := w.pods[id]; p != nil {
		return p
	}
	i := len(w.pods) + 10
	p := &identity.Workload{
		ID: "id-" + id, Namespace: namespace, Name: fmt.Sprintf("%s-%d", service, n),
		Labels:          identity.Labels{"app": service, "pod-template-hash": fmt.Sprintf("h%d", n)},
		NamespaceLabels: identity.Labels{"kubernetes.io/metadata.name": namespace},
		Service:         identity.Service{Namespace: namespace, Name: service},
		Addrs:           []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
		Local:           true,
	}
	w.pods[id] = p
	return p
}

func peerOf(p *identity.Workload) identity.Peer {
	return identity.Peer{Kind: identity.Pod, Addr: p.Addrs[0], Workload: p}
}

func worldPeer(addr string) identity.Peer {
	return identity.Peer{Kind: identity.World, Addr: netip.MustParseAddr(addr)}
}

// vip puts a virtual address in front of workloads.
func (w *town) vip(addr, name string, proto identity.Protocol, port, target uint16, behind ...*identity.Workload) identity.Peer {
	a := netip.MustParseAddr(addr)
	k := identity.VIPKey{Addr: a, Protocol: proto, Port: port}
	for _, p := range behind {
		w.back[k] = append(w.back[k], identity.Backend{Workload: p, Port: target})
	}
	w.vips[a] = name
	return identity.Peer{Kind: identity.VIP, Addr: a, Network: name}
}

// half adds the record of one end only.
func (w *town) half(dir policy.Direction, client, server identity.Peer, proto identity.Protocol, port uint16, v policy.Verdict) {
	w.now = w.now.Add(time.Second)
	r := Record{Time: w.now, Event: Birth, Direction: dir, Client: client.Addr, Server: server.Addr,
		Protocol: proto, ClientPort: uint16(32768 + len(w.log)), Port: port, Verdict: v, Count: 1}
	if v == policy.Deny {
		r.Event = Denied
	}
	var backends []identity.Backend
	if server.Kind == identity.VIP {
		backends = w.back[identity.VIPKey{Addr: server.Addr, Protocol: proto, Port: port}]
	}
	w.log = append(w.log, event{r, client, server, backends})
}

// call is an allowed connection that every workload at its ends reports. Through a virtual address
// the server's own record names the backend.
func (w *town) call(client, server identity.Peer, proto identity.Protocol, port uint16) {
	if client.Kind == identity.Pod {
		w.half(policy.Egress, client, server, proto, port, policy.Allow)
	}
	if b := w.back[identity.VIPKey{Addr: server.Addr, Protocol: proto, Port: port}]; len(b) > 0 {
		server, port = peerOf(b[0].Workload), b[0].Port
	}
	if server.Kind == identity.Pod {
		w.half(policy.Ingress, client, server, proto, port, policy.Allow)
	}
}

// replay feeds a history to a new graph.
func replay(t testing.TB, log []event, lim Limits) *Graph {
	t.Helper()
	g := NewGraph(lim)
	for _, e := range log {
		g.Observe(e.record, e.client, e.server, e.backends)
	}
	return g
}

// arrangements are the orders in which a history is replayed. The end must be the same.
func arrangements(log []event) map[string][]event {
	backwards := slices.Clone(log)
	slices.Reverse(backwards)
	out := map[string][]event{"as it was": log, "backwards": backwards}
	for seed := range uint64(4) {
		shuffled := slices.Clone(log)
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		out[fmt.Sprintf("shuffled %d", seed)] = shuffled
	}
	return out
}

// lines prints edges one a line: key, allowed, denied, would be denied.
func lines(edges []Edge) []string {
	var out []string
	for i := range edges {
		e := &edges[i]
		s := fmt.Sprintf("%s ×%d", e.Key, e.Count())
		if e.Denied() > 0 {
			s += fmt.Sprintf(" denied %d", e.Denied())
		}
		if e.WouldDeny() > 0 {
			s += fmt.Sprintf(" alert %d", e.WouldDeny())
		}
		out = append(out, s)
	}
	return out
}
