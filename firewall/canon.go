package firewall

import (
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// nested says which attributes of an expression hold attributes; names says which hold a name, with
// or without a zero at its end; passing says which are gone once the kernel has the rule.
var (
	nested = map[string][]uint16{
		"immediate": {unix.NFTA_IMMEDIATE_DATA},
		"cmp":       {unix.NFTA_CMP_DATA},
		"bitwise":   {unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR},
	}
	names = map[string][]uint16{
		"lookup": {unix.NFTA_LOOKUP_SET},
		"dynset": {unix.NFTA_DYNSET_SET_NAME},
		"objref": {unix.NFTA_OBJREF_IMM_NAME},
		"log":    {unix.NFTA_LOG_PREFIX},
	}
	passing = map[string][]uint16{
		"lookup": {unix.NFTA_LOOKUP_SET_ID},
		"dynset": {unix.NFTA_DYNSET_SET_ID},
	}
)

// canonical brings a rule's expressions to a form that is the same for what is sent and for what
// the kernel gives back: attributes sorted, zeros that are defaults left out. What is not known to
// be harmless stays in: a rule with an expression of somebody else's never equals one of ours.
func canonical(exprs []byte) string {
	var b strings.Builder
	for _, elem := range readAttrs(exprs) {
		in := readAttrs(elem.data)
		name := cstring(find(in, unix.NFTA_EXPR_NAME))
		b.WriteString(name)
		var parts []string
		for _, a := range readAttrs(find(in, unix.NFTA_EXPR_DATA)) {
			switch {
			case among(passing[name], a.kind):
			case among(names[name], a.kind):
				parts = append(parts, fmt.Sprintf("%d=%q", a.kind, cstring(a.data)))
			case among(nested[name], a.kind):
				parts = append(parts, fmt.Sprintf("%d=%s", a.kind, canonicalData(a.data)))
			case len(a.data) <= 8 && zero(a.data):
			default:
				parts = append(parts, fmt.Sprintf("%d=%x", a.kind, a.data))
			}
		}
		sort.Strings(parts)
		b.WriteString("[" + strings.Join(parts, " ") + "]")
	}
	return b.String()
}

// canonicalData is canonical for NFTA_DATA_*: bytes, or a verdict with the chain it leads to.
func canonicalData(data []byte) string {
	in := readAttrs(data)
	if v := find(in, unix.NFTA_DATA_VERDICT); v != nil {
		in := readAttrs(v)
		return fmt.Sprintf("verdict %x %q", find(in, unix.NFTA_VERDICT_CODE), cstring(find(in, unix.NFTA_VERDICT_CHAIN)))
	}
	return fmt.Sprintf("%x", find(in, unix.NFTA_DATA_VALUE))
}

func among(list []uint16, kind uint16) bool {
	for _, k := range list {
		if k == kind {
			return true
		}
	}
	return false
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
