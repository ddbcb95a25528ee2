package identity

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// View gives the present picture. It is made once per generation and shared; nothing in it may be
// written to.
func (ix *Index) View() *View {
	if v := ix.view.Load(); v != nil {
		return v
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if v := ix.view.Load(); v != nil {
		return v
	}
	v := ix.snapshotLocked()
	ix.view.Store(v)
	return v
}

func (ix *Index) snapshotLocked() *View {
	v := &View{
		Generation: ix.generation,
		Node:       ix.node,
		Workloads:  make([]*Workload, 0, len(ix.records)),
		ByAddr:     make(map[netip.Addr]*Workload, len(ix.owners)),
		NodeAddrs:  ix.nodeAddrs,
		Resolvers:  ix.resolvers,
		Networks:   maps.Clone(ix.networks),
		PodBlocks:  ix.podBlocks,
		Services:   ix.services,
		Nodes:      ix.nodes,
		NoNode:     ix.noBuiltIn[0],
		NoDNS:      ix.noBuiltIn[1],
	}
	for _, r := range ix.records {
		if !r.hidden {
			v.Workloads = append(v.Workloads, r.published)
		}
	}
	slices.SortFunc(v.Workloads, func(a, b *Workload) int { return strings.Compare(a.ID, b.ID) })
	for a, t := range ix.owners {
		v.ByAddr[a] = t.workload
	}
	v.VIPs, v.VIPNames = resolve(ix.services, v.Workloads)
	return v
}

// label is one selector term in one namespace.
type label struct{ space, key, value string }

// resolve finds the workloads behind every port of every Service address. A Service without
// selector has none: its endpoints are somebody else's to say. A backend that has no address of the
// Service address's family, has ended, or does not declare the port's name, is left out.
func resolve(services []KubeService, workloads []*Workload) (map[VIPKey][]Backend, map[netip.Addr]string) {
	used := map[label][]*Workload{}
	for _, s := range services {
		for k, val := range s.Selector {
			used[label{s.Namespace, k, val}] = nil
		}
	}
	for _, w := range workloads { // sorted by ID, so every list is too
		for k, val := range w.Labels {
			l := label{w.Namespace, k, val}
			if list, ok := used[l]; ok {
				used[l] = append(list, w)
			}
		}
	}
	vips, names := map[VIPKey][]Backend{}, map[netip.Addr]string{}
	for _, s := range services {
		selected := s.selects(used)
		for _, a := range s.Addrs {
			if _, taken := names[a]; !taken {
				names[a] = s.Namespace + "/" + s.Name
			}
			for _, p := range s.Ports {
				key := VIPKey{Addr: a, Protocol: p.protocol(), Port: p.Port}
				if _, taken := vips[key]; !taken {
					vips[key] = p.backends(selected, a.Is4())
				}
			}
		}
	}
	return vips, names
}

// selects looks at the shortest list of candidates only.
func (s KubeService) selects(by map[label][]*Workload) []*Workload {
	var candidates []*Workload
	first := true
	for k, val := range s.Selector {
		if list := by[label{s.Namespace, k, val}]; first || len(list) < len(candidates) {
			candidates, first = list, false
		}
	}
	var out []*Workload
	for _, w := range candidates {
		all := true
		for k, val := range s.Selector {
			have, ok := w.Labels[k]
			all = all && ok && have == val
		}
		if all && len(w.Addrs) > 0 {
			out = append(out, w)
		}
	}
	return out
}

func (p ServicePort) protocol() Protocol {
	if p.Protocol == AnyProtocol {
		return TCP // the API's default
	}
	return p.Protocol
}

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
