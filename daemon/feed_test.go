package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// TestFeed: it remembers the newest, in order, and those who follow miss nothing between what is
// past and what comes.
func TestFeed(t *testing.T) {
	var f feed[int]
	all := func(int) bool { return true }
	for i := range feedKeep + 10 {
		f.add(i)
	}
	if got := f.last(0, all); len(got) != feedKeep || got[0] != 10 || got[feedKeep-1] != feedKeep+9 {
		t.Errorf("remembers %d items, %d … %d", len(got), got[0], got[len(got)-1])
	}
	even := func(i int) bool { return i%2 == 0 }
	if got := f.last(3, even); !slices.Equal(got, []int{feedKeep + 4, feedKeep + 6, feedKeep + 8}) {
		t.Errorf("last even ones: %v", got)
	}

	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan int, 10)
	done := make(chan error, 1)
	go func() {
		done <- f.each(ctx, 1, all, func(i int) error { got <- i; return nil })
	}()
	first := <-got // followed from now on or before the next add takes the lock
	f.mu.Lock()
	following := len(f.follow)
	f.mu.Unlock()
	f.add(-1)
	if second := <-got; first != feedKeep+9 || second != -1 || following != 1 {
		t.Errorf("followed %d, %d with %d followers", first, second, following)
	}
	cancel()
	if err := <-done; err != nil || len(f.follow) != 0 {
		t.Errorf("ended with %v, %d followers left", err, len(f.follow))
	}

	slow := errors.New("too slow")
	if err := f.each(context.Background(), 1, all, func(int) error { return slow }); !errors.Is(err, slow) {
		t.Errorf("a broken reader: %v", err)
	}
}
