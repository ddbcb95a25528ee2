// Package sign puts ed25519 signatures into policies, so that nodes take them from whoever passes them
// on and believe only those who may write them. Its main types are [Signature], [Trust] and [Order].
//
// A signature is an annotation of the document and covers what the document says, not how it is
// written: comments, the order of keys, and what an API server adds do not matter, every value does. It
// holds when it was made, as a serial: of two signed versions of one policy the later one holds, so that
// an old one cannot be played again. What takes a policy away, or sets a mode, is a signed document as
// well (see [Order]).
//
// It reads and writes text and keeps no state; who remembers the serials is the cluster.
package sign
