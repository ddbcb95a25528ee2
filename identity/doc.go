// Package identity says who an address is: labels to identity, address to workload, virtual
// address to backends. Its main types are [Workload], [Service], [Index] and the immutable [View]
// that policy and the flow graph read.
//
// It is a leaf: it imports no other package of this project, does no I/O and knows neither YAML
// nor nftables.
package identity
