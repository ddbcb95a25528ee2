// Package reach tells who may reach whom, and how that differs between two sets of policies. [Diff]
// computes it from the compiled entries of policies rather than by trying ports: all protocols and
// ports are one line of numbers, of which each end allows some ranges; addresses that nobody has fall
// into the cells that the policies' own blocks cut. Workloads that no selector, block or port's name
// can tell apart are judged once.
//
// It is pure and knows nothing of where policies and workloads come from.
package reach
