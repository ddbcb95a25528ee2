package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// TestBadLAN has every node write policies and restart a container while what nodes say to each other
// is lost, late, doubled and out of order. Nothing that was acknowledged is lost, and all end of one mind.
func TestBadLAN(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Lose(lab.Gossip, 20, town.Names()...))
	for _, n := range []string{"n2", "n4"} {
		must(t, town.Bend(ctx, n, lab.Shape{Delay: 15 * time.Millisecond, Jitter: 40 * time.Millisecond, Duplicate: 10}))
	}
	group, work := errgroup.WithContext(ctx)
	for i, n := range town.Names() {
		group.Go(func() error {
			for j := range 4 {
				if err := town.Apply(work, n, Only(fmt.Sprintf("p%d-%d", i+1, j), "b", "a", "b")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, pod := range []string{"shop/c1", "shop/c5"} {
		group.Go(func() error {
			for range 3 {
				if err := town.Detach(work, pod); err != nil {
					return err
				}
				if err := town.Attach(work, pod); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	begin := time.Now()
	must(t, town.Known(ctx))
	for i := range town.Names() {
		for j := range 4 {
			must(t, town.Holds(ctx, fmt.Sprintf("p%d-%d", i+1, j), true, town.Names()...))
		}
	}
	must(t, town.OneMind(ctx))
	t.Logf("of one mind %v after the last of 20 policies and 12 starts and ends, with 20%% of packets lost", time.Since(begin).Round(time.Millisecond))
	must(t, denied(ctx, town, "shop/c3", town.Addr("shop/b5", true)))
	must(t, allowed(ctx, town, "shop/a3", town.Addr("shop/b5", true)))
}

// TestParted cuts n1 and n2 from what the others say, for longer than it takes to call a node dead, while
// containers reach each other across. Each side goes on enforcing what it knew and takes writes; when it
// heals all nodes hold all that was written, and of two writes to one policy the same one.
func TestParted(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	here, there := []string{"n1", "n2"}, []string{"n3", "n4", "n5"}
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a"), Only("old", "c", "c")))
	must(t, town.Holds(ctx, "old", true, town.Names()...))
	must(t, town.Cut(lab.Gossip, here, there))
	must(t, town.Sees(ctx, "n1", there, "dead"))
	must(t, town.Sees(ctx, "n3", here, "dead"))
	must(t, town.Sees(ctx, "n1", here, "alive"))
	must(t, town.Sees(ctx, "n3", there, "alive"))
	must(t, allowed(ctx, town, "shop/a1", town.Addr("shop/b4", true)))
	must(t, denied(ctx, town, "shop/c1", town.Addr("shop/b4", true)))

	must(t, town.Apply(ctx, "n2", Only("here", "a", "a"), Only("both", "b", "a")))
	must(t, town.Apply(ctx, "n4", Only("there", "a", "a", "b"), Only("both", "b", "a", "b")))
	must(t, town.Delete(ctx, "n5", "old"))
	must(t, town.Holds(ctx, "here", true, here...))
	must(t, town.Holds(ctx, "there", true, there...))
	must(t, town.Holds(ctx, "old", false, there...))
	must(t, town.Holds(ctx, "old", true, here...))
	must(t, denied(ctx, town, "shop/c1", town.Addr("shop/a2", true)))
	must(t, denied(ctx, town, "shop/c3", town.Addr("shop/a5", true)))
	must(t, denied(ctx, town, "shop/c4", town.Addr("shop/b2", false)))
	must(t, allowed(ctx, town, "shop/b3", town.Addr("shop/b5", true))) // by "both" of this side

	begin := time.Now()
	must(t, town.Heal())
	for name, want := range map[string]bool{"here": true, "there": true, "old": false, "both": true} {
		must(t, town.Holds(ctx, name, want, town.Names()...))
	}
	must(t, town.OneMind(ctx))
	t.Logf("of one mind %v after it healed", time.Since(begin).Round(time.Millisecond))
	must(t, allowed(ctx, town, "shop/b1", town.Addr("shop/b2", true))) // "both" as it was written later
}

// TestUnplugged pulls the cable of n5: its containers stay as protected as they were, it takes a
// policy, and hears of the others' when the cable is in again.
func TestUnplugged(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	must(t, town.Unplug("n5"))
	must(t, town.Sees(ctx, "n1", []string{"n5"}, "dead"))
	must(t, denied(ctx, town, "shop/c5", town.Addr("shop/b5", true)))
	must(t, allowed(ctx, town, "shop/a5", town.Addr("shop/b5", true)))
	must(t, town.Apply(ctx, "n5", Only("mine", "c", "a")))
	must(t, town.Apply(ctx, "n1", Only("theirs", "a", "a")))
	must(t, town.Plug("n5"))
	must(t, town.Holds(ctx, "mine", true, town.Names()...))
	must(t, town.Holds(ctx, "theirs", true, "n5"))
	must(t, town.OneMind(ctx))
}

// busy goes on opening connections that are allowed, and tells of each that was not answered.
type busy struct {
	end  context.CancelFunc
	wait sync.WaitGroup

	mu    sync.Mutex
	calls int
	lost  []string
}

func keepBusy(town *Town, pairs [][2]string) *busy {
	ctx, cancel := context.WithCancel(context.Background())
	b := &busy{end: cancel}
	for i, p := range pairs {
		b.wait.Add(1)
		go func() {
			defer b.wait.Done()
			for ctx.Err() == nil {
				// A packet that a rule dropped is sent again after a second: longer than that is a denial.
				begin := time.Now()
				err := town.Call(p[0], town.Addr(p[1], i%2 == 0), 5*time.Second)
				took := time.Since(begin)
				b.mu.Lock()
				b.calls++
				if err != nil || took > 900*time.Millisecond {
					b.lost = append(b.lost, fmt.Sprintf("%s to %s at %s: %v after %v", p[0], p[1], begin.Format(time.TimeOnly), err, took))
				}
				b.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(25 * time.Millisecond):
				}
			}
		}()
	}
	return b
}

// stop tells how many calls were made and which were lost.
func (b *busy) stop() (int, []string) {
	b.end()
	b.wait.Wait()
	return b.calls, b.lost
}
