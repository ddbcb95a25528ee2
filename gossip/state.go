package gossip

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// State is what a node holds of the cluster's state, its own part of it included. Safe for concurrent
// use.
type State struct {
	self  string
	key   ed25519.PrivateKey
	clock clock

	mu        sync.Mutex
	books     map[bookID]*Book
	bookBytes int           // of other nodes' books
	bookParts [parts]uint64 // hashes of books' versions, XORed
	registers *Registers
	pins      map[string]ed25519.PublicKey // by node: whose signature its books carry
	changes   changes
	fetching  map[any]struct{} // bookID or ID: what news told of, to be passed on when it is here
	check     func(Record) (uint64, error)
	outbox    func(name string, full, brief []byte) // queues a broadcast; a later one of the same name takes its place
}

type bookID struct {
	owner string
	kind  Kind
}

// Config of a State.
type StateConfig struct {
	Node string             // this node's name
	Key  ed25519.PrivateKey // signs its books; lasts as long as the node does
	Now  func() time.Time
	// Broadcast queues a message for all nodes; one of the same name that waits still is replaced.
	// It must not block nor call the State.
	// Brief says in a few bytes that there is news; nil: full is short.
	Broadcast func(name string, full, brief []byte)
	// Check says whether a write to a register may be taken, and its rank among the writes to the same
	// key: the higher one wins, whatever their times. It must say the same on all nodes, must not block
	// nor call the State. nil: all may, with rank 0.
	Check func(Record) (rank uint64, err error)
}

// NewState makes the state of a node that knows nothing yet but itself.
func NewState(c StateConfig) *State {
	s := &State{
		self: c.Node, key: c.Key, clock: clock{now: c.Now},
		books: map[bookID]*Book{}, registers: newRegisters(), pins: map[string]ed25519.PublicKey{},
		fetching: map[any]struct{}{},
		changes:  newChanges(), outbox: c.Broadcast, check: c.Check,
	}
	s.pins[c.Node] = c.Key.Public().(ed25519.PublicKey)
	for _, k := range []Kind{Endpoints, Edges} {
		b := newBook(c.Node, k, uint64(c.Now().UnixMilli()))
		b.seal(c.Key)
		s.setBook(b)
	}
	return s
}

// packet is how many bytes of a broadcast fit beside memberlist's own in a UDP packet of 1,400 bytes.
const packet = 1100

// Write changes entries of this node's own book; those without a value are deleted. False: all was so.
// Errors: an entry, or the book, is too large; nothing is written then.
func (s *State) Write(kind Kind, entries ...Entry) (bool, error) {
	if err := errors.Join(checkBook(s.self, kind), checkEntries(entries)); err != nil {
		return false, fmt.Errorf("gossip: write %s: %w", kind, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.books[bookID{s.self, kind}]
	if more := sizeOf(entries); b.Len()+len(entries) > maxBook || b.bytes+more > maxBookBytes {
		return false, fmt.Errorf("gossip: write %s: %d entries (%d KiB) and %d more (%d KiB): at most %d entries and %d KiB",
			kind, b.Len(), b.bytes>>10, len(entries), more>>10, maxBook, maxBookBytes>>10)
	}
	s.toggleBook(b)
	written := b.write(entries, s.key, s.clock.now())
	s.toggleBook(b)
	if written {
		s.announceBook(b)
	}
	return written, nil
}

func sizeOf(entries []Entry) (n int) {
	for i := range entries {
		n += len(entries[i].Key) + len(entries[i].Value)
	}
	return n
}

// Set writes to a register of the cluster; a nil value deletes. Errors: too large, no room.
func (s *State) Set(class, key string, value []byte) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := Record{Class: class, Key: key, Time: s.clock.next(), Node: s.self, Value: value}
	if err := (&records{List: []Record{rec}}).check(); err != nil {
		return Record{}, fmt.Errorf("gossip: set: %w", err)
	}
	if news, err := s.admit(&rec); err != nil {
		return Record{}, fmt.Errorf("gossip: set: %w", err)
	} else if !news {
		return Record{}, fmt.Errorf("gossip: set: %s %q: %w", class, key, ErrOutranked)
	}
	s.announceRecord(&rec)
	return rec, nil
}

// clear deletes all entries of this node's own book.
func (s *State) clear(kind Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.books[bookID{s.self, kind}]
	gone := b.Entries()
	for i := range gone {
		gone[i].Value = nil
	}
	s.toggleBook(b)
	written := b.write(gone, s.key, s.clock.now())
	s.toggleBook(b)
	if written {
		s.announceBook(b)
	}
}

// Entries lists a node's book, by key. They must not be written to.
func (s *State) Entries(owner string, kind Kind) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[bookID{owner, kind}]; b != nil {
		return b.Entries()
	}
	return nil
}

