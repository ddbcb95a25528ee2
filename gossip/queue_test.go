package gossip

import (
	"fmt"
	"testing"
)

// told empties a queue and counts what came out.
func told(q *Queue) map[string]int {
	out := map[string]int{}
	for {
		messages := q.Take(2, 1300)
		if len(messages) == 0 {
			return out
		}
		for _, m := range messages {
			out[string(m)]++
		}
	}
}

func TestQueue(t *testing.T) {
	for _, c := range []struct{ nodes, full, brief int }{{5, 6, 6}, {50, 6, 12}, {5000, 6, 12}} {
		q := NewQueue(func() int { return c.nodes })
		q.Add("a", []byte("a in full"), []byte("a"))
		q.Add("b", []byte("b is short"), nil)
		got := told(q)
		if got["a in full"] != c.full || got["a"] != c.brief || got["b is short"] != c.full || len(got) != 3 {
			t.Errorf("%d nodes: told %v, want a %d times in full, then %d times in brief", c.nodes, got, c.full, c.brief)
		}
	}
}

// What is newer takes the place of what waits under its name; however much is added, the queue is bounded.
func TestQueueFull(t *testing.T) {
	q := NewQueue(func() int { return 1000 })
	q.Add("a", []byte("old"), nil)
	q.Add("a", []byte("new"), nil)
	if got := told(q); got["old"] != 0 || got["new"] == 0 {
		t.Errorf("told %v, want only what is new", got)
	}
	for i := range 2 * maxQueue {
		q.Add(fmt.Sprint(i), fmt.Appendf(nil, "%d in full", i), fmt.Appendf(nil, "%d", i))
	}
	if n := q.full.NumQueued() + q.brief.NumQueued(); n > 2*maxQueue {
		t.Errorf("%d messages wait, want at most %d", n, 2*maxQueue)
	}
}
