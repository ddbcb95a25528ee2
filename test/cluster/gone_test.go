package cluster

import (
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestGone kills the daemon of n3, whose containers run on: for the grace they are who they were, then
// nobody's, and who they were again when the daemon is back. A node that is forgotten stays so, whoever
// is restarted and whatever it says itself, until it is let back.
func TestGone(t *testing.T) {
	town := threeNodes(t)
	ctx := soon(t)
	server := town.Addr("shop/b1", true)
	must(t, town.Apply(ctx, "n2", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	must(t, allowed(ctx, town, "shop/a3", server))

	must(t, town.KillDaemon("n3"))
	must(t, town.Sees(ctx, "n1", []string{"n3"}, "dead"))
	if err := town.Call("shop/a3", server, call); err != nil {
		t.Logf("right after n3 was called dead: %v", err) // a slow machine may look only after the grace
	}
	begin := time.Now()
	must(t, denied(ctx, town, "shop/a3", server))
	t.Logf("nobody's %v after it was seen to be dead; grace %v", time.Since(begin).Round(time.Millisecond), shortGrace)
	must(t, denied(ctx, town, "shop/a3", town.Addr("shop/b2", false)))
	must(t, allowed(ctx, town, "shop/a2", server))
	must(t, town.StartDaemon(ctx, "n3"))
	must(t, allowed(ctx, town, "shop/a3", server))

	must(t, town.StopDaemon("n3"))
	must(t, town.Sees(ctx, "n2", []string{"n3"}, "dead"))
	_, err := town.API("n2").ClusterForget(ctx, api.ClusterForget{Node: "n3"})
	must(t, err)
	must(t, town.Knows(ctx, "shop/a3", false, "n1", "n2"))
	must(t, denied(ctx, town, "shop/a3", server))
	must(t, town.KillDaemon("n1"))
	must(t, town.StartDaemon(ctx, "n1"))
	must(t, town.StartDaemon(ctx, "n3"))
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, n := range []string{"n1", "n2"} {
			if _, err := town.workload(ctx, n, "shop/a3"); err == nil {
				t.Fatalf("%s knows a container of n3, which was forgotten", n)
			}
		}
	}
	must(t, denied(ctx, town, "shop/a3", server))
	_, err = town.API("n1").ClusterForget(ctx, api.ClusterForget{Node: "n3", Back: true})
	must(t, err)
	must(t, allowed(ctx, town, "shop/a3", server))
	must(t, town.OneMind(ctx))
}
