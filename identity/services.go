package identity

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// plan is what follows from the Services alone, whoever is behind them. It is never written to.
type plan struct {
	services []KubeService
	names    map[netip.Addr]string // a Service's address: "namespace/name"
	keys     []VIPKey              // every port of every address, sorted
	ports    [][]servicePort       // of each service: the ports that are its own; the first Service to name one has it
	byName   map[rollKey][]int     // namespace and name: services
	byLabel  map[label][]int       // one label of the selector: services
}

// servicePort is one port of one address of a Service.
type servicePort struct {
	key VIPKey
	ServicePort
}

// label is one selector term in one namespace.
type label struct{ space, key, value string }

func newPlan(services []KubeService) *plan {
	p := &plan{
		services: services, names: map[netip.Addr]string{}, ports: make([][]servicePort, len(services)),
		byName: map[rollKey][]int{}, byLabel: map[label][]int{},
	}
	taken := map[VIPKey]bool{}
	for i, s := range services {
		name := rollKey{s.Namespace, s.Name}
		p.byName[name] = append(p.byName[name], i)
		if len(s.Selector) > 0 {
			k := slices.Min(slices.Collect(maps.Keys(s.Selector)))
			l := label{s.Namespace, k, s.Selector[k]}
			p.byLabel[l] = append(p.byLabel[l], i)
		}
		for _, a := range s.Addrs {
			if _, named := p.names[a]; !named {
				p.names[a] = s.Namespace + "/" + s.Name
			}
			for _, port := range s.Ports {
				key := VIPKey{Addr: a, Protocol: port.protocol(), Port: port.Port}
				if !taken[key] {
					taken[key] = true
					p.keys = append(p.keys, key)
					p.ports[i] = append(p.ports[i], servicePort{key, port})
				}
			}
		}
	}
	slices.SortFunc(p.keys, compareVIPs)
	return p
}

// selecting lists the services that have a workload behind them.
func (p *plan) selecting(w *Workload) []int {
	if w == nil || len(w.Addrs) == 0 || len(p.byLabel) == 0 {
		return nil
	}
	var out []int
	for k, val := range w.Labels {
		for _, i := range p.byLabel[label{w.Namespace, k, val}] {
			if p.services[i].Selects(w) {
				out = append(out, i)
			}
		}
	}
	return out
}

// front puts every Service's own addresses into an empty picture.
func (p *plan) front(into *picture) {
	for _, key := range p.keys {
		into.fronts.ReplaceOrInsert(front{key.Addr, key})
	}
}

// serve puts workloads behind the Services that select them, and takes away those that they select no
// longer. It lists the ports whose backends changed, sorted. Changes are sorted by ID.
func (p *plan) serve(into *picture, changes []Change) []VIPKey {
	touched := map[int]bool{}
	by := rolling{}
	for _, c := range changes {
		for _, half := range []Change{{Before: c.Before}, {After: c.After}} {
			for _, i := range p.selecting(half.workload()) {
				touched[i] = true
				by.note(rollKey{p.services[i].Namespace, p.services[i].Name}, half)
			}
		}
	}
	by.revise(into.served)
	var out []VIPKey
	for _, i := range slices.Sorted(maps.Keys(touched)) {
		s := p.services[i]
		name := rollKey{s.Namespace, s.Name}
		x, _ := into.served.Get(roll{rollKey: name})
		selected := x.list
		if len(p.byName[name]) > 1 { // two Services of one name share the list
			selected = slices.DeleteFunc(slices.Clone(selected), func(w *Workload) bool { return !s.Selects(w) })
		}
		for _, port := range p.ports[i] {
			if into.back(port.key, port.backends(selected, port.key.Addr.Is4())) {
				out = append(out, port.key)
			}
		}
	}
	slices.SortFunc(out, compareVIPs)
	return out
}

// back sets who is behind a port and says whether that is another than before.
func (p *picture) back(key VIPKey, backends []Backend) bool {
	old, _ := p.vips.Get(backing{key: key})
	if slices.Equal(old.backends, backends) {
		return false
	}
	if len(backends) == 0 {
		p.vips.Delete(old)
	} else {
		p.vips.ReplaceOrInsert(backing{key, backends})
	}
	missing(old.backends, backends, func(gone Backend) {
		for _, a := range gone.Workload.Addrs {
			// Workloads in a node's network namespace share its addresses.
			if a != key.Addr && !slices.ContainsFunc(backends, func(b Backend) bool { return slices.Contains(b.Workload.Addrs, a) }) {
				p.fronts.Delete(front{a, key})
			}
		}
	})
	missing(backends, old.backends, func(come Backend) {
		for _, a := range come.Workload.Addrs {
			if a.Is4() == key.Addr.Is4() {
				p.fronts.ReplaceOrInsert(front{a, key})
			}
		}
	})
	return true
}

// missing calls do with what is in a and not in b; both are sorted by workload ID.
func missing(a, b []Backend, do func(Backend)) {
	for _, x := range a {
		for len(b) > 0 && b[0].Workload.ID < x.Workload.ID {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != x {
			do(x)
		}
	}
}

// Selects says whether a workload of the Service's namespace carries its labels. A Service without
// selector selects nobody: its endpoints are somebody else's to say.
func (s KubeService) Selects(w *Workload) bool {
	for k, val := range s.Selector {
		if have, ok := w.Labels[k]; !ok || have != val {
			return false
		}
	}
	return len(s.Selector) > 0 && w.Namespace == s.Namespace
}

func (p ServicePort) protocol() Protocol {
	return cmp.Or(p.Protocol, TCP) // the API's default
}

// backends of a port for a family. A workload that has no address of the Service address's family, or
// does not declare the port's name, is left out.
func (p ServicePort) backends(selected []*Workload, is4 bool) []Backend {
	var out []Backend
	for _, w := range selected {
		if !slices.ContainsFunc(w.Addrs, func(a netip.Addr) bool { return a.Is4() == is4 }) {
			continue
		}
		port := p.Target
		if p.TargetName != "" {
			port = w.PortNamed(p.TargetName, p.protocol())
			if port == 0 {
				continue
			}
		} else if port == 0 {
			port = p.Port
		}
		out = append(out, Backend{Workload: w, Port: port})
	}
	return out
}

// PortNamed gives the number of the container port of that name and protocol; 0: there is none.
func (w *Workload) PortNamed(name string, p Protocol) uint16 {
	for _, c := range w.Ports {
		if c.Name == name && (c.Protocol == p || c.Protocol == AnyProtocol && p == TCP) {
			return c.Port
		}
	}
	return 0
}
