// Package translate writes policies of one kind as another, and says what is lost on the way.
//
// [Convert] brings one [policy.Policy] to the native kind, to NetworkPolicy or to
// ClusterNetworkPolicy. What the other kind cannot say is left out, never so that a list of peers or
// ports becomes empty, which would mean all of them; each piece of it is a [Loss] with its place, the
// reason and the nearest thing that can be said. A conversion without a loss means the same,
// connection for connection.
//
// [Uses] lists the fields of a policy that engines are known to differ in, and [Engines] what is
// known of each engine, with the source of every statement (engines.yaml). What is not known is not
// guessed.
//
// It does no I/O and evaluates nothing.
package translate
