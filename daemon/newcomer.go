package daemon

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// newcomerWait is how long an interface that the host made, and its addresses, may wait for the ADD
// that explains them: a runtime makes the interface of a second network before it tells us. It is
// guarded meanwhile. What is made inside of the namespace waits for nothing.
const newcomerWait = 3 * time.Second

// addressWait is how long the addresses of such an interface are taken as they are: who made it gives
// them at once. After that nobody in the container can add to what it may send from.
const addressWait = time.Second

// newcomer is an event about an interface that the host made, with what the workload had when it came.
type newcomer struct {
	firewall.Event
	had []StoredInterface
}

// place is where an interface of a workload is now.
type place struct {
	index  int    // in the namespace
	name   string // in the namespace; the container can rename it
	absent bool   // neither it nor an end of it on the host is there
}

// explained says whether an ADD told of what came: the interface itself, or an address of it.
func (w *workload) explained(e firewall.Event) bool {
	if !(e.Kind == firewall.EventLink && e.Came || e.Kind == firewall.EventAddress) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.record.Interfaces {
		if p := w.places[i.Name]; !i.Found && !p.absent && p.index == e.Index && e.Index != 0 {
			return e.Kind == firewall.EventLink && p.name == i.Name || slices.Contains(i.Addrs, e.Addr)
		}
	}
	return false
}

// isNewcomer says whether an event may be the beginning of an ADD, and keeps it if so.
func (w *workload) isNewcomer(g *grip, e firewall.Event) bool {
	if e.Kind != firewall.EventLink && e.Kind != firewall.EventAddress || !w.fromHost(e.Index) {
		return false
	}
	if len(g.newcomers) < tamperQueue {
		g.newcomers = append(g.newcomers, newcomer{e, w.announced()})
	}
	return true
}

// fromHost says whether an interface was found that only the host can have made, and that no ADD told
// of: for a while, an ADD may still come.
func (w *workload) fromHost(index int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.record.Interfaces {
		if p := w.places[i.Name]; i.Found && p.index == index && time.Since(w.found[i.Name]) < newcomerWait {
			return true
		}
	}
	return false
}

// announced are the interfaces of which an ADD told.
func (w *workload) announced() []StoredInterface {
	return slices.DeleteFunc(slices.Clone(w.stored().Interfaces), func(i StoredInterface) bool { return i.Found })
}

// judgeNewcomers tells of those that no ADD or DEL explained in time.
func (w *workload) judgeNewcomers(g *grip) {
	for len(g.newcomers) > 0 && time.Since(g.newcomers[0].Time) >= newcomerWait {
		n := g.newcomers[0]
		g.newcomers = g.newcomers[1:]
		if slices.EqualFunc(n.had, w.announced(), func(a, b StoredInterface) bool { return a.Name == b.Name && sameInterface(a, b) }) {
			w.tampered(n.Event, true)
		}
	}
}

// locate looks where the workload's interfaces are: the container can rename them, move them away or
// delete them, and the host can bring new ones without an ADD. Those get a guard like the others.
func (w *workload) locate(g *grip) {
	g.heard.again = false
	before := w.stored()
	links, found, err := w.lookInside(before)
	if err != nil {
		w.log.Warn("interfaces not looked at", "err", err)
		return
	}
	changed := w.adoptFound(g, before, found)
	places := map[string]place{}
	w.mu.Lock()
	for _, i := range w.record.Interfaces {
		places[i.Name] = placeOf(i, w.places[i.Name], links)
	}
	moved := !maps.Equal(places, w.places) && w.places != nil
	w.places = places
	w.mu.Unlock()
	if changed || moved {
		g.basis.doubted = true
		w.kick("interfaces")
	}
}

// lookInside lists the namespace's links and those among them that only the host can have made.
func (w *workload) lookInside(r StoredWorkload) (links []netlink.Link, found []StoredInterface, err error) {
	ns, err := openNamespace(r.NetNS)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	defer inside.Close()
	if links, err = inside.LinkList(); err != nil {
		return nil, nil, err
	}
	node, err := firewall.OpenNamespace("/proc/thread-self/ns/net")
	if err != nil {
		return nil, nil, err
	}
	defer node.Close()
	id, err := inside.GetNetNsIdByFd(int(node.Fd()))
	if err != nil {
		return nil, nil, err
	}
	for _, l := range links {
		a := l.Attrs()
		if id < 0 || a.NetNsID != id || len(a.HardwareAddr) != 6 || slices.ContainsFunc(r.Interfaces, func(i StoredInterface) bool { return !i.Found && i.is(l) }) {
			continue // its other end, or what it stands on, is not the node's
		}
		host, index, err := hostEnd(ns, l)
		if err != nil {
			continue
		}
		ifc := firewall.Interface{Name: a.Name, Host: host, HostIndex: index, MAC: a.HardwareAddr}
		if ifc.Addrs, err = addresses(inside, l, nil); err != nil {
			continue // gone meanwhile
		}
		s := storedInterface(ifc, "")
		s.Found = true
		found = append(found, s)
	}
	return links, found, nil
}

