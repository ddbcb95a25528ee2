// Package lab is a cluster on one machine: each node a network namespace with its own bulkheadd,
// each pod a namespace made by a real CNI chain with the addresses asked for, Services as NAT in
// the nodes, and an outside network for every other address. Demo, kernel tests, attacks and
// evaluation stand on it; `bulkhead-lab` is its command.
//
//	machine ── untouched
//	lan     ── lan0 (bridge) ─┬─ node1 ── cni0 ─┬─ pod
//	                          │                 └─ pod
//	                          ├─ node2 ── cni0 ─── pod
//	                          └─ outside: every address that is no pod's, node's or Service's
//
// Daemons of several nodes are a cluster: each is told of its own pods and hears of the others.
// [Lab.Cut], [Lab.Lose], [Lab.Bend] and [Lab.Unplug] trouble the LAN between them, [Lab.KillDaemon] and
// its like the daemons.
//
// [Up] makes a [Lab] from manifests, [Open] finds one again, [Lab.Down] leaves nothing of it.
// [Lab.Exec] and [Lab.Start] run programs in a pod with few capabilities, [Lab.Probe] sends real
// packets and tells what arrived. Listeners and probes live in one process per lab, the agent.
//
// It never touches the machine's own namespace and ends no process but its own.
package lab
