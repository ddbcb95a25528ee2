// Package cni is the chained plugin: it stands last in a CNI conflist, tells the daemon over its
// socket which namespace the plugins before it have made, and returns when the rules are in force.
// Its entry points are [Add], [Check], [Del], [GC] and [Status], for the CNI skeleton; its main
// types are [Config] and [Journal].
//
// It judges nothing and touches no namespace: the daemon does. It never fails a DEL, for then the
// plugins before it would not run and their address would leak. It links no policy, YAML, nftables
// or cluster code.
//
// Source: https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md.
package cni
