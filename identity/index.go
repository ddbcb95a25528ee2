package identity

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What an index holds at most. Beyond it, what comes from elsewhere is refused and counted; what
// runs here (SourceCNI) is always taken, since the machine itself bounds it.
const (
	maxWorkloads = 200_000
	maxAddrs     = 64 // of one workload
	maxServices  = 50_000
)

// Index knows who owns which address, now and a little earlier. It is safe for concurrent use.
//
// Workloads come in by ID from sources of different strength (see [Source]). Inventory and Kube
// describe a pod by namespace and name; CNI and gossip know of a namespace that exists. Where both
// speak of the same namespace/name (and not of different nodes), they are one workload: the
// stronger keeps its addresses and ID, and takes labels, namespace labels, service, ports and node
// from the weaker where it has none of its own. The weaker one is hidden then, and its addresses
// are spent: after the stronger is gone they stay nobody's until the weaker says something new.
//
// An address has one owner: the strongest source that claims it, among equals the one that has had
// it since later. Whoever loses an address to a later owner has lost it for good, unless it claims
// it anew with a later Since: so a late DEL, a reordered event or a stale object changes nothing.
type Index struct {
	node string
	now  func() time.Time

	mu         sync.RWMutex
	generation uint64
	refused    uint64
	sequence   uint64
	records    map[string]*record        // by ID
	groups     map[spaceName][]*record   // by namespace and name
	claims     map[netip.Addr][]*record  // who says it has the address, lost claims included
	owners     map[netip.Addr]tenure     // who has it
	past       history                   // who had it
	interned   interned                  // what workloads have in common
	spaces     map[string]Labels         // namespace labels
	services   []KubeService             //
	nodeAddrs  []netip.Addr              //
	resolvers  []netip.Addr              //
	networks   map[string][]netip.Prefix //
	podBlocks  []netip.Prefix            //
	nodes      map[string]NodeInfo       //
	noBuiltIn  [2]bool                   // node, dns: not allowed by itself
	view       atomic.Pointer[View]      // nil: something changed since

	last       *View                // the last view made
	pending    pending              // what changed since
	neighbours map[netip.Prefix]int // of the last view: how many owned addresses are in each
}

type spaceName struct{ space, name string }

// record is one workload as one source told it.
type record struct {
	told      *Workload // never written to
	sequence  uint64
	claims    []held
	spent     bool      // a stronger source spoke of the same pod; claims are void
	hidden    bool      // it does now
	published *Workload // told, completed by weaker sources; never written to
}

// held is a record's claim to an address.
type held struct {
	addr  netip.Addr
	since time.Time
	lost  bool
}

// claim finds a claim; nil: there is none.
func (r *record) claim(a netip.Addr) *held {
	for i := range r.claims {
		if r.claims[i].addr == a {
			return &r.claims[i]
		}
	}
	return nil
}

// claimed lists the addresses that it claims.
func (r *record) claimed() []netip.Addr {
	out := make([]netip.Addr, len(r.claims))
	for i := range r.claims {
		out[i] = r.claims[i].addr
	}
	return out
}

// NewIndex makes an index for the node of that name. It knows nobody yet.
func NewIndex(node string) *Index {
	return &Index{
		node:     node,
		now:      time.Now,
		records:  map[string]*record{},
		groups:   map[spaceName][]*record{},
		claims:   map[netip.Addr][]*record{},
		owners:   map[netip.Addr]tenure{},
		past:     newHistory(),
		interned: newInterned(),
		spaces:   map[string]Labels{},
		services: []KubeService{}, nodeAddrs: []netip.Addr{}, resolvers: []netip.Addr{}, podBlocks: []netip.Prefix{},
		networks: map[string][]netip.Prefix{MetadataNetwork: metadataPrefixes},
		nodes:    map[string]NodeInfo{},
	}
}

// Upsert takes what a source says of a workload, by ID, and keeps a copy. A workload that has ended
// has no Addrs. A zero Since means now. It returns whether anything changed: a weaker source than
// the one that last spoke of this ID changes nothing, nor does saying the same again, nor a workload
// beyond the bounds (see [Index.Refused]).
func (ix *Index) Upsert(w Workload) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	w = ix.normalLocked(w)
	r := ix.records[w.ID]
	switch {
	case r == nil:
		if len(ix.records) >= maxWorkloads && w.Source < SourceCNI {
			ix.refused++
			return false
		}
		r = &record{told: &Workload{}}
		ix.records[w.ID] = r
	case w.Source < r.told.Source, reflect.DeepEqual(w, *r.told):
		return false
	default:
		ix.ungroupLocked(r)
	}
	ix.sequence++
	r.sequence = ix.sequence
	before := r.told
	r.told = &w
	touched := ix.claimLocked(r, before)
	group := spaceName{w.Namespace, w.Name}
	ix.groups[group] = append(ix.groups[group], r)
	if old := (spaceName{before.Namespace, before.Name}); old != group {
		touched = append(touched, ix.mergeLocked(old)...)
	}
	touched = append(touched, ix.mergeLocked(group)...)
	ix.settleLocked(touched)
	ix.changedLocked()
	return true
}

// Withdraw forgets a workload, when src is at least as strong as the source that told of it. Its
// addresses are free, except those that somebody else owns by now. It returns whether it was known.
func (ix *Index) Withdraw(id string, src Source) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	r := ix.records[id]
	if r == nil || src < r.told.Source {
		return false
	}
	delete(ix.records, id)
	ix.pending.touch(id)
	ix.ungroupLocked(r)
	touched := r.claimed()
	for _, a := range touched {
		ix.unclaimLocked(r, a)
	}
	touched = append(touched, ix.mergeLocked(spaceName{r.told.Namespace, r.told.Name})...)
	ix.settleLocked(touched)
	ix.changedLocked()
	return true
}

