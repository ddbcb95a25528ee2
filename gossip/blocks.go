package gossip

import (
	"fmt"
	"net/netip"
)

// BlocksKey is the entry of a node's book of endpoints that says which ranges its workloads' addresses
// are from. Keys that begin with "@" are no workloads.
const BlocksKey = "@blocks"

// maxBlocks bounds the ranges of one node.
const maxBlocks = 64

// encodeBlocks writes ranges down; nil: there are none.
func encodeBlocks(list []netip.Prefix) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > maxBlocks {
		return nil, fmt.Errorf("%d pod ranges of one node, at most %d", len(list), maxBlocks)
	}
	var text []string
	for _, p := range list {
		text = append(text, p.Masked().String())
	}
	return encoder.Marshal(text)
}

// DecodeBlocks reads what a node says under [BlocksKey]. Errors: it is not that.
func DecodeBlocks(value []byte) ([]netip.Prefix, error) {
	var text []string
	if err := decoder.Unmarshal(value, &text); err != nil {
		return nil, fmt.Errorf("pod ranges: %w: %w", errMalformed, err)
	}
	if len(text) == 0 || len(text) > maxBlocks {
		return nil, fmt.Errorf("%d pod ranges, want 1 to %d: %w", len(text), maxBlocks, errMalformed)
	}
	var out []netip.Prefix
	for _, t := range text {
		p, err := netip.ParsePrefix(t)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() || p.String() != t {
			return nil, fmt.Errorf("pod range %.60q: %w", t, errMalformed)
		}
		out = append(out, p)
	}
	return out, nil
}

// writeBlocks says which ranges are this node's own.
func (g *Cluster) writeBlocks() error {
	value, err := encodeBlocks(g.config.Blocks)
	if err != nil {
		return fmt.Errorf("gossip: join: %w", err)
	}
	_, err = g.State.Write(Endpoints, Entry{Key: BlocksKey, Value: value})
	return err
}
