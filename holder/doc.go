// Package holder keeps sockets open for a daemon that goes away and comes back.
//
// A table in a container's namespace belongs to the netlink socket that made it, and nobody else can
// change it: not even root in the container. When the daemon ends, its sockets close, and until the next
// one has taken the tables over they belong to nobody. A holder is a small process that has a copy of
// each socket: while it runs, the tables go on belonging to the socket, whether a daemon runs or not, and
// the next daemon takes the same sockets up again.
//
// It does nothing else, so that there is no reason to restart it, not for an upgrade either. Its protocol
// is datagrams over a unix socket (SOCK_SEQPACKET): "keep NAME" with a descriptor, "drop NAME", "list";
// answers are "ok" or "error TEXT", and for a list "item NAME" with a descriptor for each, then "ok".
package holder
