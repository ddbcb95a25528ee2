package policy

import (
	"reflect"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// TestAffectedLeavesOutNobody changes identities at random, and holds who is said to be affected against
// the sides of everybody, before and after.
func TestAffectedLeavesOutNobody(t *testing.T) {
	d := newDice(t)
	whole, changed, spared, named := 0, 0, 0, 0
	for range 400 {
		s, ix := d.set(t), d.index()
		before := ix.View()
		var sides []Sides
		for _, w := range before.Workloads {
			sides = append(sides, s.Entries(before, w))
		}
		for range 1 + d.IntN(3) {
			d.change(ix)
			ix.View() // several steps
		}
		after := ix.View()
		delta := after.Since(before.Generation)
		if delta.Whole {
			whole++
		}
		affected := s.Affected(after, delta)
		for i, w := range before.Workloads {
			now := after.Workload(w.ID)
			if now == nil {
				continue
			}
			same := reflect.DeepEqual(sides[i], s.Entries(after, now))
			said := affected.Includes(now)
			switch {
			case !same && !said:
				t.Fatalf("%s is not said to be affected, but its sides change\nbefore %+v\nafter  %+v\nchange %+v", w.ID, sides[i], s.Entries(after, now), delta)
			case !same:
				changed++
			case !said:
				spared++
			default:
				named++
			}
		}
	}
	t.Logf("%d changes of everything; sides: %d changed, %d left alone rightly, %d for nothing", whole, changed, spared, named)
	if changed == 0 || spared == 0 || whole == 400 {
		t.Fatal("nothing was tried")
	}
}

// change does something to an index.
func (d dice) change(ix *identity.Index) {
	v := ix.View()
	w := d.workload(d.IntN(20))
	if old := v.Workload(w.ID); old != nil && d.chance(60) {
		fresh := w
		w = *old
		switch d.IntN(4) {
		case 0:
			w.Labels = fresh.Labels
		case 1:
			w.Ports = fresh.Ports
		case 2:
			w.Addrs = fresh.Addrs
		case 3:
			ix.Withdraw(w.ID, w.Source)
			return
		}
	}
	w.Since = time.Unix(int64(d.IntN(1000)), 0)
	ix.Upsert(w)
}
