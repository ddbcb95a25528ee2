// Package attack tries what THREATS promise: one runnable attack per trick, each a test of its own,
// named after the threat's row: TestThreat3/up/af_xdp. `make attack` prints them as a table.
//
//	n1 ── cni0 ─┬─ attacker  may send UDP to port 5353 of outsider, and nothing else to anybody
//	            ├─ victim    may hear TCP 80 and UDP 53 from peer, UDP 5353 from outsider
//	            ├─ peer      the allowed one, whose traffic must lose nothing all the while
//	            ├─ newcomer  starts again and again; may ask outsider on TCP 80
//	            └─ outsider  no policy: may send what it likes, and hears what others may send
//
// Every trick is made four times: without Bulkhead (bare), where it must win, or else silence would
// prove nothing; then with the daemon up, with the daemon killed and started again in a loop, and
// with the daemon dead. Ears on every workload's interface hear each frame that arrives there,
// before any rule of the workload's own; a second kind hears what a socket would be handed.
//
// The lab is made once and shared by all tests of this package, which run one after another.
package attack
