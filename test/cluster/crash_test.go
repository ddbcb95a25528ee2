package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// TestKilled kills n2's daemon and starts it again while nobody can be reached: what it enforces then
// it has from its disk, for a container that starts only now too. What was decided meanwhile it learns
// when it hears the others.
func TestKilled(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a"), Only("c", "c", "a")))
	must(t, town.Holds(ctx, "c", true, town.Names()...))
	must(t, town.Detach(ctx, "shop/c2"))
	time.Sleep(2 * time.Second) // what was heard of others is stored 0.3 s after it came

	must(t, town.KillDaemon("n2"))
	must(t, denied(ctx, town, "shop/c4", town.Addr("shop/b2", true)))
	must(t, allowed(ctx, town, "shop/a4", town.Addr("shop/b2", true)))
	must(t, town.Apply(ctx, "n4", Only("meanwhile", "a", "b")))

	must(t, town.Cut(lab.Gossip, []string{"n2"}, nil))
	must(t, town.StartDaemon(ctx, "n2"))
	for _, pod := range []string{"shop/a1", "shop/c4", "shop/a5"} {
		if _, err := town.workload(ctx, "n2", pod); err != nil {
			t.Errorf("right after the start: %v", err)
		}
	}
	must(t, town.Holds(ctx, "b", true, "n2"))
	must(t, town.Holds(ctx, "meanwhile", false, "n2"))
	must(t, denied(ctx, town, "shop/c4", town.Addr("shop/b2", true)))
	must(t, allowed(ctx, town, "shop/a5", town.Addr("shop/b2", false)))
	must(t, town.Attach(ctx, "shop/c2"))
	must(t, denied(ctx, town, "shop/b4", town.Addr("shop/c2", true)))
	must(t, allowed(ctx, town, "shop/a4", town.Addr("shop/c2", true)))

	must(t, town.Heal())
	must(t, town.Holds(ctx, "meanwhile", true, "n2"))
	must(t, town.Known(ctx))
	must(t, town.OneMind(ctx))
}

// TestFrozen stops n3's daemon where it is: the others agree without it, its rules stay, and when it
// goes on it catches up.
func TestFrozen(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	must(t, town.FreezeDaemon("n3"))
	others := slices.DeleteFunc(town.Names(), func(n string) bool { return n == "n3" })
	begin := time.Now()
	must(t, town.Apply(ctx, "n1", Only("c", "c", "a")))
	must(t, town.Holds(ctx, "c", true, others...))
	t.Logf("with a frozen node all others hold a policy %v after it was sent", time.Since(begin).Round(time.Millisecond))
	must(t, denied(ctx, town, "shop/b4", town.Addr("shop/c5", true)))
	must(t, denied(ctx, town, "shop/c1", town.Addr("shop/b3", true)))
	must(t, allowed(ctx, town, "shop/a1", town.Addr("shop/b3", true)))
	must(t, town.Sees(ctx, "n1", []string{"n3"}, "dead"))
	must(t, town.ThawDaemon("n3"))
	must(t, town.Holds(ctx, "c", true, "n3"))
	must(t, denied(ctx, town, "shop/b4", town.Addr("shop/c3", true)))
	must(t, town.Sees(ctx, "n1", []string{"n3"}, "alive"))
	must(t, town.OneMind(ctx))
}

// TestRollingRestart restarts every daemon, one after the other, while connections that policies allow
// are open and others are opened all the time. None is lost, and at no time is one allowed that is not.
func TestRollingRestart(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a"), Only("c", "c", "a", "b")))
	must(t, town.Holds(ctx, "c", true, town.Names()...))
	pairs := [][2]string{{"shop/a1", "shop/b3"}, {"shop/a3", "shop/b1"}, {"shop/a2", "shop/c5"}, {"shop/b4", "shop/c2"}, {"shop/a5", "shop/b4"}}
	for _, p := range pairs {
		must(t, allowed(ctx, town, p[0], town.Addr(p[1], true)))
		must(t, allowed(ctx, town, p[0], town.Addr(p[1], false)))
	}
	var streams []*Stream
	for i, p := range pairs {
		s, err := town.Stream(p[0], town.Addr(p[1], i%2 == 1), 10*time.Second)
		must(t, err)
		streams = append(streams, s)
	}
	calls := keepBusy(town, pairs)
	for _, n := range town.Names() {
		must(t, town.StopDaemon(n))
		must(t, town.StartDaemon(ctx, n))
		must(t, denied(ctx, town, "shop/c3", town.Addr("shop/b"+n[1:], true)))
	}
	must(t, town.OneMind(ctx))
	made, lost := calls.stop()
	t.Logf("%d connections opened meanwhile, %d lost", made, len(lost))
	for _, l := range lost {
		t.Error(l)
	}
	for _, s := range streams {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
}
