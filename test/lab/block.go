package lab

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// Blocks are never smaller than this, so that they look like the ones of a cluster and always
// have room for a gateway.
const (
	smallestBlock4 = 24
	smallestBlock6 = 64
)

// common is how many leading bits all addresses share. They are of one family, at least one.
func common(addrs []netip.Addr) int {
	n := addrs[0].BitLen()
	first := addrs[0].AsSlice()
	for _, a := range addrs[1:] {
		same := 0
		for i, b := range a.AsSlice() {
			x := bits.LeadingZeros8(b ^ first[i])
			same += x
			if x < 8 {
				break
			}
		}
		n = min(n, same)
	}
	return n
}

// cover is the smallest block that holds all addresses as hosts and has an address left for the
// gateway: one that no one else in the cluster uses, which taken tells.
func cover(addrs []netip.Addr, taken func(netip.Addr) bool) (netip.Prefix, netip.Addr, error) {
	length := min(common(addrs), smallestBlock4)
	if addrs[0].Is6() {
		length = min(common(addrs), smallestBlock6)
	}
	for ; length > 0; length-- {
		block := netip.PrefixFrom(addrs[0], length).Masked()
		if !hosts(block, addrs) {
			continue
		}
		gateway := block.Addr()
		for range 4096 {
			gateway = gateway.Next()
			if !block.Contains(gateway) || !hosts(block, []netip.Addr{gateway}) {
				break
			}
			if !taken(gateway) {
				return block, gateway, nil
			}
		}
	}
	return netip.Prefix{}, netip.Addr{}, fmt.Errorf("no block holds %v and a gateway", addrs)
}

// hosts says whether every address may be a host of the block: not the first, and for IPv4 not the
// last, which is the broadcast address.
func hosts(block netip.Prefix, addrs []netip.Addr) bool {
	for _, a := range addrs {
		if a == block.Addr() || a.Is4() && !block.Contains(a.Next()) {
			return false
		}
	}
	return true
}

// nth is the address n steps behind a block's first one.
func nth(block netip.Prefix, n int) netip.Addr {
	b := block.Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// after is the next block of the same length.
func after(block netip.Prefix) netip.Prefix {
	b := block.Addr().AsSlice()
	i := (block.Bits() - 1) / 8
	carry := 1 << (7 - (block.Bits()-1)%8)
	for ; i >= 0 && carry > 0; i-- {
		carry += int(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, block.Bits())
}

// free is the first block from start on, in at most tries steps, that holds no used address.
func free(start netip.Prefix, tries int, used map[netip.Addr]bool) (netip.Prefix, bool) {
	block := start
search:
	for range tries {
		for a := range used {
			if block.Contains(a) {
				block = after(block)
				continue search
			}
		}
		return block, true
	}
	return netip.Prefix{}, false
}
