// Package firewall holds one workload's rules in the kernel: it compiles a [Spec] to a [Ruleset],
// applies it in one transaction to the workload's network namespace and to the guard on the host's
// end of its veth, reads the flow log back, and notices when somebody else changed something.
//
// Its main types are [Namespace], [Ruleset] and [Reader]. It never sees YAML and knows no names:
// addresses, protocols and ports only. It loads no connection tracking and writes no packet mark.
package firewall
