package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// rules are one way to allow a number of (peer, port) pairs at both ends of a connection.
type rules struct {
	name  string
	pairs int
	lay   func(e end, pairs int) (remove func(), err error) // nil: no rules
	needs []string                                          // programs
}

// end is one of the two workloads: where its rules go, and whom they must let through.
type end struct {
	node   string // path of the node's namespace
	path   string // of the workload's
	ifc    firewall.Interface
	peer   netip.Addr
	router netip.Addr // the node's own address, as a peer
	serves bool       // it is asked; otherwise it asks
}

func (r rules) String() string {
	if r.lay == nil {
		return r.name
	}
	return fmt.Sprintf("%s, %d", r.name, r.pairs)
}

// missing says which program is not installed.
func (r rules) missing() error {
	for _, p := range r.needs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

const (
	noRules   = "no rules"
	ours      = "Bulkhead"
	unguarded = "Bulkhead, no guard"
	ctSet     = "nft: ct state + set"
	ctLinear  = "nft: ct state + a rule each"
	legacy    = "iptables-legacy: conntrack + a rule each"
	iptNFT    = "iptables-nft: conntrack + a rule each"
	iptSet    = "iptables-legacy: conntrack + ipset"
)

// ways are all that is compared. Every rival accepts what belongs to a known connection first, as
// everybody does who uses connection tracking.
func ways() []rules {
	return []rules{
		{name: ours, lay: layOurs(true)},
		{name: unguarded, lay: layOurs(false)},
		{name: ctSet, lay: layNFT(nftSet), needs: []string{"nft"}},
		{name: ctLinear, lay: layNFT(nftLinear), needs: []string{"nft"}},
		{name: legacy, lay: layIPTables("iptables-legacy-restore", iptLinear), needs: []string{"iptables-legacy-restore"}},
		{name: iptNFT, lay: layIPTables("iptables-nft-restore", iptLinear), needs: []string{"iptables-nft-restore"}},
		{name: iptSet, lay: layIPSet, needs: []string{"iptables-legacy-restore", "ipset"}},
	}
}

// pairOf is one allowed peer and port.
type pairOf struct {
	peer  netip.Addr
	proto identity.Protocol
	port  uint16
}

// allowed are n pairs: those of the peer that is really there in the middle, where a list is read half
// through to find them, and others of peers that do not exist.
func allowed(peer netip.Addr, n int) []pairOf {
	var out []pairOf
	filler := func(i int) pairOf {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 198<<24|18<<16|uint32(i)) // 198.18.0.0/15: for benchmarks (RFC 2544)
		return pairOf{netip.AddrFrom4(a), identity.TCP, 80}
	}
	real := []pairOf{{peer, identity.TCP, connectPort}, {peer, identity.TCP, echoPort}, {peer, identity.TCP, sinkPort}, {peer, identity.UDP, datagramPort}}
	for i := range max(0, n-len(real)) {
		if i == (n-len(real))/2 {
			out = append(out, real...)
		}
		out = append(out, filler(i))
	}
	return out
}

