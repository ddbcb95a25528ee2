package gossip

import "sync"

// Change names something that other nodes changed: an entry of a node's book, or a register. What it
// is now is read from the State.
type Change struct {
	Owner string // of a book; empty: a register
	Kind  Kind
	Class string
	Key   string
}

// changes gathers what the daemon has not looked at. Repeats are one, so it is never larger than the
// state.
type changes struct {
	mu    sync.Mutex
	wake  chan struct{}
	fresh map[Change]struct{}
}

func newChanges() changes {
	return changes{wake: make(chan struct{}, 1), fresh: map[Change]struct{}{}}
}

func (c *changes) add(x Change) {
	c.mu.Lock()
	c.fresh[x] = struct{}{}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) entry(owner string, kind Kind, key string) {
	c.add(Change{Owner: owner, Kind: kind, Key: key})
}

// Changed is readable when there are changes to take.
func (s *State) Changed() <-chan struct{} { return s.changes.wake }

// TakeChanges gives what changed since it was last called, in no order.
func (s *State) TakeChanges() []Change {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	out := make([]Change, 0, len(s.changes.fresh))
	for x := range s.changes.fresh {
		out = append(out, x)
	}
	s.changes.fresh = map[Change]struct{}{} // a cleared one keeps the room of the largest burst
	return out
}
