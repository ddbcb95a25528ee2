package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// Kind is what a book is about.
type Kind uint8

const (
	Endpoints Kind = iota + 1 // the workloads that run on the node
	Edges                     // the connections that the node saw
)

func (k Kind) String() string {
	switch k {
	case Endpoints:
		return "endpoints"
	case Edges:
		return "edges"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// Version numbers the states of one book. An owner that lost its state starts a later epoch.
type Version struct {
	_     struct{} `cbor:",toarray"`
	Epoch uint64
	Seq   uint64
}

// Before orders versions.
func (v Version) Before(w Version) bool {
	return v.Epoch < w.Epoch || v.Epoch == w.Epoch && v.Seq < w.Seq
}

// Head says what a book holds at a version, in its owner's hand.
type Head struct {
	_       struct{} `cbor:",toarray"`
	Owner   string
	Kind    Kind
	Version Version
	Count   uint32 // entries
	Root    Hash   // of all entries, see [Book]
	Sign    []byte // ed25519 over all of the above
}

func (h *Head) signed() []byte {
	b := []byte("bulkhead book 1\x00")
	b = append(b, byte(h.Kind))
	b = binary.BigEndian.AppendUint64(b, h.Version.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Version.Seq)
	b = binary.BigEndian.AppendUint32(b, h.Count)
	b = append(b, h.Root[:]...)
	return append(b, h.Owner...)
}

// verify says whether the owner of that key signed it.
func (h *Head) verify(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, h.signed(), h.Sign) {
		return fmt.Errorf("%s of node %q at %d/%d: signature is not the node's: %w", h.Kind, h.Owner, h.Version.Epoch, h.Version.Seq, ErrForged)
	}
	return nil
}

// Errors of a message that was refused.
var (
	ErrForged = errors.New("forged")
	ErrStale  = errors.New("not newer than what is known")
	ErrGap    = errors.New("changes in between were missed")
)

// buckets is into how many parts a book is hashed, so that two nodes find out which part differs.
const buckets = 16

// Entry is one line of a book.
type Entry struct {
	_     struct{} `cbor:",toarray"`
	Key   string
	Value []byte
}

// Book is one owner's entries of one kind. Keys fall into buckets by hash; a bucket's hash is over its
// entries in key order, the root over the buckets' hashes. Not safe for concurrent use.
type Book struct {
	head    Head
	entries [buckets][]Entry // sorted by key
	hashes  [buckets]Hash
	bytes   int      // of keys and values
	recent  []change // of the owner only: the last changes, oldest first
}

// change is what the owner wrote at a version.
type change struct {
	seq uint64
	key string
	at  time.Time
}

// maxRecent bounds how many changes a broadcast can go back.
const maxRecent = 64

func newBook(owner string, kind Kind, epoch uint64) *Book {
	b := &Book{head: Head{Owner: owner, Kind: kind, Version: Version{Epoch: epoch}}}
	for i := range b.hashes {
		b.hashes[i] = emptyBucket
	}
	b.head.Root = rootOf(&b.hashes)
	return b
}

var emptyBucket = hashBucket(nil)

// Len is how many entries it has.
func (b *Book) Len() int { return int(b.head.Count) }

// Get gives an entry's value; it must not be written to.
func (b *Book) Get(key string) ([]byte, bool) {
	list := b.entries[bucketOf(key)]
	if i, ok := findEntry(list, key); ok {
		return list[i].Value, true
	}
	return nil, false
}

func findEntry(list []Entry, key string) (int, bool) {
	return slices.BinarySearchFunc(list, key, func(e Entry, key string) int { return strings.Compare(e.Key, key) })
}

// Entries lists them, by key. They must not be written to.
func (b *Book) Entries() []Entry {
	out := slices.Concat(b.entries[:]...)
	slices.SortFunc(out, func(x, y Entry) int { return strings.Compare(x.Key, y.Key) })
	return out
}

func bucketOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	s := h.Sum32()
	return int((s ^ s>>16) % buckets)
}

// put writes without numbering or hashing; false: nothing changed. A nil value deletes.
func (b *Book) put(key string, value []byte) bool {
	list := &b.entries[bucketOf(key)]
	i, had := findEntry(*list, key)
	switch {
	case value == nil && !had, value != nil && had && bytes.Equal((*list)[i].Value, value):
		return false
	case value == nil:
		b.bytes -= len(key) + len((*list)[i].Value)
		*list = slices.Delete(*list, i, i+1)
		b.head.Count--
	case had:
		b.bytes += len(value) - len((*list)[i].Value)
		(*list)[i].Value = value
	default:
		b.bytes += len(key) + len(value)
		*list = slices.Insert(*list, i, Entry{Key: key, Value: value})
		b.head.Count++
	}
	return true
}

// rehash brings the hashes of some buckets up to date.
func (b *Book) rehash(touched bucketSet) {
	for i := range b.hashes {
		if touched.has(i) {
			b.hashes[i] = hashBucket(b.entries[i])
		}
	}
	b.head.Root = rootOf(&b.hashes)
}

// bucketSet is a set of bucket numbers.
type bucketSet uint16

const allBuckets = ^bucketSet(0)

func (s bucketSet) has(i int) bool     { return s>>i&1 == 1 }
func (s *bucketSet) add(i int)         { *s |= 1 << i }
func (s *bucketSet) addKey(key string) { s.add(bucketOf(key)) }
func rootOf(h *[buckets]Hash) (out Hash) {
	s := sha256.New()
	for i := range h {
		s.Write(h[i][:])
	}
	s.Sum(out[:0])
	return out
}

func hashBucket(entries []Entry) (out Hash) {
	s := sha256.New()
	var n [8]byte
	for _, e := range entries {
		binary.BigEndian.PutUint32(n[:4], uint32(len(e.Key)))
		binary.BigEndian.PutUint32(n[4:], uint32(len(e.Value)))
		s.Write(n[:])
		s.Write([]byte(e.Key))
		s.Write(e.Value)
	}
	s.Sum(out[:0])
	return out
}

// write is the owner's: it changes entries (a nil value deletes), numbers and signs the result. False:
// all was so already.
func (b *Book) write(entries []Entry, key ed25519.PrivateKey, now time.Time) bool {
	var touched bucketSet
	seq := b.head.Version.Seq + 1
	for _, e := range entries {
		if b.put(e.Key, e.Value) {
			touched.addKey(e.Key)
			b.recent = append(b.recent, change{seq, e.Key, now})
		}
	}
	if touched == 0 {
		return false
	}
	b.recent = b.recent[max(0, len(b.recent)-maxRecent):]
	b.head.Version.Seq = seq
	b.rehash(touched)
	b.seal(key)
	return true
}

func (b *Book) seal(key ed25519.PrivateKey) { b.head.Sign = ed25519.Sign(key, b.head.signed()) }
