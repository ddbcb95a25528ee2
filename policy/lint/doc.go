// Package lint finds what policies write and cannot mean: rules that never match or never decide,
// selectors that select nobody, peers that are wider than anybody wants, names nobody has.
//
// [Check] takes a [policy.Set] and, where there is one, an [identity.View] of the workloads and
// Services that the policies are for; without a view the checks that need one stay silent. What it
// returns is a list of [Finding], each with the place of the very field, a sentence and a way out.
// [Checks] lists all that can be found. [Report] is the same list as SARIF 2.1.0.
//
// Findings err towards silence: labels, blocks and ports are compared exactly, and where two things
// cannot be told apart for certain (a DNS name and a block, say) nothing is said. Nothing found here
// keeps a policy from taking force.
//
// It does no I/O and decides no verdict.
package lint
