package gossip

import (
	"bytes"
	"errors"
	"fmt"
)

var (
	// ErrOutranked says that what holds has a higher rank: it was signed later, or at all.
	ErrOutranked = errors.New("what holds is of a later signature, or signed where this is not")
	// ErrNotAllowed is what [StateConfig.Check] refused.
	ErrNotAllowed = errors.New("not allowed")
)

// admit is the way into the registers, from the network and from this node itself.
// False: what is there stays. Errors: the time is not to be believed, the check refused it, there is no
// room.
func (s *State) admit(rec *Record) (bool, error) {
	if err := s.clock.believe(rec.Time); err != nil {
		return false, fmt.Errorf("%s %q: %w: %w", rec.Class, rec.Key, errMalformed, err)
	}
	return s.merge(rec)
}

// merge takes a record if it is allowed and beats what is there.
func (s *State) merge(rec *Record) (bool, error) {
	if old, had := s.registers.records[rec.ID()]; had && rec.Time == old.Time && rec.Node == old.Node && (rec.Value == nil) == (old.Value == nil) && bytes.Equal(rec.Value, old.Value) {
		return false, nil // everybody hears everything several times: it is checked once
	}
	rec.rank = 0
	if s.check != nil {
		rank, err := s.check(*rec)
		if err != nil {
			return false, fmt.Errorf("%s %q of node %q: %w: %w", rec.Class, rec.Key, rec.Node, ErrNotAllowed, err)
		}
		rec.rank = rank
	}
	s.clock.see(rec.Time)
	return s.registers.put(*rec)
}

func (r *Record) head() recordHead {
	return recordHead{Class: r.Class, Key: r.Key, Rank: r.rank, Time: r.Time, Node: r.Node}
}
