package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Direction is seen from the workload.
type Direction uint8

const (
	Egress Direction = iota + 1
	Ingress
)

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Verdict is what happens to a connection. The zero value denies.
type Verdict uint8

const (
	Deny  Verdict = iota
	Alert         // let through, would have been denied
	Allow
)

func (v Verdict) String() string { return [...]string{"deny", "alert", "allow"}[v] }

func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

func (v *Verdict) UnmarshalText(b []byte) error {
	for _, x := range []Verdict{Deny, Alert, Allow} {
		if x.String() == string(b) {
			*v = x
			return nil
		}
	}
	return fmt.Errorf("verdict %q: want allow, alert or deny", b)
}

// Mode is how far a service has come: learn (allow all, record), alert (allow all, alert on what
// policy would deny), enforce (deny and alert). The zero value is learn.
type Mode uint8

const (
	Learn Mode = iota
	AlertMode
	Enforce
)

func (m Mode) String() string { return [...]string{"learn", "alert", "enforce"}[m] }

// ParseMode reads learn, alert or enforce.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Learn, AlertMode, Enforce} {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want learn, alert or enforce", s)
}

func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m *Mode) UnmarshalText(b []byte) error {
	v, err := ParseMode(string(b))
	*m = v
	return err
}

// Entry is one thing that a side of a workload allows: a peer address or block, a protocol, a port
// range. Entries of one side are sorted, free of duplicates, and disjoint where they are blocks or
// ranges; an exact entry that a block of the same side covers is left out.
type Entry struct {
	Peer     netip.Prefix      // masked; a /32 or /128 is one address. Never IPv4-mapped
	Protocol identity.Protocol // AnyProtocol: every protocol and port; Port and EndPort are then 0
	// EndProtocol makes a range of protocols, with all their ports, from Protocol (which may be 0) to
	// here: what is left of every protocol where some are treated otherwise. 0: one protocol, or every.
	EndProtocol identity.Protocol
	Port        uint16 // first port; the type for ICMP and ICMPv6
	EndPort     uint16 // last port, equal to Port for one; 0 and 65535 for every port of the protocol
	Rule        string // which rule says so: "namespace/policy ingress[0]", or "built-in node" and the like
}

// Covers says whether the entry is about a packet of that protocol and port (0 without ports).
func (e Entry) Covers(p identity.Protocol, port uint16) bool {
	switch {
	case e.EndProtocol != 0:
		return e.Protocol <= p && p <= e.EndProtocol
	case e.Protocol == identity.AnyProtocol:
		return true
	}
	return e.Protocol == p && e.Port <= port && port <= e.EndPort
}

// Exact says that the entry is one address with one port, or one address with everything: what
// fits in a hash set.
func (e Entry) Exact() bool {
	return e.Peer.IsSingleIP() && e.EndProtocol == 0 && (e.Protocol == identity.AnyProtocol || e.Protocol.HasPorts() && e.Port == e.EndPort)
}

// NameEntry allows a DNS name instead of an address: what answers from the workload's own resolvers
// say of it, for as long as they hold.
type NameEntry struct {
	Name     string            // lower case, without the last dot: "api.example.com", "*.example.com"
	Protocol identity.Protocol // as of [Entry]
	Port     uint16
	EndPort  uint16
	Rule     string
}

// Side is one direction of one workload, compiled. What Denied lists is denied, whatever Entries
// and Names say; else a side that is not isolated allows everything (its Entries and Names are
// empty), and an isolated one what Entries and Names list.
type Side struct {
	Isolated bool
	Entries  []Entry
	Denied   []Entry     // sorted and disjoint as Entries are; where isolated, only what Entries or Names would let through
	Names    []NameEntry // egress only; sorted, free of doubles
	OnDeny   OnDeny      // how its denials are told
}

// Equal says whether two sides allow and deny the same in the same words.
func (s Side) Equal(o Side) bool {
	return s.Isolated == o.Isolated && s.OnDeny == o.OnDeny && equal(s.Entries, o.Entries) && equal(s.Denied, o.Denied) && equal(s.Names, o.Names)
}

// equal looks first whether it is one list twice: mostly it is.
func equal[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// Equal says whether both sides are.
func (s Sides) Equal(o Sides) bool { return s.Egress.Equal(o.Egress) && s.Ingress.Equal(o.Ingress) }

// Judged says that the side denies anything: its packets must be looked at.
func (s Side) Judged() bool { return s.Isolated || len(s.Denied) > 0 }

// Sides is what a workload's namespace must hold.
type Sides struct {
	Egress  Side
	Ingress Side
}