// is says whether a link is this interface, whatever it is called now.
func (i StoredInterface) is(l netlink.Link) bool {
	a := l.Attrs()
	if i.HostIndex != 0 && l.Type() == "veth" {
		return a.ParentIndex == i.HostIndex
	}
	return a.Name == i.Name || a.HardwareAddr.String() == i.MAC
}

// placeOf finds an interface among the links of its namespace, and its end on the host.
func placeOf(i StoredInterface, was place, links []netlink.Link) place {
	for _, fits := range []func(netlink.Link) bool{
		func(l netlink.Link) bool { return was.index != 0 && l.Attrs().Index == was.index },
		func(l netlink.Link) bool {
			return i.HostIndex != 0 && l.Type() == "veth" && l.Attrs().ParentIndex == i.HostIndex
		},
		func(l netlink.Link) bool { return l.Attrs().Name == i.Name },
	} {
		if at := slices.IndexFunc(links, fits); at >= 0 {
			return place{index: links[at].Attrs().Index, name: links[at].Attrs().Name}
		}
	}
	p := place{name: i.Name, absent: true}
	if i.HostIndex != 0 {
		// Moved to another namespace: the guard holds for what comes from there.
		if host, err := netlink.LinkByIndex(i.HostIndex); err == nil && host.Attrs().Name == i.Host {
			p.absent = false
		}
	}
	return p
}

// adoptFound takes interfaces that the host made into the workload's record, so that they are guarded,
// and drops those that are gone. An ADD that comes later says it better. Addresses are taken as they
// are within addressWait, unless they are somebody else's; after that the container cannot add to them.
func (w *workload) adoptFound(g *grip, before StoredWorkload, found []StoredInterface) (changed bool) {
	view := w.d.index.View()
	r := before
	r.Interfaces = w.announced()
	w.mu.Lock()
	if w.found == nil {
		w.found = map[string]time.Time{}
	}
	for _, f := range found {
		if len(r.Interfaces) >= maxInterfaces || w.record.has(f.Name, false) {
			continue
		}
		if w.found[f.Name].IsZero() {
			w.found[f.Name] = time.Now()
		}
		f.Addrs = slices.DeleteFunc(f.Addrs, func(a netip.Addr) bool {
			owner := view.Owner(a)
			return owner != nil && owner.ID != w.id
		})
		if old := slices.IndexFunc(before.Interfaces, func(i StoredInterface) bool { return i.Found && i.Name == f.Name && i.HostIndex == f.HostIndex }); old >= 0 &&
			time.Since(w.found[f.Name]) >= addressWait {
			f = before.Interfaces[old]
		}
		r.Interfaces = append(r.Interfaces, f)
	}
	maps.DeleteFunc(w.found, func(name string, _ time.Time) bool { return !r.has(name, true) })
	w.mu.Unlock()
	same := func(a, b StoredInterface) bool { return a.Name == b.Name && sameInterface(a, b) }
	if slices.EqualFunc(before.Interfaces, r.Interfaces, same) {
		return false
	}
	if !w.d.attaching.TryLock() { // an ADD or DEL changes the record, too, and may be waiting for us
		g.heard.again = true
		return false
	}
	defer w.d.attaching.Unlock()
	if !slices.EqualFunc(w.stored().Interfaces, before.Interfaces, same) {
		g.heard.again = true
		return false
	}
	if err := w.d.store.PutWorkload(r); err != nil {
		w.log.Warn("interface not stored", "err", err)
	}
	w.replace(r)
	w.d.announce(w)
	return true
}

// has says whether the workload has an interface of a name, found or announced.
func (r StoredWorkload) has(name string, found bool) bool {
	return slices.ContainsFunc(r.Interfaces, func(i StoredInterface) bool { return i.Name == name && i.Found == found })
}
