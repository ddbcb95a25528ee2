// Package suite puts questions to policies without a daemon. [Cluster] says who the names in a
// question mean and judges a connection as the nodes of both ends would; [ParseProbes] and [Answer]
// are the lab's probes.json; [Parse] and [File.Run] are test files that a repository keeps beside its
// policies.
//
// It does no I/O and decides nothing itself: every verdict is policy.Set's.
package suite
