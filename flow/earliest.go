package flow

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Member is a workload by the name that people know it by.
type Member struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (m Member) String() string { return m.Namespace + "/" + m.Name }

// Compare orders members by namespace and name.
func (m Member) Compare(o Member) int {
	return cmp.Or(cmp.Compare(m.Namespace, o.Namespace), cmp.Compare(m.Name, o.Name))
}

// Dialled is a virtual address with the Service it belongs to.
type Dialled struct {
	Name string          `json:"name,omitempty"` // namespace/name of the Service
	Key  identity.VIPKey `json:"key"`
}

// String gives "10.96.0.7:80".
func (d Dialled) String() string {
	if d.Key.Addr.Is4() {
		return d.Key.Addr.String() + ":" + strconv.Itoa(int(d.Key.Port))
	}
	return "[" + d.Key.Addr.String() + "]:" + strconv.Itoa(int(d.Key.Port))
}

// Compare orders by name, address and port.
func (d Dialled) Compare(o Dialled) int {
	return cmp.Or(strings.Compare(d.Name, o.Name), d.Key.Addr.Compare(o.Key.Addr),
		cmp.Compare(d.Key.Protocol, o.Key.Protocol), cmp.Compare(d.Key.Port, o.Key.Port))
}

// Seen is something with the time of its first sight.
type Seen[T any] struct {
	What T         `json:"what"`
	At   time.Time `json:"at"`
}

// Earliest keeps the few that were seen first, earliest first, and forgets the others but for the
// fact that there were some. What it holds in the end does not depend on the order in which it was
// told: one that belongs to the earliest has at any moment fewer than the bound before it.
type Earliest[T interface {
	comparable
	Compare(T) int
}] struct {
	Items []Seen[T] `json:"items,omitempty"`
	More  bool      `json:"more,omitempty"` // there were others, seen later than these
}

// note tells the list of one sight. It says whether the list changed. It allocates only when
// something new gets in.
func (l *Earliest[T]) note(what T, at time.Time, bound int) bool {
	for i := range l.Items {
		if it := &l.Items[i]; it.What == what {
			if !at.Before(it.At) {
				return false
			}
			it.At = at
			l.sort()
			return true
		}
	}
	if len(l.Items) >= bound {
		last := l.Items[len(l.Items)-1]
		had := l.More
		l.More = true
		if compareSeen(Seen[T]{what, at}, last) >= 0 {
			return !had
		}
		l.Items = l.Items[:len(l.Items)-1]
	}
	l.Items = append(l.Items, Seen[T]{what, at})
	l.sort()
	return true
}

func (l *Earliest[T]) merge(o Earliest[T], bound int) {
	for _, it := range o.Items {
		l.note(it.What, it.At, bound)
	}
	l.More = l.More || o.More
}

func (l *Earliest[T]) sort() { slices.SortFunc(l.Items, compareSeen[T]) }

func compareSeen[T interface{ Compare(T) int }](a, b Seen[T]) int {
	return cmp.Or(a.At.Compare(b.At), a.What.Compare(b.What))
}