// normalLocked copies a workload and brings it to the one form that is compared.
func (ix *Index) normalLocked(w Workload) Workload {
	addrs := make([]netip.Addr, 0, len(w.Addrs))
	for _, a := range w.Addrs {
		if a = Normal(a); a.IsValid() && !a.IsUnspecified() && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) > maxAddrs {
		ix.refused++
		addrs = addrs[:maxAddrs]
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	w.Addrs = addrs
	w.Namespace, w.Node = textOf(w.Namespace), textOf(w.Node)
	w.Service = Service{textOf(w.Service.Namespace), textOf(w.Service.Name)}
	w.Labels = ix.interned.labelsOf(w.Labels)
	w.NamespaceLabels = ix.interned.labelsOf(w.NamespaceLabels)
	w.Ports = ix.interned.portsOf(w.Ports)
	return w
}

func (ix *Index) ungroupLocked(r *record) {
	name := spaceName{r.told.Namespace, r.told.Name}
	rest := slices.DeleteFunc(ix.groups[name], func(o *record) bool { return o == r })
	if len(rest) == 0 {
		delete(ix.groups, name)
	} else {
		ix.groups[name] = rest
	}
}

func (ix *Index) changedLocked() {
	ix.generation++
	ix.view.Store(nil)
}

// SetServices replaces all Services. Beyond 50,000 the rest is left out and counted.
func (ix *Index) SetServices(services []KubeService) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if len(services) > maxServices {
		ix.refused += uint64(len(services) - maxServices)
		services = services[:maxServices]
	}
	clean := make([]KubeService, len(services))
	for i, s := range services {
		s.Selector = maps.Clone(s.Selector)
		s.Ports = slices.Clone(s.Ports)
		s.Addrs = normalAddrs(s.Addrs)
		clean[i] = s
	}
	if set(ix, &ix.services, clean) {
		ix.pending.services = true
	}
}

// SetNamespaceLabels replaces the labels of all namespaces. They take precedence over what
// workloads bring along.
func (ix *Index) SetNamespaceLabels(spaces map[string]Labels) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	clean := make(map[string]Labels, len(spaces))
	for name, l := range spaces {
		clean[name] = maps.Clone(l)
	}
	if set(ix, &ix.spaces, clean) {
		for name := range ix.groups {
			ix.mergeLocked(name)
		}
	}
}

// SetNode replaces this node's own addresses: all of its interfaces, link-local ones too.
func (ix *Index) SetNode(addrs []netip.Addr) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.tell(set(ix, &ix.nodeAddrs, normalAddrs(addrs)))
}

// SetResolvers replaces the resolvers of all workloads that run here.
func (ix *Index) SetResolvers(addrs []netip.Addr) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.tell(set(ix, &ix.resolvers, normalAddrs(addrs)))
}

// SetNetworks replaces the named networks of the configuration. [MetadataNetwork] is there without
// being given.
func (ix *Index) SetNetworks(networks map[string][]netip.Prefix) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	clean := map[string][]netip.Prefix{MetadataNetwork: metadataPrefixes}
	for name, p := range networks {
		clean[name] = normalPrefixes(p)
	}
	ix.tell(set(ix, &ix.networks, clean))
}

// SetPodBlocks replaces the cluster's pod ranges.
func (ix *Index) SetPodBlocks(blocks []netip.Prefix) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.tell(set(ix, &ix.podBlocks, normalPrefixes(blocks)))
}

// SetNodes replaces what node objects say: labels and addresses, by node name.
func (ix *Index) SetNodes(nodes map[string]NodeInfo) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	clean := make(map[string]NodeInfo, len(nodes))
	for name, n := range nodes {
		clean[name] = NodeInfo{Labels: maps.Clone(n.Labels), Addrs: normalAddrs(n.Addrs)}
	}
	ix.tell(set(ix, &ix.nodes, clean))
}

// SetBuiltIns says what is allowed without a policy: that the node talks to its own workloads, and that
// workloads ask their resolvers. Both are, unless it is said otherwise.
func (ix *Index) SetBuiltIns(node, dns bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.tell(set(ix, &ix.noBuiltIn, [2]bool{!node, !dns}))
}

// tell notes that something changed that is no workload and no Service.
func (ix *Index) tell(changed bool) { ix.pending.told = ix.pending.told || changed }

func set[T any](ix *Index, field *T, value T) bool {
	if reflect.DeepEqual(*field, value) {
		return false
	}
	*field = value
	ix.changedLocked()
	return true
}

// normalAddrs sorts, unmaps, strips zones and leaves out doubles.
func normalAddrs(in []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(in))
	for _, a := range in {
		if a = Normal(a); a.IsValid() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func normalPrefixes(in []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		if p.IsValid() && !p.Addr().Is4In6() {
			out = append(out, p.Masked())
		}
	}
	return Union(out)
}

// Generation counts changes. Two views of the same generation are the same.
func (ix *Index) Generation() uint64 {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return ix.generation
}

// Refused counts workloads, addresses and services left out because a bound was reached.
func (ix *Index) Refused() uint64 {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return ix.refused
}

// Find finds a workload by namespace and name, as [View.Find] does.
func (ix *Index) Find(namespace, name string) *Workload { return ix.View().Find(namespace, name) }
