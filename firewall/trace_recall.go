package firewall

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// recall notes what the sets of seen and denied connections hold of the probe's pair. forget takes out
// what the probe alone put there, so that the next connection of the pair is told as if the probe had
// never been.
func (t *Trace) recall() (forget func() error, err error) {
	var undo []func() error
	for i, ns := range []*Namespace{t.from, t.to} {
		if ns == nil {
			continue
		}
		d, peer := policy.Egress, t.probe.Server
		if i == 1 {
			d, peer = policy.Ingress, t.probe.Client
		}
		for _, s := range (site{v6: peer.Is6()}).told(d) {
			e := t.told(peer)
			there, err := ns.holds(s, e)
			if err != nil {
				return nil, err
			}
			if !there {
				undo = append(undo, func() error { return ns.drop(s, e) })
			}
		}
	}
	return func() error {
		var err error
		for _, f := range undo {
			err = errors.Join(err, f())
		}
		return err
	}, nil
}

// told are the sets that decide what is news: see SeenSet.
func (s site) told(d policy.Direction) []*Set {
	family := 4
	if s.v6 {
		family = 6
	}
	return []*Set{{Name: SeenSet(d, family), Key: s.flowKey()}, {Name: DeniedSet(d, family), Key: s.flowKey()}}
}

// told is the probe as an element of them.
func (t *Trace) told(peer netip.Addr) Element {
	var p packing
	p.addr(peer)
	p.proto(uint8(t.probe.Protocol))
	if t.probe.Protocol.IsICMP() {
		request, _ := site{v6: peer.Is6()}.echoTypes()
		p.port(uint16(request) << 8)
	} else {
		p.port(t.probe.Port)
	}
	p.done()
	return p.keys(false)[0]
}

// holds says whether a set of the namespace's own table has an element.
func (ns *Namespace) holds(s *Set, e Element) (there bool, err error) {
	err = ns.locked(func() (err error) {
		there, err = ns.in.get(unix.NFT_MSG_GETSETELEM, FamilyINet, "element of set "+s.Name, func(a *attrs) {
			a.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			a.name(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			a.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() { s.element(a, e, 0) })
		}, func(Family, []attr) {})
		return err
	})
	return there, err
}

// drop takes an element out of a set of the namespace's own table, if it is there.
func (ns *Namespace) drop(s *Set, e Element) error {
	err := ns.locked(func() error {
		b := newBatch()
		t := &Table{Place: InWorkload, Family: FamilyINet, Name: TableName}
		Change{Op: DeleteElements, Table: t, Name: s.Name, Set: s, Elements: []Element{e}}.encode(b, 0)
		return ns.in.commit(b)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
