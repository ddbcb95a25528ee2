package cluster

import (
	"testing"
	"time"
)

// TestEndpointKnownEverywhere starts and ends a container on n2: all nodes know it, policies that name
// its labels admit it on nodes that no inventory told of it, and nobody knows it any more when it is gone.
func TestEndpointKnownEverywhere(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	must(t, town.Apply(ctx, "n3", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	must(t, town.Detach(ctx, "shop/a2"))
	must(t, town.Knows(ctx, "shop/a2", false, town.Names()[2:]...))

	must(t, town.Attach(ctx, "shop/a2"))
	must(t, town.Known(ctx))
	spread, err := town.Spread(ctx, "shop/a2")
	must(t, err)
	var worst time.Duration
	for _, late := range spread {
		worst = max(worst, late)
	}
	t.Logf("known on every node %v after it was on its own", worst.Round(time.Millisecond))
	if worst > 10*time.Second {
		t.Errorf("late by node: %v", spread)
	}
	for _, server := range []string{"shop/b1", "shop/b4", "shop/b5"} {
		must(t, allowed(ctx, town, "shop/a2", town.Addr(server, true)))
		must(t, allowed(ctx, town, "shop/a2", town.Addr(server, false)))
		must(t, denied(ctx, town, "shop/c2", town.Addr(server, true)))
	}
}
