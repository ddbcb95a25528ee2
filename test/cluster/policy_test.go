package cluster

import (
	"testing"
	"time"
)

// call is how long one try of a connection may take. What is allowed takes a millisecond; a first
// packet that was dropped costs a second.
const call = 500 * time.Millisecond

// TestPolicyHoldsEverywhere applies a policy on n1 and holds that it stops connections between
// containers of n3 and n5: new ones, one that was open, both families; lets through what it allows; and
// that another node can take it out.
func TestPolicyHoldsEverywhere(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	for _, v4 := range []bool{true, false} {
		for _, from := range []string{"shop/a3", "shop/c3", "shop/a5"} {
			must(t, allowed(ctx, town, from, town.Addr("shop/b5", v4)))
		}
	}
	open, err := town.Stream("shop/c3", town.Addr("shop/b5", true), 2*time.Second)
	must(t, err)
	kept, err := town.Stream("shop/a3", town.Addr("shop/b5", false), 10*time.Second)
	must(t, err)

	begin := time.Now()
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a")))
	answered := time.Since(begin)
	last, err := open.Ended(ctx)
	must(t, err)
	t.Logf("applied on n1 after %v; the last byte from n3 to n5 that it forbids was answered %v after it was sent to n1",
		answered.Round(time.Millisecond), last.Sub(begin).Round(time.Millisecond))
	if late := last.Sub(begin); late > 10*time.Second {
		t.Errorf("a revoked connection went on for %v", late)
	}
	for _, v4 := range []bool{true, false} {
		must(t, denied(ctx, town, "shop/c3", town.Addr("shop/b5", v4)))
		must(t, denied(ctx, town, "shop/c5", town.Addr("shop/b3", v4)))
		must(t, allowed(ctx, town, "shop/a3", town.Addr("shop/b5", v4)))
		must(t, allowed(ctx, town, "shop/a5", town.Addr("shop/b3", v4)))
	}
	if err := kept.Stop(); err != nil {
		t.Errorf("an allowed connection was lost: %v", err)
	}
	must(t, town.Delete(ctx, "n4", "b"))
	must(t, allowed(ctx, town, "shop/c3", town.Addr("shop/b5", true)))
	must(t, town.OneMind(ctx))
}
