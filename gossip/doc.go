// Package gossip keeps a cluster's nodes of one mind without a server: who runs where, what is allowed
// in which mode, and which connections were seen. Membership and transport are memberlist's (SWIM with
// Lifeguard); the replicated state is this package's.
//
// There are two kinds of state:
//
//   - A [Book] is one node's own entries of one kind: its endpoints, its learned edges. Only the owner
//     writes it. Each change gets the next number and a [Head] that the owner signs, over a hash of the
//     whole book, so that anybody may pass a book on and nobody can change it.
//   - [Registers] are the cluster's: policies, modes, baseline locks. Anybody writes them; the write
//     with the later [Timestamp] wins everywhere, deletions leave tombstones.
//
// Changes travel as broadcasts; what is too large for a packet, or was missed, is fetched: two nodes
// compare a digest of a few bytes, then hashes of buckets, then only what differs.
//
// Members are not trusted for being members. What a node says of itself, its book and its membership, is
// in its own hand; [StateConfig].Check says which writes to registers are taken, and in which rank, from
// whomever they come; [Claims] says whose an address is where nodes claim it; whatever one of them can make
// others keep has a bound. What no honest member does is refused, counted, and told as an [Alarm].
//
// It carries bytes and knows neither policies nor nftables; the daemon says what they mean.
package gossip
