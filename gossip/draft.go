package gossip

import (
	"crypto/ed25519"
	"fmt"
	"slices"
)

// Draft makes a write to a register without writing it: what must survive a crash is stored first, and
// then Put. A nil value deletes. Errors: those that Set would give.
func (s *State) Draft(class, key string, value []byte) (Record, error) {
	rec := Record{Class: class, Key: key, Time: s.clock.next(), Node: s.self, Value: value}
	if err := (&records{List: []Record{rec}}).check(); err != nil {
		return Record{}, fmt.Errorf("gossip: set: %w", err)
	}
	if s.check != nil {
		rank, err := s.check(rec)
		if err != nil {
			return Record{}, fmt.Errorf("gossip: set %s %q: %w: %w", class, key, ErrNotAllowed, err)
		}
		rec.rank = rank
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, had := s.registers.records[rec.ID()]; had && !rec.beats(&old) {
		return Record{}, fmt.Errorf("gossip: set: %s %q: %w", class, key, ErrOutranked)
	}
	return rec, nil
}

// Put makes writes that were drafted, on this node and perhaps before a restart: they have the time
// that they had then. One that is beaten by what is there is left out. Errors: no room; the others are
// made.
func (s *State) Put(list ...Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for _, rec := range list {
		news, err := s.admit(&rec)
		if err != nil {
			failed = fmt.Errorf("gossip: set: %w", err)
		}
		if news {
			s.announceRecord(&rec)
		}
	}
	return failed
}

// KeyOf is the key that a node signs with; nil: it is not known.
func (s *State) KeyOf(node string) ed25519.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pins[node])
}

// Look reads a register as it was written, deletions too; false: it was never written, or is forgotten.
func (s *State) Look(class, key string) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.registers.records[ID{Class: class, Key: key}]
	return rec, ok
}

// Latest is a message with the latest changes of this node's own book, for who is to have them at once
// and not wait for a broadcast (see [State.Receive]), and the version that they lead to. Nil: they are
// too large for that.
func (s *State) Latest(kind Kind) ([]byte, Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.books[bookID{s.self, kind}]
	d := b.delta(packet, s.clock.now().Add(-repeated))
	if d == nil {
		return nil, b.head.Version
	}
	return encode(msgDelta, d), b.head.Version
}
