package firewall

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// guardLogs bounds what a guard tells, in frames a second; all are counted.
const guardLogs = 10

// guard builds the table that stands outside of a workload's rules:
//
//	sender → pair4, pair6 → pair4_icmp …     frames that the workload sends
//	served → served4, served6                frames to the workload, remembered for the answers
//
// It is on the host's end of the veth, where nothing in the namespace can reach or go around it. An
// interface without a host's end has it inside, on netdev egress: AF_XDP goes around that one.
type guard struct {
	spec   Spec
	ifc    Interface
	inside bool
}

// guardTable makes the guard of one interface.
func guardTable(spec Spec, ifc Interface, sets []*Set) *Table {
	g := guard{spec, ifc, ifc.Host == ""}
	t := &Table{Place: AtNode, Family: FamilyNetdev, Name: GuardPrefix + ifc.Host,
		Counters: []string{CounterLate, CounterRaw, CounterSpoofed}}
	if g.inside {
		t.Place, t.Name = InWorkload, GuardPrefix+ifc.Name
	}
	t.shared = g.chains()
	t.Chains = slices.Clone(t.shared.list)
	if g.judges() {
		t.Sets = slices.Clone(sets)
		for _, s := range families {
			t.Sets = append(t.Sets, s.served())
			if g.expectsResets() {
				t.Sets = append(t.Sets, s.refused())
			}
		}
	}
	if g.hears() {
		for _, s := range families {
			t.Sets = append(t.Sets, s.resolverSet(g.spec))
		}
	}
	t.sort()
	return t
}

func (g guard) buildChains() []*Chain {
	out := []*Chain{g.senderChain(), g.spoofChain(), g.neighbourChain()}
	if g.judges() {
		out = append(out, g.judgeChains()...)
	}
	if g.hears() {
		out = append(out, g.answerLogChain())
	}
	if g.judges() || g.hears() {
		out = append(out, g.servedChain())
	}
	return out
}

// hears says that the guard tells of DNS answers.
func (g guard) hears() bool { return g.spec.Hears() && !g.inside }

// judgeChains are the chains that are the same for every interface.
func (g guard) judgeChains() []*Chain {
	shape := g.spec.shape()
	shape.atGuard = true
	return shape.chains(func() []*Chain {
		out := []*Chain{rawChain()}
		for _, s := range []site{{netdev: true}, {v6: true, netdev: true}} {
			out = append(out, g.pairChain(s), g.messageChain(s), g.askedChain(s), g.rememberChain(s))
			if g.fewAsk(s) {
				out = append(out, g.fewChain(s))
			}
		}
		return out
	})
}

// judges says whether frames are held against entries. In learn and alert mode, and where egress is
// open, only the sender is checked.
func (g guard) judges() bool {
	return g.spec.Mode == policy.Enforce && g.spec.judges(policy.Egress)
}

// device is the interface that the guard's chains hang on, and the hook for what the workload sends.
func (g guard) hook(sent bool) *Hook {
	h := &Hook{Device: g.ifc.Host, Number: hookIngress, Drop: sent}
	if !sent {
		h.Number = hookEgress
	}
	if g.inside {
		h.Device = g.ifc.Name
		h.Number = hookIngress + hookEgress - h.Number
	}
	return h
}

// addrs are the workload's own addresses of one family on this interface, link-local included.
func (g guard) addrs(v6 bool) []netip.Addr {
	var out []netip.Addr
	for _, a := range g.ifc.Addrs {
		if a = a.Unmap().WithZone(""); a.Is6() == v6 {
			out = append(out, a)
		}
	}
	if ll, ok := linkLocal(g.ifc.MAC); ok && v6 {
		out = append(out, ll)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// linkLocal is the address that an interface makes of its MAC (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) (netip.Addr, bool) {
	if len(mac) != 6 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff,
		12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}), true
}

// senderChain lets only frames through that carry the workload's own addresses, and no VLAN tag.
func (g guard) senderChain() *Chain {
	c := &Chain{Name: "sender", Hook: g.hook(true)}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	next := accept()
	if g.judges() {
		next = goTo("pair4")
	}
	// Nearly every frame is IP from an address of its own, so that is asked first, in few words.
	for _, a := range g.addrs(false) {
		add(g.from(a), g.ownFrame(0x0800, a), next)
	}
	for _, a := range g.addrs(true) {
		add(g.from(a), g.ownFrame(0x86dd, a), goTo("sent6"))
	}
	add("", g.otherMAC(), goTo("spoof"))
	for _, a := range g.addrs(false) {
		add("", g.etherType(0x0806), arpFrom(g.ifc.MAC, a), accept())
	}
	s, nobody := site{v6: true, netdev: true}, saddrIs(netip.IPv6Unspecified())
	for _, a := range g.addrs(true) {
		add("is the address free?", g.etherType(0x86dd), nobody, s.icmpType(neighbourAsk, neighbourAsk), ndTarget(a), s.toMulticast(), accept())
	}
	add("", g.etherType(0x86dd), nobody, s.icmpType(mldReport, mldReport), s.toMulticast(), accept())
	add("", g.etherType(0x86dd), nobody, s.icmpType(mld2Report, mld2Report), s.toMulticast(), accept())
	add("", goTo("spoof"))
	return c
}

