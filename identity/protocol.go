package identity

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol is an IANA protocol number (https://www.iana.org/assignments/protocol-numbers).
// Zero means "every protocol" where a rule may say so, and is never a protocol seen.
type Protocol uint8

const (
	AnyProtocol Protocol = 0
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	ICMPv6      Protocol = 58
	SCTP        Protocol = 132
)

// HasPorts says whether the number after the protocol is a transport port. For ICMP and ICMPv6 it
// is the message type instead.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// IsICMP is true for ICMP of either family.
func (p Protocol) IsICMP() bool { return p == ICMP || p == ICMPv6 }

// String gives the name that policies use (TCP, UDP, SCTP, ICMP, ICMPv6), "any" for zero, or the
// number.
func (p Protocol) String() string {
	switch p {
	case AnyProtocol:
		return "any"
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// ParseProtocol reads a protocol name in any case, or a number from 1 to 255.
func ParseProtocol(s string) (Protocol, error) {
	switch strings.ToUpper(s) {
	case "ICMP":
		return ICMP, nil
	case "TCP":
		return TCP, nil
	case "UDP":
		return UDP, nil
	case "ICMPV6":
		return ICMPv6, nil
	case "SCTP":
		return SCTP, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("protocol %q: want TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 1 to 255", s)
	}
	return Protocol(n), nil
}

// MarshalText makes JSON and YAML carry the name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (p *Protocol) UnmarshalText(b []byte) error {
	if string(b) == "any" {
		*p = AnyProtocol
		return nil
	}
	v, err := ParseProtocol(string(b))
	*p = v
	return err
}
