package gossip

import (
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// Queue holds what this node has to tell all others, and how often it has told it. It is memberlist's,
// with a limit that follows the load: the more waits, the fewer times each is told, so that what is new
// is never kept waiting by what most have heard. Who was missed finds out by comparing.
type Queue struct {
	list    memberlist.TransmitLimitedQueue
	nodes   func() int
	waiting atomic.Int64
}

// maxQueue bounds it; the oldest fall out.
const maxQueue = 4096

// NewQueue makes a queue for a cluster of a size, which is asked for under the queue's lock.
func NewQueue(nodes func() int) *Queue {
	q := &Queue{nodes: nodes}
	q.list = memberlist.TransmitLimitedQueue{NumNodes: q.audience, RetransmitMult: Retransmits}
	return q
}

// audience is the cluster's size as far as it decides how often a message is told: between its ends the
// number grows with the cluster. A small cluster needs more to bear loss; in a large one, and in one where
// much happens, the few nodes that are missed hear of it later. memberlist multiplies its log10, rounded
// up, by Retransmits: 6, 12 or 18 times.
func (q *Queue) audience() int {
	n := min(max(q.nodes(), 10), 999)
	switch w := q.waiting.Load(); {
	case w > 96:
		return 9
	case w > 24:
		return min(n, 99)
	}
	return n
}

// Add queues a message; one of the same name that waits still is replaced.
func (q *Queue) Add(name string, message []byte) {
	q.list.QueueBroadcast(&broadcast{name, message})
	n := q.list.NumQueued()
	if n > maxQueue {
		q.list.Prune(maxQueue)
	}
	q.waiting.Store(int64(n))
}

// Take gives messages for one packet: overhead is what each adds, limit the room, in bytes.
func (q *Queue) Take(overhead, limit int) [][]byte {
	out := q.list.GetBroadcasts(overhead, limit)
	q.waiting.Store(int64(q.list.NumQueued()))
	return out
}

type broadcast struct {
	name    string
	message []byte
}

func (b *broadcast) Name() string                          { return b.name }
func (b *broadcast) Message() []byte                       { return b.message }
func (b *broadcast) Finished()                             {}
func (b *broadcast) Invalidates(memberlist.Broadcast) bool { return false } // the name does
