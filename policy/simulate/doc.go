// Package simulate holds what was seen against what policies would say: [Compare] takes edges and two
// worlds, the one in force (or the evidence alone) and the proposed one, and tells which edges would
// break, which would open, and which rules nothing seen needs. Its main types are [Edge], [World] and
// [Report].
//
// It is pure: where edges come from, and how a verdict is made of policy and modes, is the caller's.
package simulate
