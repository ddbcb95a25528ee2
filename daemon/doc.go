// Package daemon wires the rooms together: it owns the life of every local workload, the store,
// and the restart. It holds no policy and no packet logic of its own.
//
// Its main types are [Config], [Store], [Daemon] (New, Run) and workload: one goroutine each, the
// only writer of its namespace. Two ways lead through it:
//
//	a packet becomes knowledge    firewall.Reader → workload.onRecord (records.go)
//	a sentence becomes a rule     Daemon.Apply (policies.go) → workload.reconcile (reconcile.go)
//
// What must survive a crash is in the store before it takes force; rules in the kernel survive by
// themselves, and the next daemon takes them over (adopt.go).
package daemon
