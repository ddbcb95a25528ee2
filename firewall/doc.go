// Package firewall holds one workload's rules in the kernel: it compiles a [Spec] to a [Ruleset],
// applies it to the workload's network namespace and to the guard on the host's end of its veth,
// reads the flow log back, and notices when somebody else changed something.
//
// Its main types are [Namespace], [Ruleset] and [Reader]. It never sees YAML and knows no names:
// addresses, protocols and ports only. It loads no connection tracking and writes no packet mark.
//
// From entries to the kernel: compile.go makes the tables, with judge.go and seen.go for the chains in
// the namespace and guard.go and pair.go for the guard; match.go and lookup.go are the rules' vocabulary
// and sets.go the sets' contents, with deny.go for what is denied and fragments.go for what has no ports.
// diff.go tells what differs; apply.go, bridge.go, encode.go, batch.go and socket.go write it; readback.go
// reads it; cut.go, rights.go and memory.go end what lost its right. trace.go follows one packet through
// all of it. watch.go hears of what others change in the namespace, with poll.go for all of them at once;
// check.go compares, seized.go and recall.go deal with what was done while nobody looked. The rulesets are written down in testdata, as nft prints them.
package firewall
