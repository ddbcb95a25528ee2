package gossip

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Receive takes a message that another node sent, and gives the messages to send back to it, over a
// reliable way. What was new is passed on to all. Errors name the sender and what it did; the state is
// then as it was. ErrStale is none: everybody hears everything several times.
func (s *State) Receive(from string, message []byte) ([][]byte, error) {
	if len(message) == 0 {
		return nil, fmt.Errorf("gossip: from node %q: empty message: %w", from, errMalformed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	replies, err := s.receive(message)
	if err != nil {
		return replies, fmt.Errorf("gossip: from node %q: %w", from, err)
	}
	return replies, nil
}

func (s *State) receive(m []byte) ([][]byte, error) {
	switch m[0] {
	case msgDelta:
		return with(m, func(d *Delta) ([][]byte, error) { return s.onDelta(d, m) })
	case msgContents:
		return with(m, s.onContents)
	case msgWrite:
		return with(m, s.onWrite)
	case msgRecords:
		return with(m, s.onRecords)
	case msgNews:
		return with(m, s.onNews)
	case msgHeads:
		return with(m, s.onHeads)
	case msgSummary:
		return with(m, s.onSummary)
	case msgVector:
		return with(m, s.onVector)
	case msgWant:
		return with(m, s.onWant)
	}
	return nil, fmt.Errorf("message of type %d: %w", m[0], errUnknownKind)
}

// with decodes a message for what handles it.
func with[T any, P interface {
	*T
	check() error
}](m []byte, handle func(*T) ([][]byte, error)) ([][]byte, error) {
	body, err := decode[T, P](m)
	if err != nil {
		return nil, err
	}
	return handle(body)
}

// pinOf is the key that a node's books must carry.
func (s *State) pinOf(node string) (ed25519.PublicKey, error) {
	key, ok := s.pins[node]
	if !ok {
		return nil, fmt.Errorf("a book of node %q, which is no member: %w", node, errNoMember)
	}
	return key, nil
}

// errUnknownKind is what a node of a later version may cause, if it takes this one for another.
var errUnknownKind = errors.New("this version does not know it; is it of a later one?")

var errNoMember = errors.New("not a member")

// onDelta takes a change and passes it on as it came: its owner made it so that it covers what a node
// may have missed.
func (s *State) onDelta(d *Delta, raw []byte) ([][]byte, error) {
	taken, err := s.update(&d.Head, sizeOf(d.Entries), func(b *Book, key ed25519.PublicKey) ([]Entry, error) { return b.apply(d, key) })
	if taken {
		s.outbox(bookName(&d.Head), slices.Clone(raw), newsOf(&d.Head))
	}
	if errors.Is(err, ErrGap) {
		return s.onNews(&heads{Books: []bookHead{{Owner: d.Head.Owner, Kind: d.Head.Kind, Version: d.Head.Version}}})
	}
	return nil, err
}

func (s *State) onContents(c *Contents) ([][]byte, error) {
	taken, err := s.update(&c.Head, sizeOf(c.Entries), func(b *Book, key ed25519.PublicKey) ([]Entry, error) { return b.replace(c, key) })
	id := bookID{c.Head.Owner, c.Head.Kind}
	if errors.Is(err, ErrGap) {
		return [][]byte{encode(msgWant, &want{Books: []wantBook{{Owner: id.owner, Kind: id.kind}}})}, nil
	}
	if _, told := s.fetching[id]; told && taken {
		delete(s.fetching, id)
		s.announceNews(s.books[id])
	}
	return nil, err
}

// update brings another node's book forward by so many bytes of entries. False: it is no news.
func (s *State) update(h *Head, incoming int, change func(*Book, ed25519.PublicKey) ([]Entry, error)) (bool, error) {
	key, err := s.pinOf(h.Owner)
	if err != nil {
		return false, err
	}
	if h.Owner == s.self {
		return false, s.returned(h)
	}
	id := bookID{h.Owner, h.Kind}
	b, had := s.books[id]
	if !had {
		b = newBook(h.Owner, h.Kind, 0)
	}
	if s.bookBytes+incoming > maxBooksBytes {
		return false, fmt.Errorf("%s of node %q: %d MiB of books: %w", h.Kind, h.Owner, s.bookBytes>>20, errFull)
	}
	old, size := bookHash(&b.head), b.bytes
	changed, err := change(b, key)
	if errors.Is(err, ErrStale) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	part := partOfOwner(h.Owner)
	if had {
		s.bookParts[part] ^= old
	}
	s.books[id] = b
	s.bookBytes += b.bytes - size
	s.bookParts[part] ^= bookHash(&b.head)
	for _, e := range changed {
		s.changes.entry(h.Owner, h.Kind, e.Key)
	}
	return true, nil
}

// returned is called when somebody holds a later version of this node's own book than it does itself:
// its state was restored from an old copy. A new epoch wins over what it does not remember.
func (s *State) returned(h *Head) error {
	b := s.books[bookID{s.self, h.Kind}]
	if !b.head.Version.Before(h.Version) {
		return nil
	}
	if err := h.verify(s.pins[s.self]); err != nil {
		return err
	}
	s.toggleBook(b)
	b.head.Version = Version{Epoch: max(h.Version.Epoch+1, uint64(s.clock.now().UnixMilli()))}
	b.recent = nil
	b.seal(s.key)
	s.toggleBook(b)
	s.announceBook(b)
	return nil
}

// wanted asks for a book, from where this node is.
func (s *State) wanted(owner string, kind Kind) wantBook {
	w := wantBook{Owner: owner, Kind: kind}
	if b := s.books[bookID{owner, kind}]; b != nil {
		w.Have = b.head.Version
		w.Hashes = b.shortHashes()
	}
	return w
}

func (b *Book) shortHashes() []uint64 {
	out := make([]uint64, buckets)
	for i := range b.hashes {
		out[i] = binary.BigEndian.Uint64(b.hashes[i][:])
	}
	return out
}

// onWrite takes a record and passes it on.
func (s *State) onWrite(r *records) ([][]byte, error) {
	taken, err := s.take(r)
	for i := range taken {
		s.announceRecord(&taken[i])
	}
	return nil, err
}

func (s *State) onRecords(r *records) ([][]byte, error) {
	taken, err := s.take(r)
	for i := range taken {
		if _, told := s.fetching[taken[i].ID()]; told {
			delete(s.fetching, taken[i].ID())
			s.announceRecord(&taken[i])
		}
	}
	return nil, err
}

// take puts records that beat what is there, and says which.
func (s *State) take(r *records) ([]Record, error) {
	var taken []Record
	var errs []error
	for _, rec := range r.List {
		news, err := s.admit(&rec)
		if err != nil {
			errs = append(errs, err)
		}
		if news {
			s.changes.add(Change{Class: rec.Class, Key: rec.Key})
			taken = append(taken, rec)
		}
	}
	return taken, errors.Join(errs...)
}

// maxFetching bounds how much is passed on after it was fetched; the rest is found by exchange.
const maxFetching = 4096

// onNews fetches what was too large to be told, and then tells others.
func (s *State) onNews(h *heads) ([][]byte, error) {
	out := s.fetch(*h)
	if len(out) == 0 {
		return out, nil
	}
	if len(s.fetching) > maxFetching {
		clear(s.fetching) // what never came: somebody tells of news that are none
	}
	for _, x := range h.Books {
		s.fetching[bookID{x.Owner, x.Kind}] = struct{}{}
	}
	for _, x := range h.Registers {
		s.fetching[ID{Class: x.Class, Key: x.Key}] = struct{}{}
	}
	return out, nil
}

// onHeads asks for what the sender has and this node has not. What the sender lacks it will ask for
// itself.
func (s *State) onHeads(h *heads) ([][]byte, error) { return s.fetch(*h), nil }

// fetch asks for what is newer than what is here.
func (s *State) fetch(h heads) [][]byte {
	var w want
	for _, x := range h.Books {
		b := s.books[bookID{x.Owner, x.Kind}]
		_, member := s.pins[x.Owner]
		if member && (b == nil || b.head.Version.Before(x.Version)) {
			w.Books = append(w.Books, s.wanted(x.Owner, x.Kind))
		}
	}
	for _, x := range h.Registers {
		mine, had := s.registers.records[ID{Class: x.Class, Key: x.Key}]
		// Without the value, the same time and node is the same write.
		theirs := Record{Time: x.Time, Node: x.Node, Value: mine.Value, rank: x.Rank}
		if !had || theirs.beats(&mine) {
			w.Registers = append(w.Registers, ID{Class: x.Class, Key: x.Key})
		}
	}
	if len(w.Books)+len(w.Registers) == 0 {
		return nil
	}
	return [][]byte{encode(msgWant, &w)}
}

// announceNews tells all nodes that a book has changes to be fetched.
func (s *State) announceNews(b *Book) {
	s.outbox(bookName(&b.head), newsOf(&b.head), nil)
}

// newsOf says that a book has changes.
func newsOf(h *Head) []byte {
	return encode(msgNews, &heads{Books: []bookHead{{Owner: h.Owner, Kind: h.Kind, Version: h.Version}}})
}
