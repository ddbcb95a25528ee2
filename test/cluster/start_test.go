package cluster

import (
	"testing"
	"time"
)

// starts is how often each start is tried.
const starts = 8

// TestStartContract starts containers that connect at their first moment to another node, where a policy
// admits them by their labels: with the wait, the server's node knows them by then, or the daemon says
// that it went on without. Without the wait it is measured how often they come too early.
func TestStartContract(t *testing.T) {
	town := fiveNodes(t)
	ctx := soon(t)
	with, adds := tooEarly(t, town)
	st, err := town.API("n1").ClusterStatus(ctx)
	must(t, err)
	t.Logf("with the wait: %d of %d too early, longest ADD %v; went on before all knew: %d", with, starts, adds, st.Counters.Unheard)
	if uint64(with) > st.Counters.Unheard {
		t.Errorf("%d first connections were dropped, and the daemon knows of %d starts that not all knew of", with, st.Counters.Unheard)
	}
}

// TestStartWithoutWait is the same where nodes do not wait; it only measures.
func TestStartWithoutWait(t *testing.T) {
	town := threeNodes(t)
	without, adds := tooEarly(t, town)
	t.Logf("without the wait: %d of %d too early, longest ADD %v", without, starts, adds)
}

// tooEarly counts the starts on n1 whose first packet to n3 was dropped.
func tooEarly(t *testing.T, town *Town) (early int, longest time.Duration) {
	t.Helper()
	ctx := soon(t)
	must(t, town.Apply(ctx, "n1", Only("b", "b", "a")))
	must(t, town.Holds(ctx, "b", true, town.Names()...))
	for i := range starts {
		add, taken, err := town.Start(ctx, "shop/a1", town.Addr("shop/b3", i%2 == 0))
		must(t, err)
		if longest = max(longest, add); !taken {
			early++
		}
	}
	return early, longest
}
