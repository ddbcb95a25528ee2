// Command demo is Bulkhead's whole job on one machine, told as it happens: a shop of containers is
// attached through a real CNI chain, its traffic is learned, a policy is generated, tried in mode
// alert, enforced; then one container attacks the others. It ends with a table of promises and
// whether each was kept, and leaves nothing behind; KEEP=1 leaves the shop up to play with.
//
// It needs root and the programs of `make tools` beside it. Exit code: 0 when every promise was
// kept.
package main
