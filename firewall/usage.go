package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// meterElements bounds how many elements a Meter remembers, some 100 bytes each. An honest
	// workload has hundreds; what a scan adds beyond is counted as Untracked.
	meterElements = 16384
	// meterTries is how often a read begins again that a change of the ruleset interrupted.
	meterTries = 4
)

// MeterConfig says whose counters to read.
type MeterConfig struct {
	Namespace string       // path of the network namespace
	Workload  string       // goes into every record
	Addrs     []netip.Addr // the workload's own: the first of each family is its end of a record
}

// Meter reads back what packets did to the seen and denied sets of one namespace: how often known
// peers were met again, and how full the sets are. It changes nothing and needs no ownership.
// It is for one goroutine.
type Meter struct {
	cfg  MeterConfig
	file *os.File
	sock *socket
	sets []usageSet
	last map[usageKey]usageCount
	read bool // last holds the figures of a former Read
}

// usageSet is one set that packets fill.
type usageSet struct {
	name   string
	index  uint8
	dir    policy.Direction
	family int
	denied bool
}

// usageKey is an element's key with the set it is in.
type usageKey struct {
	addr     netip.Addr
	port     uint16
	protocol uint8
	set      uint8
}

type usageCount struct{ packets, bytes uint64 }

// Usage is what one Read found.
type Usage struct {
	// Seen are the allowed peers that were met again since the last Read, Event Usage. Count is the
	// increment in connections for TCP and SCTP, in datagrams from client to server for all others;
	// Bytes is theirs. The birth that the flow log told is not counted a second time.
	Seen []flow.Record
	// Denied are the same for what was denied. In mode alert it was let through; the set does not
	// know, its reader does.
	Denied []flow.Record
	// Sets says how full each set is.
	Sets []SetFill
	// Counters are the packets of the table's named counters, since the table was made.
	Counters map[string]uint64
	// Untracked is how many elements found no room in the Meter's memory: their increments are
	// missing.
	Untracked int
}

// SetFill is how full a set is that packets fill.
type SetFill struct {
	Set      string
	Elements int
	Size     int
}

// Full says that a set has no room, or as good as none: what comes next is judged, but neither
// told nor counted. An element too many may be under way, hence the one percent.
func (f SetFill) Full() bool { return f.Size > 0 && f.Elements >= f.Size-f.Size/100 }

// NewMeter opens a meter. Close it: while it is open the namespace lives on.
func NewMeter(cfg MeterConfig) (*Meter, error) {
	file, err := OpenNamespace(cfg.Namespace)
	if err != nil {
		return nil, err
	}
	sock, err := openSocket(file, cfg.Namespace)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	m := &Meter{cfg: cfg, file: file, sock: sock}
	for _, denied := range []bool{false, true} {
		for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
			for _, family := range []int{4, 6} {
				s := usageSet{name: SeenSet(dir, family), index: uint8(len(m.sets)), dir: dir, family: family, denied: denied}
				if denied {
					s.name = DeniedSet(dir, family)
				}
				m.sets = append(m.sets, s)
			}
		}
	}
	return m, nil
}

// Close lets go of the namespace.
func (m *Meter) Close() error { return errors.Join(m.sock.close(), m.file.Close()) }

// Read gives what changed since the last Read. The first one only takes the figures, so that a
// restarted daemon counts nothing twice. Read it at least twice per SeenTimeout: what an element
// counted after the last Read goes with it when it expires. A set that does not exist is left out.
//
// Errors: after one, the next Read counts from the last that succeeded.
func (m *Meter) Read() (Usage, error) {
	for try := 1; ; try++ {
		u, seen, err := m.readOnce()
		if err == nil {
			m.last, m.read = seen, true
			return u, nil
		}
		if !errors.Is(err, errAgain) || try == meterTries {
			return Usage{}, fmt.Errorf("read usage: %w", err)
		}
	}
}

func (m *Meter) readOnce() (Usage, map[usageKey]usageCount, error) {
	u := Usage{Counters: make(map[string]uint64)}
	now := time.Now()
	seen := make(map[usageKey]usageCount, len(m.last))
	for _, set := range m.sets {
		size, found, err := m.size(set)
		if err != nil {
			return u, nil, err
		}
		if !found {
			continue
		}
		fill := SetFill{Set: set.name, Size: size}
		err = m.elements(set, func(k usageKey, c usageCount) {
			fill.Elements++
			m.account(&u, seen, set, k, c, now)
		})
		if err != nil {
			return u, nil, err
		}
		u.Sets = append(u.Sets, fill)
	}
	for _, list := range [][]flow.Record{u.Seen, u.Denied} {
		slices.SortFunc(list, usageOrder)
	}
	return u, seen, m.counters(u.Counters)
}

