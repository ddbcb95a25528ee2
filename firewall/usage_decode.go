package firewall

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// usageElement reads an element: address . protocol . port, each padded to four bytes, with the
// counter that belongs to it. ok is false for one that is none of ours.
//
// Source: nf_tables_fill_setelem in net/netfilter/nf_tables_api.c.
func usageElement(b []byte, family int) (k usageKey, c usageCount, ok bool) {
	const expressions = 11 // NFTA_SET_ELEM_EXPRESSIONS: a list, where the set has several
	counted := false
	for kind, v := range decodeAttributes(b) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			k, ok = usageParseKey(v, family)
		case unix.NFTA_SET_ELEM_EXPR:
			c, counted = usageExpression(v)
		case expressions:
			for _, e := range decodeAttributes(v) {
				if one, is := usageExpression(e); is {
					c, counted = one, true
				}
			}
		}
	}
	return k, c, ok && counted
}

func usageParseKey(b []byte, family int) (k usageKey, ok bool) {
	for kind, v := range decodeAttributes(b) {
		if kind != unix.NFTA_DATA_VALUE {
			continue
		}
		switch {
		case family == 4 && len(v) == 12:
			k.addr = netip.AddrFrom4([4]byte(v))
		case family == 6 && len(v) == 24:
			k.addr = netip.AddrFrom16([16]byte(v)).Unmap()
		default:
			return k, false
		}
		rest := v[len(v)-8:]
		k.protocol, k.port = rest[0], binary.BigEndian.Uint16(rest[4:])
		ok = true
	}
	return k, ok
}

// usageExpression reads one expression of an element; it is false for all but a counter.
func usageExpression(b []byte) (c usageCount, counter bool) {
	for kind, v := range decodeAttributes(b) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			counter = cstring(v) == "counter"
		case unix.NFTA_EXPR_DATA:
			c = usageCounter(v)
		}
	}
	return c, counter
}

func usageCounter(b []byte) (c usageCount) {
	for kind, v := range decodeAttributes(b) {
		switch kind {
		case unix.NFTA_COUNTER_BYTES:
			c.bytes = be64(v)
		case unix.NFTA_COUNTER_PACKETS:
			c.packets = be64(v)
		}
	}
	return c
}
