package suite

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxPairs bounds the connections that one test stands for.
const maxPairs = 100_000

// Result is what became of one test.
type Result struct {
	*Test
	Tried    int       // connections that the test stands for: workloads × workloads × ports × families
	Failures []Failure // the first of those that got another verdict
	Failed   int       // all of those
	Err      error     // it could not be run: nobody of that name, no port of that name
}

// OK says that every connection got the verdict expected.
func (r *Result) OK() bool { return r.Err == nil && r.Failed == 0 }

// Failure is one connection that got another verdict than expected.
type Failure struct {
	Client, Server string
	Addrs          [2]netip.Addr
	Port           Port
	Decision       policy.Decision
}

// maxFailures is how many connections of one test are told.
const maxFailures = 3

// Run puts every test of a file to a set. A test whose names mean several workloads, or which have
// addresses of both families, holds when all of the connections get the verdict.
func (f *File) Run(c *Cluster, set *policy.Set) []Result {
	out := make([]Result, len(f.Tests))
	for i := range f.Tests {
		t := &f.Tests[i]
		out[i] = Result{Test: t}
		out[i].Err = out[i].run(c, set)
	}
	return out
}

func (r *Result) run(c *Cluster, set *policy.Set) error {
	for _, client := range r.Clients {
		for _, server := range r.Servers {
			from, to, err := c.Ends(client, server)
			if err != nil {
				return err
			}
			for _, port := range r.Ports {
				if err := r.port(c, set, from, to, port); err != nil {
					return fmt.Errorf("%s → %s %s: %w", client, server, port, err)
				}
			}
		}
	}
	return nil
}

// Ends finds everybody that the names of both ends mean (see [Cluster.Find]); "node" at one of them
// needs the other.
func (c *Cluster) Ends(client, server string) (from, to []Member, err error) {
	if client == NameNode {
		if to, err = c.Find(server, nil); err != nil {
			return nil, nil, fmt.Errorf("server: %w", err)
		}
	}
	if from, err = c.Find(client, to); err != nil {
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	if len(from) > 0 && from[0].VIP {
		return nil, nil, fmt.Errorf("client: %s: a Service's address opens no connections", client)
	}
	if to == nil {
		if to, err = c.Find(server, from); err != nil {
			return nil, nil, fmt.Errorf("server: %w", err)
		}
	}
	return from, to, nil
}

func (r *Result) port(c *Cluster, set *policy.Set, from, to []Member, port Port) error {
	tried := 0
	for i := range from {
		for j := range to {
			s := &to[j]
			if s.Workload != nil && s.Workload == from[i].Workload && len(from)+len(to) > 2 {
				continue // one of several talking to itself is not what a test of services is about
			}
			n, err := r.pair(c, set, &from[i], s, port)
			if err != nil {
				return err
			}
			if tried += n; r.Tried > maxPairs {
				return fmt.Errorf("more than %d connections; name fewer workloads", maxPairs)
			}
		}
	}
	if tried == 0 {
		return errors.New("client and server have no address family in common")
	}
	return nil
}

// pair judges the connections of two members, one for each family that both have.
func (r *Result) pair(c *Cluster, set *policy.Set, client, server *Member, port Port) (int, error) {
	n := 0
	for _, v4 := range []bool{true, false} {
		from, to, ok := Family(ofFamily(client, v4), ofFamily(server, v4))
		if !ok || port.Protocol == identity.ICMPv6 && v4 {
			continue
		}
		protocol, number := onWire(port.Protocol, port.Number, to)
		if port.Name != "" {
			if number = c.portNamed(*server, to, port.Name, protocol); number == 0 {
				return n, fmt.Errorf("%s has no %s port named %s", server, protocol, port.Name)
			}
		}
		n++
		r.Tried++
		d := c.Judge(set, *client, *server, from, to, protocol, number)
		if d.Verdict == r.Expect {
			continue
		}
		if r.Failed++; len(r.Failures) < maxFailures {
			r.Failures = append(r.Failures, Failure{Client: client.String(), Server: server.String(), Addrs: [2]netip.Addr{from, to},
				Port: Port{Protocol: protocol, Number: number, Name: ""}, Decision: d})
		}
	}
	return n, nil
}

func ofFamily(m *Member, v4 bool) Member {
	out := *m
	out.Addrs = nil
	for _, a := range m.Addrs {
		if a.Is4() == v4 {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

// Connection is one between two members, in the first family that both have. Errors: none in common; a
// port's name that the server has not.
func (c *Cluster) Connection(client, server Member, port Port) (policy.Connection, error) {
	from, to, ok := Family(client, server)
	if !ok {
		return policy.Connection{}, errors.New("client and server have no address family in common")
	}
	protocol, number := onWire(port.Protocol, port.Number, to)
	if port.Name != "" {
		if number = c.portNamed(server, to, port.Name, protocol); number == 0 {
			return policy.Connection{}, fmt.Errorf("%s has no %s port named %s", server, protocol, port.Name)
		}
	}
	return policy.Connection{Client: client.peer(c.on(client.Node), from), Server: server.peer(c.on(server.Node), to), Protocol: protocol, Port: number}, nil
}
