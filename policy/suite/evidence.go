package suite

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Seen is an edge that policies were made of. Ends are services, or addresses.
type Seen struct {
	Client, Server string
	Protocol       identity.Protocol
	Port           uint16
}

// Why the tests of evidence are there.
const (
	becauseSeen   = "it was seen"
	becausePeer   = "it was never seen from there"
	becausePort   = "nothing was ever seen on this port"
	becauseEgress = "it was never seen to go there"
)

// chunk is how many names one test lists.
const chunk = 64

// FromEvidence makes tests of what was seen: each edge is allowed; and where the set isolates a service,
// what no evidence covers is denied: its ports to services that were never seen there, another port to
// those that were, and the world. Only tests that hold are kept; leftOut says of the others why, such as
// a rule that selects more than was seen. The result depends on the edges, not on their order.
func FromEvidence(name string, seen []Seen, c *Cluster, set *policy.Set) (f File, leftOut []string) {
	e := &evidence{c: c, set: set, ports: map[string]map[Port]bool{}, from: map[string]map[Port]map[string]bool{}, to: map[string]map[string]map[Port]bool{}}
	f.Name = name
	for s := range c.services {
		e.services = append(e.services, s.String())
	}
	slices.Sort(e.services)
	for _, x := range seen {
		e.note(x)
	}
	e.allowed()
	for _, s := range e.services {
		e.ingress(s)
		e.egress(s)
	}
	f.Tests = e.tests
	return f, e.leftOut
}

type evidence struct {
	c        *Cluster
	set      *policy.Set
	services []string
	ports    map[string]map[Port]bool            // server: its ports
	from     map[string]map[Port]map[string]bool // server, port: clients
	to       map[string]map[string]map[Port]bool // client, server: ports
	tests    []Test
	leftOut  []string
}

func (e *evidence) note(x Seen) {
	p := Port{Protocol: x.Protocol, Number: x.Port}
	put(e.ports, x.Server)[p] = true
	put(put(e.from, x.Server), p)[x.Client] = true
	put(put(e.to, x.Client), x.Server)[p] = true
}

func put[K, L comparable, V any](m map[K]map[L]V, k K) map[L]V {
	if m[k] == nil {
		m[k] = map[L]V{}
	}
	return m[k]
}

// allowed tests that each edge is.
func (e *evidence) allowed() {
	for _, client := range slices.Sorted(maps.Keys(e.to)) {
		for _, server := range slices.Sorted(maps.Keys(e.to[client])) {
			e.add(policy.Allow, []string{client}, server, sortedPorts(e.to[client][server]), becauseSeen)
		}
	}
}

