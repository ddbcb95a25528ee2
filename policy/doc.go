// Package policy holds the YAML kinds, their meaning, and nothing that touches a kernel or a disk:
// parse, select, evaluate, explain, and compile to a sorted list of [Entry].
//
// [Parse] reads [Policy] documents, [NewSet] makes an immutable [Set] of them, [Set.Evaluate] judges
// a [Connection] with reasons, and [Set.Entries] says what one workload's namespace must hold. The
// two agree for every address, protocol and port; a test holds them to it on random input.
// [Marshal] writes a policy, [Compare] tells two sets apart. What is probably not meant is said by
// package lint below this one.
//
// Semantics are those of networking.k8s.io/v1 NetworkPolicy; the API's sentence stands above the
// branch that obeys it, and in sentences_test.go beside a policy and connections. Where the API
// leaves it open, or engines differ:
//
//   - A rule without ports admits every protocol, ICMP included; a rule with ports only these.
//   - An ipBlock is about addresses: it admits a pod in the block as well.
//   - Workloads in their node's network namespace are never selected by labels, as subject or peer;
//     they are known by the node's address.
//   - A workload's traffic with its own addresses is never judged; the node that it runs on may
//     always connect to it; it may always ask its resolvers, UDP and TCP port 53.
//   - A Service's address is allowed on a port exactly when all workloads behind it are (vip.go).
//   - A port's name is looked up at the server: at ingress the selected workload, at egress each
//     known peer, also where the peer is a block.
//   - A peer that selects every pod of every namespace means the cluster's pod blocks, where the
//     configuration gives them, without this node's own addresses.
//   - The world is what [identity.View.World] lists.
//
// It knows identities, never nftables. One evaluator answers the compiler, explain, simulation and
// tests.
package policy
