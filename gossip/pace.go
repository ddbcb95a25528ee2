package gossip

import "time"

// How fast changes spread: see docs/performance.md for what that costs.
const (
	// Interval is how often a node sends what it has to pass on.
	Interval = 50 * time.Millisecond
	// Fanout is to how many nodes it does.
	Fanout = 3
	// Full is how often a node passes a change on in full, and Brief how often, for each power of ten of the
	// cluster's size up to a hundred, in brief: see [Queue]. A node misses a change with e to the minus
	// their sum.
	Full, Brief = 6, 6
	// Exchange is how often, on average, a node compares what it holds with another one.
	Exchange = 4 * time.Second
	// repeated is how long a change goes along with later ones of its book: who has not heard of it by then
	// finds out by comparing.
	repeated = 2 * time.Second
)