// account turns one element into an increment.
func (m *Meter) account(u *Usage, seen map[usageKey]usageCount, set usageSet, k usageKey, c usageCount, now time.Time) {
	before, known := m.last[k]
	if !known && len(seen) >= meterElements {
		u.Untracked++
		return
	}
	seen[k] = c
	if !m.read {
		return
	}
	n, bytes := c.packets-before.packets, c.bytes-before.bytes
	if !known || c.packets < before.packets {
		// A new element, or the old one expired and came again. Its first packet is the birth that
		// the flow log told. One that came again and overtook the old figure is taken for the old
		// one: the count is then too low, never too high.
		if c.packets < 2 {
			return
		}
		n = c.packets - 1
		bytes = c.bytes / c.packets * n
	}
	if n == 0 {
		return
	}
	r := flow.Record{
		Time: now, Workload: m.cfg.Workload, Sensor: flow.InNamespace, Event: flow.Usage, Direction: set.dir,
		Verdict: policy.Allow, Client: m.own(set.family), Server: k.addr, Protocol: identity.Protocol(k.protocol),
		Port: usagePort(k), Count: n, Bytes: bytes,
	}
	if set.dir == policy.Ingress {
		r.Client, r.Server = r.Server, r.Client
	}
	if set.denied {
		r.Verdict = policy.Deny
		u.Denied = append(u.Denied, r)
		return
	}
	u.Seen = append(u.Seen, r)
}

// usagePort is the third part of a key as a record has it: see SeenSet.
func usagePort(k usageKey) uint16 {
	switch p := identity.Protocol(k.protocol); {
	case p.IsICMP():
		return k.port >> 8
	case p.HasPorts():
		return k.port
	}
	return 0
}

// own is the workload's own end, unspecified where it has no address of the family.
func (m *Meter) own(family int) netip.Addr {
	for _, a := range m.cfg.Addrs {
		if a.Is4() == (family == 4) {
			return a
		}
	}
	if family == 4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func usageOrder(a, b flow.Record) int {
	for _, c := range []int{
		int(a.Direction) - int(b.Direction), a.Client.Compare(b.Client), a.Server.Compare(b.Server),
		int(a.Protocol) - int(b.Protocol),
	} {
		if c != 0 {
			return c
		}
	}
	return int(a.Port) - int(b.Port)
}

// size asks how many elements a set may have.
func (m *Meter) size(set usageSet) (n int, found bool, err error) {
	found, err = m.sock.get(unix.NFT_MSG_GETSET, FamilyINet, "set "+set.name, func(a *attrs) {
		a.name(unix.NFTA_SET_TABLE, TableName)
		a.name(unix.NFTA_SET_NAME, set.name)
	}, func(_ Family, at []attr) {
		n = int(be32(find(readAttrs(find(at, unix.NFTA_SET_DESC)), unix.NFTA_SET_DESC_SIZE)))
	})
	return n, found, err
}

// elements hands over every element of a set.
func (m *Meter) elements(set usageSet, f func(usageKey, usageCount)) error {
	return m.sock.dump(unix.NFT_MSG_GETSETELEM, FamilyINet, "elements of set "+set.name, func(a *attrs) {
		a.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		a.name(unix.NFTA_SET_ELEM_LIST_SET, set.name)
	}, func(_ Family, at []attr) {
		for _, e := range decodeAttributes(find(at, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if k, c, ok := usageElement(e, set.family); ok {
				k.set = set.index
				f(k, c)
			}
		}
	})
}

// counters reads the named counters of the table.
func (m *Meter) counters(out map[string]uint64) error {
	return m.sock.dump(unix.NFT_MSG_GETOBJ, FamilyINet, "counters", func(a *attrs) { a.name(unix.NFTA_OBJ_TABLE, TableName) },
		func(_ Family, at []attr) {
			if cstring(find(at, unix.NFTA_OBJ_TABLE)) == TableName && be32(find(at, unix.NFTA_OBJ_TYPE)) == unix.NFT_OBJECT_COUNTER {
				out[cstring(find(at, unix.NFTA_OBJ_NAME))] = usageCounter(find(at, unix.NFTA_OBJ_DATA)).packets
			}
		})
}