func sortedPorts(m map[Port]bool) []Port {
	return slices.SortedFunc(maps.Keys(m), func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
}

// isolated says whether the set isolates every workload of a service in a direction.
func (e *evidence) isolated(service string, d policy.Direction) bool {
	namespace, name, _ := strings.Cut(service, "/")
	list := e.c.services[identity.Service{Namespace: namespace, Name: name}]
	for _, w := range list {
		if len(e.set.Selecting(w, d)) == 0 {
			return false
		}
	}
	return len(list) > 0
}

// ingress tests what was never seen to come to a service.
func (e *evidence) ingress(service string) {
	if !e.isolated(service, policy.Ingress) {
		return
	}
	seenFrom := map[string]bool{}
	for _, port := range sortedPorts(e.ports[service]) {
		clients := e.from[service][port]
		var strangers []string
		for _, s := range append([]string{NameWorld}, e.services...) {
			if !clients[s] && s != service && !(s == NameWorld && hasAddress(clients)) {
				strangers = append(strangers, s)
			}
		}
		for c := range clients {
			seenFrom[c] = true
		}
		for list := range slices.Chunk(strangers, chunk) {
			e.add(policy.Deny, list, service, []Port{port}, becausePeer)
		}
	}
	if len(seenFrom) > 0 {
		e.add(policy.Deny, slices.Sorted(maps.Keys(seenFrom)), service, []Port{e.unusedPort(service)}, becausePort)
	} else {
		e.add(policy.Deny, []string{NameWorld}, service, []Port{{Protocol: identity.TCP, Number: 80}}, becausePeer)
	}
}

// hasAddress says whether somebody outside of the cluster is among the ends.
func hasAddress(ends map[string]bool) bool {
	for s := range ends {
		if !strings.Contains(s, "/") {
			return true
		}
	}
	return false
}

// unusedPort is the first TCP port behind the ones that were seen.
func (e *evidence) unusedPort(service string) Port {
	p := Port{Protocol: identity.TCP, Number: 1}
	for seen := range e.ports[service] {
		if seen.Protocol == identity.TCP && seen.Number >= p.Number && seen.Number < 65535 {
			p.Number = seen.Number + 1
		}
	}
	return p
}

// egress tests where a service was never seen to go.
func (e *evidence) egress(service string) {
	if !e.isolated(service, policy.Egress) {
		return
	}
	seen := map[string]bool{}
	for server := range e.to[service] {
		seen[server] = true
	}
	web := []Port{{Protocol: identity.TCP, Number: 443}}
	if !hasAddress(seen) {
		e.add(policy.Deny, []string{service}, NameWorld, web, becauseEgress)
	}
	for _, server := range e.services {
		if seen[server] || server == service || len(e.ports[server]) == 0 || e.isolated(server, policy.Ingress) {
			continue // who isolates its ingress has tests of its own
		}
		e.add(policy.Deny, []string{service}, server, sortedPorts(e.ports[server]), becauseEgress)
	}
}

// add keeps a test if it holds; of one that does not, what of it does.
func (e *evidence) add(expect policy.Verdict, clients []string, server string, ports []Port, because string) {
	t := Test{Clients: clients, Servers: []string{server}, Ports: ports, Expect: expect, Because: because}
	r := Result{Test: &t}
	r.Err = r.run(e.c, e.set)
	if r.OK() {
		e.tests = append(e.tests, t)
		return
	}
	switch {
	case len(clients) > 1:
		var good []string
		for _, client := range clients {
			if e.holds(expect, client, server, ports) {
				good = append(good, client)
			} else {
				e.leave(expect, client, server, ports)
			}
		}
		if len(good) > 0 {
			e.tests = append(e.tests, Test{Clients: good, Servers: t.Servers, Ports: ports, Expect: expect, Because: because})
		}
	default:
		e.leave(expect, clients[0], server, ports)
	}
}

func (e *evidence) holds(expect policy.Verdict, client, server string, ports []Port) bool {
	r := Result{Test: &Test{Clients: []string{client}, Servers: []string{server}, Ports: ports, Expect: expect}}
	r.Err = r.run(e.c, e.set)
	return r.OK()
}

func (e *evidence) leave(expect policy.Verdict, client, server string, ports []Port) {
	r := Result{Test: &Test{Clients: []string{client}, Servers: []string{server}, Ports: ports, Expect: expect}}
	r.Err = r.run(e.c, e.set)
	e.leftOut = append(e.leftOut, fmt.Sprintf("%s: %s", r.Test, r.Headline()))
}

// Marshal writes the file as YAML, always in the same way; comment stands above it, line by line.
func (f *File) Marshal(comment []string) []byte {
	var b bytes.Buffer
	for _, line := range comment {
		fmt.Fprintf(&b, "# %s\n", strings.NewReplacer("\n", " ", "\r", " ").Replace(line))
	}
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\ntests:\n", Version, Kind, quoted(f.Name))
	if len(f.Tests) == 0 {
		b.Truncate(b.Len() - 1)
		b.WriteString(" []\n")
	}
	for _, t := range f.Tests {
		lead := "- "
		write := func(key, value string) {
			fmt.Fprintf(&b, "%s%s: %s\n", lead, key, value)
			lead = "  "
		}
		if t.Name != "" {
			write("name", quoted(t.Name))
		}
		write("client", listed(t.Clients))
		write("server", listed(t.Servers))
		ports := make([]string, len(t.Ports))
		for i, p := range t.Ports {
			ports[i] = p.String()
		}
		write("port", listed(ports))
		write("expect", t.Expect.String())
		if t.Because != "" {
			write("because", quoted(t.Because))
		}
	}
	return b.Bytes()
}

func listed(list []string) string {
	if len(list) == 1 {
		return quoted(list[0])
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoted(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// quoted leaves plain what YAML reads as the same string.
func quoted(s string) string {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/-._ ", r)) {
			return strconv.Quote(s)
		}
	}
	if !strings.Contains(s, "/") && !strings.Contains(s, " ") && s != NameWorld && s != NameNode || strings.TrimSpace(s) != s || strings.HasPrefix(s, "-") {
		return strconv.Quote(s) // it could be a number, a date or a word of YAML's own
	}
	return s
}
