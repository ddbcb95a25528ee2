package firewall

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// field is one part of a key as a rule loads it from a packet.
type field struct {
	text string
	size int // bytes in the key, padding included
	load func(register uint32) expr.Any
}

func packetField(text string, base expr.PayloadBase, offset, length int) field {
	return field{text, (length + 3) &^ 3, func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: base, Offset: uint32(offset), Len: uint32(length)}
	}}
}

// addr is the packet's source or destination address.
func (s site) addr(source bool) field {
	offset, length := 16, 4
	if s.v6 {
		offset, length = 24, 16
	}
	text := s.ip() + " daddr"
	if source {
		offset -= length
		text = s.ip() + " saddr"
	}
	return packetField(text, expr.PayloadBaseNetworkHeader, offset, length)
}

// port is the transport header's source or destination port. proto is the protocol's name where the
// rule matched one, "th" otherwise.
func port(source bool, proto string) field {
	if source {
		return packetField(proto+" sport", expr.PayloadBaseTransportHeader, 0, 2)
	}
	return packetField(proto+" dport", expr.PayloadBaseTransportHeader, 2, 2)
}

// echoID is the identifier that an echo request and its reply share.
func (s site) echoID() field {
	name := "icmp id"
	if s.v6 {
		name = "icmpv6 id"
	}
	return packetField(name, expr.PayloadBaseTransportHeader, 4, 2)
}

func (s site) typeField() field {
	if s.v6 {
		return packetField("icmpv6 type", expr.PayloadBaseTransportHeader, 0, 1)
	}
	return packetField("icmp type", expr.PayloadBaseTransportHeader, 0, 1)
}

func protocolField() field {
	return field{"meta l4proto", 4, func(r uint32) expr.Any {
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}
	}}
}

// key is several fields looked up together, in the registers where a set expects them.
type key struct {
	text  string
	exprs []expr.Any
}

func (s site) key(fields ...field) key {
	k := key{exprs: s.family("").exprs}
	at := 0
	for i, f := range fields {
		if i > 0 {
			k.text += " . "
		}
		k.text += f.text
		k.exprs = append(k.exprs, f.load(register(at)))
		at += f.size
	}
	return k
}

// bareKey is key where the family was matched before. nft, which looks at one rule at a time, then prints
// the address by its place in the header. Two expressions less in every frame are worth that on the way
// that most frames take.
func (s site) bareKey(fields ...field) key {
	k := s.key(fields...)
	k.exprs = k.exprs[len(s.family("").exprs):]
	return k
}

// bareAddr is addr for a bareKey.
func (s site) bareAddr(source bool) field {
	f := s.addr(source)
	offset, length := 128, 32
	if s.v6 {
		offset, length = 192, 128
	}
	if source {
		offset -= length
	}
	f.text = fmt.Sprintf("@nh,%d,%d", offset, length)
	return f
}

// register numbers the register that starts at a byte of the key, in the form in which the kernel
// gives it back: 1 to 4 for the wide ones, 8 onward for the others.
func register(at int) uint32 {
	if at%16 == 0 {
		return unix.NFT_REG_1 + uint32(at/16)
	}
	return unix.NFT_REG32_00 + uint32(at/4)
}

// in matches packets whose key is in the set, notIn the others. A counted element counts what in
// matches; notIn leaves it alone.
func (k key) in(set string) clause {
	return clause{k.text + " @" + set, append(k.exprs[:len(k.exprs):len(k.exprs)],
		&expr.Lookup{SourceRegister: 1, SetName: set})}
}

func (k key) notIn(set string) clause {
	return clause{k.text + " != @" + set, append(k.exprs[:len(k.exprs):len(k.exprs)],
		&expr.Lookup{SourceRegister: 1, SetName: set, Invert: true})}
}

// addTo puts the key in a dynamic set, or leaves it there as it is; refresh starts its time anew.
// Both count the packet, and both end the rule where the set is full.
func (k key) addTo(set string, timeout time.Duration) clause {
	return k.dynamic("add", unix.NFT_DYNSET_OP_ADD, set, timeout)
}

func (k key) refresh(set string, timeout time.Duration) clause {
	return k.dynamic("update", unix.NFT_DYNSET_OP_UPDATE, set, timeout)
}

func (k key) dynamic(word string, op uint32, set string, timeout time.Duration) clause {
	text := fmt.Sprintf("%s @%s { %s }", word, set, k.text)
	if timeout > 0 {
		text = fmt.Sprintf("%s @%s { %s timeout %s }", word, set, k.text, spanText(timeout))
	}
	return clause{text, append(k.exprs[:len(k.exprs):len(k.exprs)],
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: op, Timeout: timeout})}
}

// is matches one value of a field, with the family before it.
func (k key) is(text string, value []byte) clause {
	return clause{k.text + " " + text, append(k.exprs[:len(k.exprs):len(k.exprs)], equal(value...))}
}