// Version is which state of a node's book this node holds; zero: none.
func (s *State) Version(owner string, kind Kind) Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[bookID{owner, kind}]; b != nil {
		return b.head.Version
	}
	return Version{}
}

// Owners lists the nodes that it holds books of, sorted.
func (s *State) Owners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id := range s.books {
		out = append(out, id.owner)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Get reads a register; false: never written, or deleted.
func (s *State) Get(class, key string) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registers.Get(ID{Class: class, Key: key})
}

// List reads all registers of a class, by key.
func (s *State) List(class string) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registers.List(class)
}

// Pin says which key a node signs with; without it no book of that node is taken. Errors: another key
// is pinned already: somebody pretends to be that node, or it was set up anew, and must be forgotten
// first.
func (s *State) Pin(node string, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("gossip: node %q: key of %d bytes, want %d: %w", node, len(key), ed25519.PublicKeySize, errMalformed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.pins[node]; ok {
		if !have.Equal(key) {
			return fmt.Errorf("gossip: node %q shows another key: %w; if it was set up anew, forget the node first: bulkhead cluster forget %s", node, errImpostor, node)
		}
		return nil
	}
	s.pins[node] = slices.Clone(key)
	return nil
}

// Forget drops all that a node owns, and its key. What others say of it is not taken until it is
// pinned again. This node itself cannot be forgotten.
func (s *State) Forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node == s.self {
		return
	}
	delete(s.pins, node)
	for _, k := range []Kind{Endpoints, Edges} {
		id := bookID{node, k}
		b := s.books[id]
		if b == nil {
			continue
		}
		s.toggleBook(b)
		s.bookBytes -= b.bytes
		delete(s.books, id)
		for _, e := range b.Entries() {
			s.changes.entry(node, k, e.Key)
		}
	}
}

// Expire forgets deletions that everybody must have heard of by now.
func (s *State) Expire() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registers.expire(s.clock.now())
}

// setBook puts a book in its place.
func (s *State) setBook(b *Book) {
	s.books[bookID{b.head.Owner, b.head.Kind}] = b
	s.toggleBook(b)
}

// toggleBook puts a book's version in or out of the hashes.
func (s *State) toggleBook(b *Book) {
	h := bookHash(&b.head)
	s.bookParts[partOfOwner(b.head.Owner)] ^= h
}

func bookHash(h *Head) uint64 {
	rec := Record{Class: h.Kind.String(), Key: h.Owner, Time: Timestamp(h.Version.Epoch), Value: binary.BigEndian.AppendUint64(h.Root[:], h.Version.Seq)}
	sum := rec.hash()
	return binary.BigEndian.Uint64(sum[:])
}

func partOfOwner(owner string) int { return partOf(ID{Key: owner}) }

// announceBook queues a book's last changes for all nodes, or, where they are too large for a packet,
// that there are some.
func (s *State) announceBook(b *Book) {
	if d := b.delta(packet, s.clock.now().Add(-repeated)); d != nil {
		s.outbox(bookName(&b.head), encode(msgDelta, d), newsOf(&b.head))
		return
	}
	s.announceNews(b)
}

func bookName(h *Head) string { return "book " + h.Kind.String() + " " + h.Owner }

func headOf(b *Book) bookHead {
	return bookHead{Owner: b.head.Owner, Kind: b.head.Kind, Version: b.head.Version}
}

func (s *State) announceRecord(r *Record) {
	name := strings.Join([]string{"record", r.Class, r.Key}, " ")
	news := encode(msgNews, &heads{Registers: []recordHead{r.head()}})
	if m := encode(msgWrite, &records{List: []Record{*r}}); len(m) <= packet {
		s.outbox(name, m, news)
		return
	}
	s.outbox(name, news, nil)
}
