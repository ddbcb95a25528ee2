package gossip

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// Entry reads one entry of a node's book, which must not be written to; false: it is not there.
func (s *State) Entry(owner string, kind Kind, key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[bookID{owner, kind}]; b != nil {
		return b.Get(key)
	}
	return nil, false
}

// Heads lists what books it holds, and in which state, by owner and kind.
func (s *State) Heads() []Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Head, 0, len(s.books))
	for _, b := range s.books {
		out = append(out, b.head)
	}
	slices.SortFunc(out, func(a, b Head) int { return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Kind, b.Kind)) })
	return out
}

// RegistersHash is the same on two nodes, in hex, exactly where they hold the same registers.
func (s *State) RegistersHash() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw := make([]byte, 0, parts*8)
	for _, h := range s.registers.hashes {
		raw = binary.BigEndian.AppendUint64(raw, h)
	}
	sum := (&Record{Class: "registers", Value: raw}).hash()
	return hex.EncodeToString(sum[:])
}

// Counts are of what went wrong on the way since this node joined; they go on counting.
func (g *Cluster) Counts() *Counts { return &g.counts }

// EncryptsWith is the fingerprint of the key that this node encrypts with; empty: it does not.
func (g *Cluster) EncryptsWith() string {
	if g.ring == nil {
		return ""
	}
	return Fingerprint(g.ring.GetPrimaryKey())
}
