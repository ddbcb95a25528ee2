package gossip

import (
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// Queue holds what this node has to tell all others, and how often it has told it: first in full, then in
// brief, that there is news; who has not heard of it then fetches it. So a change is told often enough to
// miss nobody, and costs its full length only a few times (lazy push, as in Plumtree: Leitão et al.,
// "Epidemic Broadcast Trees", 2007). Both lists are memberlist's.
type Queue struct {
	full, brief memberlist.TransmitLimitedQueue
	waiting     atomic.Int64
}

// maxQueue bounds each list; what was told most falls out. Who was missed finds out by comparing.
const maxQueue = 4096

// NewQueue makes a queue for a cluster of a size.
func NewQueue(nodes func() int) *Queue {
	q := &Queue{}
	// memberlist multiplies log10 of the size, rounded up, by RetransmitMult.
	q.full = memberlist.TransmitLimitedQueue{NumNodes: func() int { return 9 }, RetransmitMult: Full}
	q.brief = memberlist.TransmitLimitedQueue{RetransmitMult: Brief, NumNodes: func() int {
		// In a large cluster, and where much happens, the few that are missed hear of it later.
		if n := min(nodes(), 99); q.waiting.Load() < 96 {
			return n
		}
		return 9
	}}
	return q
}

// Add queues a message; one of the same name that waits still is replaced. An empty brief one: it is
// brief already.
func (q *Queue) Add(name string, full, brief []byte) {
	b := &broadcast{name: name, message: full}
	if len(brief) > 0 {
		b.finished = func() { q.add(&q.brief, &broadcast{name: name, message: brief}) }
	}
	q.add(&q.full, b)
}

func (q *Queue) add(list *memberlist.TransmitLimitedQueue, b *broadcast) {
	list.QueueBroadcast(b)
	n := list.NumQueued()
	if n > maxQueue {
		list.Prune(maxQueue)
	}
	if list == &q.brief {
		q.waiting.Store(int64(n))
	}
}

// Take gives messages for one packet: overhead is what each adds, limit the room, in bytes.
func (q *Queue) Take(overhead, limit int) [][]byte {
	out := q.full.GetBroadcasts(overhead, limit)
	for _, m := range out {
		limit -= overhead + len(m)
	}
	out = append(out, q.brief.GetBroadcasts(overhead, limit)...)
	q.waiting.Store(int64(q.brief.NumQueued()))
	return out
}

type broadcast struct {
	name     string
	message  []byte
	finished func()
}

func (b *broadcast) Name() string                          { return b.name }
func (b *broadcast) Message() []byte                       { return b.message }
func (b *broadcast) Invalidates(memberlist.Broadcast) bool { return false } // the name does

// Finished is called when it was told often enough, or another one takes its place.
func (b *broadcast) Finished() {
	if b.finished != nil {
		b.finished()
	}
}