// oursSpec is what a workload's end must hold. The other direction is filled as well, and the node may ask
// for everything and answers to names are heard, as under the daemon.
func oursSpec(e end, pairs int, guarded bool) firewall.Spec {
	side := func(list []pairOf, router netip.Addr) policy.Side {
		s := policy.Side{Isolated: true}
		for _, p := range list {
			s.Entries = append(s.Entries, policy.Entry{Peer: netip.PrefixFrom(p.peer, p.peer.BitLen()), Protocol: p.proto, Port: p.port, EndPort: p.port, Rule: "bench"})
		}
		if router.IsValid() {
			s.Entries = append(s.Entries, policy.Entry{Peer: netip.PrefixFrom(router, router.BitLen()), Rule: "node"})
		}
		slices.SortFunc(s.Entries, func(a, b policy.Entry) int {
			return cmp.Or(a.Peer.Addr().Compare(b.Peer.Addr()), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
		})
		return s
	}
	real, filler := allowed(e.peer, pairs), allowed(netip.MustParseAddr("198.51.100.1"), pairs)
	sides := policy.Sides{Egress: side(real, netip.Addr{}), Ingress: side(filler, e.router)}
	if e.serves {
		sides = policy.Sides{Egress: side(filler, netip.Addr{}), Ingress: side(real, e.router)}
	}
	ifc := e.ifc
	if !guarded {
		ifc.Host, ifc.HostIndex = "", 0
	}
	return firewall.Spec{Mode: policy.Enforce, Sides: sides, Interfaces: []firewall.Interface{ifc},
		Resolvers: []netip.Addr{e.router}, Hear: true}
}

// layOurs puts our rules in force.
func layOurs(guarded bool) func(end, int) (func(), error) {
	return func(e end, pairs int) (func(), error) {
		spec := oursSpec(e, pairs, guarded)
		ns, err := firewall.Open(firewall.Config{NetNS: e.path, Node: e.node, Interfaces: spec.Interfaces})
		if err != nil {
			return nil, err
		}
		if _, err := ns.Apply(firewall.Compile(spec)); err != nil {
			return nil, errors.Join(err, ns.Close())
		}
		return func() { ns.Remove() }, nil
	}
}

// feed runs a program in a workload's namespace with text on its standard input.
func feed(path, text, program string, args ...string) error {
	return firewall.Enter(path, func() error {
		c := exec.Command(program, args...)
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %.300s", program, err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// layNFT loads a table; list writes a set's definition and the rules that ask about it.
func layNFT(list func(addr string, pairs []pairOf) (set, asks string)) func(end, int) (func(), error) {
	return func(e end, pairs int) (func(), error) {
		hook, addr, other := "output", "daddr", "input"
		if e.serves {
			hook, addr, other = "input", "saddr", "output"
		}
		set, asks := list(addr, allowed(e.peer, pairs))
		text := fmt.Sprintf("table inet rival {\n%s\nchain %s { type filter hook %s priority 0; policy drop; ct state established,related accept; %s\n}\n"+
			"chain %s { type filter hook %s priority 0; policy drop; ct state established,related accept; }\n}\n",
			set, hook, hook, asks, other, other)
		if err := feed(e.path, text, "nft", "-f", "-"); err != nil {
			return nil, err
		}
		return func() { feed(e.path, "", "nft", "delete table inet rival") }, nil
	}
}

func nftSet(addr string, pairs []pairOf) (set, asks string) {
	var b strings.Builder
	b.WriteString("set allow { type ipv4_addr . inet_proto . inet_service; elements = {")
	for _, p := range pairs {
		fmt.Fprintf(&b, "%s . %d . %d, ", p.peer, p.proto, p.port)
	}
	return b.String() + "} }", "ip " + addr + " . meta l4proto . th dport @allow accept"
}

func nftLinear(addr string, pairs []pairOf) (set, asks string) {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "ip %s %s %s dport %d accept\n", addr, p.peer, transport(p.proto), p.port)
	}
	return "", b.String()
}

func transport(p identity.Protocol) string {
	if p == identity.UDP {
		return "udp"
	}
	return "tcp"
}

// layIPTables loads a filter table; list writes the rules of the chain that is asked.
func layIPTables(restore string, list func(chain string, serves bool, pairs []pairOf) string) func(end, int) (func(), error) {
	return func(e end, pairs int) (func(), error) {
		chain := "OUTPUT"
		if e.serves {
			chain = "INPUT"
		}
		const known = "-A %s -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
		text := "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n" +
			fmt.Sprintf(known, "INPUT") + fmt.Sprintf(known, "OUTPUT") + list(chain, e.serves, allowed(e.peer, pairs)) + "COMMIT\n"
		if err := feed(e.path, text, restore); err != nil {
			return nil, err
		}
		return func() {
			feed(e.path, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", restore)
		}, nil
	}
}

func iptLinear(chain string, serves bool, pairs []pairOf) string {
	addr := "-d"
	if serves {
		addr = "-s"
	}
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "-A %s %s %s -p %s --dport %d -j ACCEPT\n", chain, addr, p.peer, transport(p.proto), p.port)
	}
	return b.String()
}

// layIPSet asks one set of (address, protocol and port).
func layIPSet(e end, pairs int) (func(), error) {
	var b strings.Builder
	fmt.Fprintf(&b, "create allow hash:ip,port maxelem %d\n", max(65536, 2*pairs))
	for _, p := range allowed(e.peer, pairs) {
		fmt.Fprintf(&b, "add allow %s,%s:%d\n", p.peer, transport(p.proto), p.port)
	}
	if err := feed(e.path, b.String(), "ipset", "restore"); err != nil {
		return nil, err
	}
	flags := "dst,dst"
	if e.serves {
		flags = "src,dst"
	}
	remove, err := layIPTables("iptables-legacy-restore", func(chain string, _ bool, _ []pairOf) string {
		return fmt.Sprintf("-A %s -m set --match-set allow %s -j ACCEPT\n", chain, flags)
	})(e, pairs)
	if err != nil {
		return nil, err
	}
	return func() { remove(); feed(e.path, "", "ipset", "destroy", "allow") }, nil
}
