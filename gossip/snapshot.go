package gossip

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// snapshot is all of a State that a restart must not lose.
type snapshot struct {
	_       struct{} `cbor:",toarray"`
	Format  uint8
	Pins    map[string][]byte
	Books   []Contents
	Records []Record
}

const snapshotFormat = 1

// Snapshot writes the state down.
func (s *State) Snapshot() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := snapshot{Format: snapshotFormat, Pins: map[string][]byte{}}
	for node, key := range s.pins {
		out.Pins[node] = key
	}
	for _, b := range s.books {
		out.Books = append(out.Books, *b.contents(allBuckets))
	}
	out.Records = slices.Collect(maps.Values(s.registers.records))
	return encoder.Marshal(&out)
}

// Restore takes over what Snapshot wrote, of this node too: its books go on from the version that they
// had. Books that are not what their nodes signed are left out and named in the error; they are fetched
// again. Errors that wrap errMalformed mean that nothing was taken over.
func (s *State) Restore(data []byte) error {
	var in snapshot
	if err := decoder.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("gossip: stored state: %w: %w", errMalformed, err)
	}
	if in.Format != snapshotFormat {
		return fmt.Errorf("gossip: stored state has format %d, want %d: %w", in.Format, snapshotFormat, errMalformed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for node, key := range in.Pins {
		if node != s.self && len(key) == ed25519.PublicKeySize {
			s.pins[node] = key
		}
	}
	for i := range in.Books {
		errs = append(errs, s.restoreBook(&in.Books[i]))
	}
	for i := range in.Records {
		errs = append(errs, s.restoreRecord(&in.Records[i]))
	}
	return errors.Join(errs...)
}

// restoreRecord takes a record whatever its time: it was believed when it was written down, and this
// node's clock may be far behind after a restart.
func (s *State) restoreRecord(r *Record) error {
	if err := (&records{List: []Record{*r}}).check(); err != nil {
		return fmt.Errorf("gossip: stored state: %w", err)
	}
	news, err := s.merge(r)
	if err != nil {
		return fmt.Errorf("gossip: stored state: %w", err)
	}
	if news {
		s.changes.add(Change{Class: r.Class, Key: r.Key})
	}
	return nil
}

func (s *State) restoreBook(c *Contents) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("gossip: stored state: %w", err)
	}
	key, err := s.pinOf(c.Head.Owner)
	if err != nil {
		return fmt.Errorf("gossip: stored state: %w", err)
	}
	b := newBook(c.Head.Owner, c.Head.Kind, 0)
	changed, err := b.replace(c, key)
	if err != nil {
		return fmt.Errorf("gossip: stored state: %w", err)
	}
	if old := s.books[bookID{c.Head.Owner, c.Head.Kind}]; old != nil {
		s.toggleBook(old)
		if c.Head.Owner != s.self {
			s.bookBytes -= old.bytes
		}
	}
	if c.Head.Owner != s.self {
		s.bookBytes += b.bytes
	}
	s.setBook(b)
	for _, e := range changed {
		s.changes.entry(c.Head.Owner, c.Head.Kind, e.Key)
	}
	return nil
}
