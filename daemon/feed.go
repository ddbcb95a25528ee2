package daemon

import (
	"context"
	"sync"
)

// feedKeep is how many items a feed remembers for those who ask later.
const feedKeep = 4096

// feed is a bounded memory of the newest items, and those who follow them.
type feed[T any] struct {
	mu     sync.Mutex
	ring   []T
	next   int // where the next item goes once the ring is full
	follow map[*func(T) error]struct{}
}

// add remembers the item and passes it on. Who follows must not block (see server.Backend): one
// that is too slow loses its stream and holds nobody back.
func (f *feed[T]) add(item T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ring) < feedKeep {
		f.ring = append(f.ring, item)
	} else {
		f.ring[f.next] = item
		f.next = (f.next + 1) % feedKeep
	}
	for send := range f.follow {
		_ = (*send)(item) // its context ends too
	}
}

// last gives the newest limit items that pass the filter, oldest first; 0 gives all.
func (f *feed[T]) last(limit int, keep func(T) bool) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastLocked(limit, keep)
}

func (f *feed[T]) lastLocked(limit int, keep func(T) bool) []T {
	out := []T{}
	for _, part := range [][]T{f.ring[f.next:], f.ring[:f.next]} {
		for _, item := range part {
			if keep(item) {
				out = append(out, item)
			}
		}
	}
	if limit > 0 && len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out
}

// each sends limit past items and then every one as it happens, without a gap between, until ctx
// ends.
func (f *feed[T]) each(ctx context.Context, limit int, keep func(T) bool, send func(T) error) error {
	filtered := func(item T) error {
		if !keep(item) {
			return nil
		}
		return send(item)
	}
	f.mu.Lock()
	var err error
	if limit > 0 {
		for _, item := range f.lastLocked(limit, keep) {
			if err = send(item); err != nil {
				break
			}
		}
	}
	if f.follow == nil {
		f.follow = map[*func(T) error]struct{}{}
	}
	f.follow[&filtered] = struct{}{}
	f.mu.Unlock()
	if err == nil {
		<-ctx.Done()
	}
	f.mu.Lock()
	delete(f.follow, &filtered)
	f.mu.Unlock()
	return err
}