// otherMAC matches frames whose sender is not the interface's own MAC.
func (g guard) otherMAC() clause {
	mac := []expr.Any{payload(expr.PayloadBaseLLHeader, 6, 6), unequal(g.ifc.MAC...)}
	if g.inside {
		// nft knows Ethernet on netdev only by the interface a frame came in by, and here is none.
		return clause{fmt.Sprintf("@ll,48,48 != %#x", hexNumber(g.ifc.MAC)), mac}
	}
	return clause{"ether saddr != " + g.ifc.MAC.String(), append(isEthernet(), mac...)}
}

func isEthernet() []expr.Any { return []expr.Any{load(expr.MetaKeyIIFTYPE), equal(1, 0)} }

func hexNumber(number []byte) uint64 {
	var n uint64
	for _, b := range number {
		n = n<<8 | uint64(b)
	}
	return n
}

// etherType matches the frame's own type. That is what stands in the frame, where a VLAN tag cannot
// be overlooked and a sender inside cannot say one thing and send another.
func (g guard) etherType(n uint16) clause {
	typ := []expr.Any{payload(expr.PayloadBaseLLHeader, 12, 2), equal(byte(n>>8), byte(n))}
	if g.inside {
		return clause{fmt.Sprintf("@ll,96,16 %#x", n),
			append(typ, load(expr.MetaKeyPROTOCOL), equal(byte(n>>8), byte(n)))}
	}
	return clause{"", append(isEthernet(), typ...)}
}

// from says in a comment what ownFrame compares by its place.
func (g guard) from(a netip.Addr) string {
	if g.inside {
		return ""
	}
	return "from " + a.String()
}

// ownFrame matches frames of a type with the interface's own MAC, which stand side by side and are one load,
// and with a source address. See etherType for what the type is.
func (g guard) ownFrame(n uint16, a netip.Addr) clause {
	want := append(slices.Clone([]byte(g.ifc.MAC)), byte(n>>8), byte(n))
	c := clause{fmt.Sprintf("@ll,48,64 %#x", hexNumber(want)), []expr.Any{payload(expr.PayloadBaseLLHeader, 6, 8), equal(want...)}}
	from := saddrIs(a)
	if g.inside {
		// A sender inside can say one type to the kernel and write another.
		c.exprs = append(c.exprs, load(expr.MetaKeyPROTOCOL), equal(byte(n>>8), byte(n)))
	} else {
		// Without the type in a rule of its own nft does not know that these are addresses, see bareKey.
		s := site{v6: a.Is6()}
		from.text = s.bareAddr(true).text + " 0x" + strings.TrimLeft(hex.EncodeToString(a.AsSlice()), "0")
	}
	return clause{c.text + " " + from.text, append(c.exprs, from.exprs...)}
}

// saddrIs matches one source address; its family was matched before.
func saddrIs(a netip.Addr) clause {
	if a.Is4() {
		return clause{"ip saddr " + a.String(), []expr.Any{payload(expr.PayloadBaseNetworkHeader, 12, 4), equal(a.AsSlice()...)}}
	}
	return clause{"ip6 saddr " + a.String(), []expr.Any{payload(expr.PayloadBaseNetworkHeader, 8, 16), equal(a.AsSlice()...)}}
}

// arpFrom matches ARP for IPv4 on Ethernet (RFC 826) whose sender is the workload.
func arpFrom(mac net.HardwareAddr, a netip.Addr) clause {
	at := func(offset, length uint32) expr.Any { return payload(expr.PayloadBaseNetworkHeader, offset, length) }
	return clause{"arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp saddr ether " + mac.String() + " arp saddr ip " + a.String(),
		[]expr.Any{at(0, 2), equal(0, 1), at(2, 2), equal(8, 0), at(4, 1), equal(6), at(5, 1), equal(4),
			at(8, 6), equal(mac...), at(14, 4), equal(a.AsSlice()...)}}
}

func (g guard) spoofChain() *Chain {
	return &Chain{Name: "spoof", Rules: []Rule{
		newRule("", count(CounterSpoofed), atMost(guardLogs), logTo(PrefixSpoof)),
		newRule("", drop()),
	}}
}

// rawChain is where frames end that the namespace's own rules never let out. The kernel answers
// stray segments with resets by itself: that is nobody's doing.
func rawChain() *Chain {
	return &Chain{Name: "raw", Rules: []Rule{
		newRule("", tcpReset(), count(CounterLate), drop()),
		newRule("", count(CounterRaw), atMost(guardLogs), logTo(PrefixRaw)),
		newRule("", drop()),
	}}
}
