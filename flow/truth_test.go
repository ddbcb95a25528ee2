package flow

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// truth is testdata/SHOP/graph.yaml: the services of a public demo shop, and every edge that its
// manifests and code show.
type truth struct {
	Services []struct {
		Name, Namespace string
		Labels          identity.Labels
		Ports           []struct {
			Name     string
			Port     uint16
			Protocol string
		}
		VIPs []struct {
			Name         string
			Port, Target uint16
			Protocol     string
		}
	}
	External []struct{ Name, Address string }
	Edges    []struct {
		From, To string
		Port     uint16
		Protocol string
	}
}

// shop is a truth with workloads, addresses and a history in which every edge was used.
type shop struct {
	truth truth
	view  *identity.View
	peers map[string][]netip.Addr // by name in the truth: of its two workloads, or outside
	log   []event
	want  map[Key]bool
}

const (
	nodeAddr     = "10.1.0.1"
	resolverAddr = "10.96.0.10"
)

func openShop(t testing.TB, name string) *shop {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name, "graph.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{peers: map[string][]netip.Addr{}, want: map[Key]bool{}}
	if err := yaml.Unmarshal(data, &s.truth); err != nil {
		t.Fatal(err)
	}
	s.view = s.people().View()
	s.live(t)
	return s
}

// people makes two workloads of each service, and the Services in front of them.
func (s *shop) people() *identity.Index {
	ix := identity.NewIndex("node-a")
	ix.SetNode([]netip.Addr{netip.MustParseAddr(nodeAddr)})
	ix.SetResolvers([]netip.Addr{netip.MustParseAddr(resolverAddr)})
	ix.SetNetworks(nil)
	ix.SetPodBlocks([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")})
	var front []identity.KubeService
	for i, svc := range s.truth.Services {
		var ports []identity.ContainerPort
		for _, p := range svc.Ports {
			proto, _ := identity.ParseProtocol(p.Protocol)
			ports = append(ports, identity.ContainerPort{Name: p.Name, Protocol: proto, Port: p.Port})
		}
		for n, suffix := range []string{"7d9f8c6b5-x2x4z", "7d9f8c6b5-q8v7k"} {
			a := netip.AddrFrom4([4]byte{10, 1, byte(1 + n), byte(10 + i)})
			s.peers[svc.Name] = append(s.peers[svc.Name], a)
			labels := identity.Labels{"pod-template-hash": "7d9f8c6b5"}
			for k, v := range svc.Labels {
				labels[k] = v
			}
			pod := svc.Name + "-" + suffix
			ix.Upsert(identity.Workload{ID: fmt.Sprintf("%s-%d", svc.Name, n), Namespace: svc.Namespace, Name: pod, Node: "node-a",
				Labels: labels, Service: identity.ServiceOf(svc.Namespace, pod, labels, nil), Addrs: []netip.Addr{a},
				Ports: ports, Local: true, Source: identity.SourceCNI, Since: morning.Add(-time.Hour)})
		}
		for j, v := range svc.VIPs {
			proto, _ := identity.ParseProtocol(v.Protocol)
			addr := netip.AddrFrom4([4]byte{10, 96, byte(1 + j), byte(10 + i)})
			if svc.Name == "kube-dns" {
				addr = netip.MustParseAddr(resolverAddr)
			}
			front = append(front, identity.KubeService{Namespace: svc.Namespace, Name: v.Name, Selector: svc.Labels,
				Addrs: []netip.Addr{addr}, Ports: []identity.ServicePort{{Protocol: proto, Port: v.Port, Target: v.Target}}})
		}
	}
	ix.SetServices(front)
	for i, x := range s.truth.External {
		a := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)})
		switch x.Address {
		case "node":
			a = netip.MustParseAddr(nodeAddr)
		case "":
		default:
			a = netip.MustParseAddr(x.Address)
		}
		s.peers[x.Name] = []netip.Addr{a}
	}
	s.peers["node"] = []netip.Addr{netip.MustParseAddr(nodeAddr)}
	s.peers["world"] = []netip.Addr{netip.MustParseAddr("203.0.113.5")}
	return ix
}

