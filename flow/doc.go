// Package flow turns flow records into a service graph, a baseline and a suggested policy.
//
// Records and names come in ([Graph.Observe]); edges ([Edge]), what is accepted of them
// ([Baseline]) and YAML ([Suggest]) come out. It is pure: it opens no socket, reads no clock and
// writes no file. It never guesses who is the client: a record says so, or makes no edge. Nothing in
// it grows without a bound, and every bound that was reached is counted ([Stats]).
package flow
