package daemon

import (
	"sync"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// basis is what a workload's sides were last worked out from.
type basis struct {
	set        *policy.Set // nil: never
	generation uint64      // of the view
	compiler   *policy.Compiler
	sides      policy.Sides
	doubted    bool // work them out again, whatever has changed
}

// sides are what policies say of the workload now. They are worked out anew only where policies are
// others, a change of identities can have touched them, or the sweep wants to know for sure.
func (w *workload) sides(g *grip, view *identity.View, me *identity.Workload) policy.Sides {
	set := w.d.rules.Load().set
	b := &g.basis
	touched := b.set != set || w.d.affected.since(set, view, b.generation).Includes(me)
	if !touched && !b.doubted {
		b.generation = view.Generation
		b.compiler.Skip(view)
		return b.sides
	}
	compiler := b.compiler
	if compiler == nil || b.doubted {
		compiler = &policy.Compiler{}
	}
	sides, _ := compiler.Sides(set, view, me)
	if !touched && !sides.Equal(b.sides) {
		w.log.Error("rules were out of date", "reason", "a change that concerned them was taken for one that does not; put right by the sweep")
	}
	*b = basis{set: set, generation: view.Generation, compiler: compiler, sides: sides}
	return sides
}

// affected remembers the latest answer to whose sides a change can touch: all workloads of this node
// ask the same.
type affected struct {
	mu       sync.Mutex
	set      *policy.Set
	from, to uint64 // generations of views
	answer   *policy.Affected
}

func (a *affected) since(set *policy.Set, view *identity.View, from uint64) *policy.Affected {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answer == nil || a.set != set || a.from != from || a.to != view.Generation {
		a.set, a.from, a.to = set, from, view.Generation
		a.answer = set.Affected(view, view.Since(from))
	}
	return a.answer
}
