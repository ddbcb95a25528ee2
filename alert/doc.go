// Package alert decides what makes a connection odd, folds repeats, and sends alerts to their
// destinations.
//
// A [Dispatcher] owns the one goroutine: it hands cases to [Judge], what Judge says to [Folder], and
// what is left to each [Sink]. Judge and Folder are pure but for their clock, which tests set. No
// queue, map or file here grows with an attacker; what a bound cost is counted ([Stats]).
//
// Severities:
//
//	critical  tamper
//	high      port-scan, spoof, raw-socket; a denied or new connection to a cloud's metadata address
//	medium    denied and stopped; new-edge
//	low       denied by policy but let through by mode alert: most often a rule that is missing
package alert