// live has every workload of every edge's client call each of its servers, by a virtual address where
// there is one, and both ends report.
func (s *shop) live(t testing.TB) {
	now := morning
	for _, e := range s.truth.Edges {
		proto, err := identity.ParseProtocol(e.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		for i, client := range s.peers[e.From] {
			server := s.peers[e.To][i%len(s.peers[e.To])]
			now = now.Add(time.Second)
			if s.view.Peer(client).Kind == identity.Pod {
				dialled, port := s.dialled(e.To, server, proto, e.Port)
				s.record(policy.Egress, now, client, dialled, proto, port)
			}
			if s.view.Peer(server).Kind == identity.Pod {
				s.record(policy.Ingress, now, client, server, proto, e.Port)
			}
			s.want[Key{EndOf(s.view.Peer(client)), EndOf(s.view.Peer(server)), proto, e.Port}] = true
		}
	}
}

// dialled is the virtual address and port by which clients reach a container port, if any.
func (s *shop) dialled(service string, server netip.Addr, proto identity.Protocol, target uint16) (netip.Addr, uint16) {
	for _, k := range s.view.VIPKeys() {
		for _, b := range s.view.Backends(k) {
			if k.Protocol == proto && b.Port == target && slices.Contains(b.Workload.Addrs, server) {
				return k.Addr, k.Port
			}
		}
	}
	return server, target
}

func (s *shop) record(dir policy.Direction, at time.Time, client, server netip.Addr, proto identity.Protocol, port uint16) {
	s.log = append(s.log, event{
		record: Record{Time: at, Event: Birth, Direction: dir, Client: client, Server: server, Protocol: proto,
			ClientPort: uint16(32768 + len(s.log)), Port: port, Verdict: policy.Allow, Count: 1},
		client: s.view.Peer(client), server: s.view.Peer(server),
		backends: s.view.Backends(identity.VIPKey{Addr: server, Protocol: proto, Port: port}),
	})
}

// TestTruth: for each public shop, the graph is the truth in every order of the records, and so is
// what is generated from it: every true edge is allowed, every other pair of services at every port
// of the shop is denied wherever an end is isolated.
func TestTruth(t *testing.T) {
	for _, name := range []string{"online-boutique", "sock-shop"} {
		t.Run(name, func(t *testing.T) {
			s := openShop(t, name)
			first := map[Format]string{}
			for order, log := range arrangements(s.log) {
				edges := replay(t, log, Limits{}).Edges()
				got := map[Key]bool{}
				for _, e := range edges {
					got[e.Key] = true
				}
				if diff := cmp.Diff(keyNames(s.want), keyNames(got)); diff != "" {
					t.Fatalf("%s: edges (-truth +graph):\n%s", order, diff)
				}
				for _, f := range []Format{Native, Kubernetes} {
					text := generate(t, edges, s.view, Options{Format: f})
					if first[f] == "" {
						first[f] = text
					}
					if diff := cmp.Diff(first[f], text); diff != "" {
						t.Errorf("%s: %s differs:\n%s", order, f, diff)
					}
				}
			}
			for f, text := range first {
				s.judge(t, f, parse(t, text))
			}
		})
	}
}

func keyNames(m map[Key]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k.String())
	}
	slices.Sort(out)
	return out
}

func generate(t testing.TB, edges []Edge, v *identity.View, o Options) string {
	t.Helper()
	text, err := Render(Suggest(edges, v, o))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t testing.TB, text string) *policy.Set {
	t.Helper()
	list, err := policy.Parse("generated.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// allowed fails for every recorded flow that the policies would stop.
func allowed(t testing.TB, set *policy.Set, v *identity.View, log []event) {
	t.Helper()
	for _, e := range log {
		r := &e.record
		d := set.Evaluate(v, policy.Connection{Client: e.client, Server: e.server, Protocol: r.Protocol, Port: r.Port})
		if r.Verdict == policy.Allow && d.Verdict != policy.Allow {
			t.Errorf("recorded flow %s → %s %s is denied: %v", e.client, e.server, PortName(r.Protocol, r.Port), d.Reasons())
		}
	}
}

// judge holds policies against the truth.
func (s *shop) judge(t *testing.T, f Format, set *policy.Set) {
	t.Helper()
	allowed(t, set, s.view, s.log)
	type port struct {
		proto identity.Protocol
		port  uint16
	}
	ports := map[port]bool{{identity.TCP, 22}: true, {identity.UDP, 80}: true}
	for k := range s.want {
		ports[port{k.Protocol, k.Port}] = true
	}
	closed := 0
	for _, client := range s.view.Workloads {
		for _, server := range s.view.Workloads {
			for p := range ports {
				k := Key{EndOf(peerOf(client)), EndOf(peerOf(server)), p.proto, p.port}
				d := set.Evaluate(s.view, policy.Connection{Client: peerOf(client), Server: peerOf(server), Protocol: p.proto, Port: p.port})
				isolated := d.Egress.Isolated || d.Ingress.Isolated
				want := s.want[k] || !isolated || client == server
				if (d.Verdict == policy.Allow) != want {
					t.Errorf("%s: %s: %v, want allowed %v: %v", f, k, d.Verdict, want, d.Reasons())
				}
				if d.Verdict != policy.Allow {
					closed++
				}
			}
		}
	}
	if closed == 0 {
		t.Error("nothing is denied")
	}
	for _, p := range set.Policies() {
		s.exact(t, p)
	}
}

// exact holds a policy's selector against the service that it is named after.
func (s *shop) exact(t *testing.T, p *policy.Policy) {
	t.Helper()
	for _, w := range s.view.In(p.Namespace) {
		selected := hasAll(w.Labels, p.Spec.PodSelector.MatchLabels)
		if own := objectName(w.Service.Name) == p.Name; selected != own {
			t.Errorf("policy %s selects %s: %v, want %v", p, w.Name, selected, own)
		}
	}
}

// TestGolden is what a person reads. After a wanted change: UPDATE=1 go test ./flow -run Golden
func TestGolden(t *testing.T) {
	s := openShop(t, "online-boutique")
	for i := range 20 { // more shoppers than are written one by one
		s.record(policy.Ingress, morning.Add(time.Hour), netip.AddrFrom4([4]byte{203, 0, 113, byte(6 + i)}), s.peers["frontend"][0], identity.TCP, 8080)
	}
	// An attack that was stopped, and one within the learning window.
	s.record(policy.Egress, morning.Add(time.Hour), s.peers["adservice"][0], s.peers["redis-cart"][0], identity.TCP, 6379)
	last := &s.log[len(s.log)-1].record
	last.Event, last.Verdict = Denied, policy.Deny
	s.record(policy.Egress, morning.Add(time.Hour), s.peers["adservice"][0], netip.MustParseAddr("198.51.100.77"), identity.ICMP, 8)
	edges := replay(t, s.log, Limits{}).Edges()
	for _, f := range []Format{Native, Kubernetes} {
		got := generate(t, edges, s.view, Options{Format: f})
		path := filepath.Join("testdata", "online-boutique", string(f)+".yaml")
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}
