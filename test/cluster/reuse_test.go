package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// mixed are three nodes whose pods' addresses lie in one block, so that any of them can have any.
func mixed() string {
	out := ""
	for n := 1; n <= 3; n++ {
		for i, s := range Services {
			out += fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: %s%d, namespace: shop, labels: {app: %s}}, spec: {nodeName: n%d, containers: [{ports: [{containerPort: %d}]}]}, status: {podIPs: [{ip: 10.9.%d.%d}, {ip: \"fd00:9::%d\"}]}}\n",
				s, n, s, n, Port, i, 10+n, 10*i+n)
		}
	}
	return out
}

// TestReusedAddress gives the address of a container that a policy admits to one of another node that it
// does not admit, while nobody hears that the former owner is gone: the worst case. It measures how long
// the new one could use what the former one might.
func TestReusedAddress(t *testing.T) {
	needRoot(t)
	t.Parallel()
	ctx := soon(t)
	town, err := Up(ctx, 3, lab.Options{Manifests: mixed()})
	must(t, err)
	t.Cleanup(func() { must(t, town.Down()) })
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	server := town.Addr("shop/b3", true)
	must(t, allowed(ctx, town, "shop/a1", server))
	must(t, denied(ctx, town, "shop/c2", server))

	must(t, town.Detach(ctx, "shop/c2"))
	must(t, town.Cut(lab.Gossip, []string{"n1"}, nil))
	must(t, town.Detach(ctx, "shop/a1"))
	must(t, town.Inherit(ctx, "shop/c2", "shop/a1"))
	must(t, town.Attach(ctx, "shop/c2"))
	begin := time.Now()
	var last time.Time
	for end := begin.Add(time.Second); time.Now().Before(end); {
		if town.Call("shop/c2", server, 100*time.Millisecond) == nil {
			last = time.Now()
			end = last.Add(time.Second)
		}
		if time.Since(begin) > patience/2 {
			t.Fatalf("%v after the ADD it still connects as the former owner of its address", time.Since(begin))
		}
	}
	exposed := time.Duration(0)
	if !last.IsZero() {
		exposed = last.Sub(begin)
	}
	t.Logf("exposed for %v after the ADD", exposed.Round(time.Millisecond))
	must(t, denied(ctx, town, "shop/c2", server))
	must(t, town.Heal())
	must(t, town.Attach(ctx, "shop/a1")) // with the other's former address
	must(t, town.Known(ctx))
	must(t, allowed(ctx, town, "shop/a1", server))
	must(t, denied(ctx, town, "shop/c2", server))
	must(t, town.OneMind(ctx))
}
