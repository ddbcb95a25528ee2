// Package explain tells why policies treat a connection as they do, beyond the verdict: [Explain] lists
// for each end every rule that matches and every rule that nearly does, with what is missing, and the
// one change that would allow what is denied, as YAML.
//
// Nothing here matches by itself. A rule is tried in a set of its own with one thing of it changed at a
// time (its ports left out, a label not asked for, an except dropped), and policy.Set answers; so it
// cannot disagree with what is enforced. A change is proposed only if with it the set allows.
package explain
