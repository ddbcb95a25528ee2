package gossip

import "time"

// How fast changes spread: see docs/performance.md for what that costs.
const (
	// Interval is how often a node sends what it has to pass on.
	Interval = 50 * time.Millisecond
	// Fanout is to how many nodes it does.
	Fanout = 3
	// Retransmits, times log10 of the cluster's size, is how often each node passes a change on; a node
	// misses it with e to the minus that.
	Retransmits = 6
	// Exchange is how often, on average, a node compares what it holds with another one.
	Exchange = 4 * time.Second
)
