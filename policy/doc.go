// Package policy holds the YAML kinds, their meaning, and nothing that touches a kernel or a disk:
// parse, select, evaluate, explain, and compile to a sorted list of [Entry].
//
// It knows identities, never nftables. One evaluator answers the compiler, explain, simulation and
// tests.
package policy
