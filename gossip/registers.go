package gossip

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// Record is one write to the cluster's state.
type Record struct {
	_     struct{} `cbor:",toarray"`
	Class string   // "policy", "mode", "baseline", …: the daemon's words
	Key   string
	Time  Timestamp
	Node  string // who wrote it
	Value []byte // nil: deleted

	rank uint64 // what [StateConfig.Check] gave
}

// ID is what a record is about.
type ID struct {
	_     struct{} `cbor:",toarray"`
	Class string
	Key   string
}

func (r *Record) ID() ID { return ID{Class: r.Class, Key: r.Key} }

// beats decides between two writes to the same key, on every node alike: the one of the higher rank, so
// that no clock helps an old signature against a new one; then the later one, and of two that did not
// know of each other at the same moment the node with the greater name. The value ends a tie that only a
// liar can make.
func (r *Record) beats(other *Record) bool {
	return cmp.Or(cmp.Compare(r.rank, other.rank), cmp.Compare(r.Time, other.Time), cmp.Compare(r.Node, other.Node),
		cmp.Compare(len(r.Value), len(other.Value)), slices.Compare(r.Value, other.Value)) > 0
}

// hash is of all that a record says.
func (r *Record) hash() (out [16]byte) {
	s := sha256.New()
	var n [8]byte
	for _, text := range [][]byte{[]byte(r.Class), []byte(r.Key), []byte(r.Node), r.Value} {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		s.Write(n[:])
		s.Write(text)
	}
	binary.BigEndian.PutUint64(n[:], uint64(r.Time))
	s.Write(n[:])
	s.Write([]byte{b2i(r.Value == nil)})
	copy(out[:], s.Sum(nil))
	return out
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// parts is into how many parts registers are hashed.
const parts = 64

// Registers are the cluster's key-value pairs. Two nodes hold the same ones exactly when their hashes
// are equal. Not safe for concurrent use.
type Registers struct {
	records map[ID]Record
	hashes  [parts]uint64 // of each part: its records' hashes, XORed
	bytes   int
}

// Limits of the cluster's state.
const (
	maxRecords     = 200_000
	maxRecordBytes = 64 << 20
	// tombstoneLife is how long a deletion is remembered. A node that was away for longer must not
	// bring its own registers back, see [State.Expire].
	tombstoneLife = 30 * 24 * time.Hour
)

var errFull = errors.New("the cluster's state is full")

func newRegisters() *Registers { return &Registers{records: map[ID]Record{}} }

func partOf(id ID) int {
	h := fnv.New32a()
	h.Write([]byte(id.Class))
	h.Write([]byte{0})
	h.Write([]byte(id.Key))
	s := h.Sum32()
	return int((s ^ s>>16) % parts)
}

func (r *Registers) toggle(rec *Record) {
	h := rec.hash()
	r.hashes[partOf(rec.ID())] ^= binary.BigEndian.Uint64(h[:])
}

// put takes a record if it beats what is there; false: it does not. Errors: there is no room.
func (r *Registers) put(rec Record) (bool, error) {
	id := rec.ID()
	old, had := r.records[id]
	if had && !rec.beats(&old) {
		return false, nil
	}
	bytes := r.bytes + len(rec.Value) - len(old.Value)
	if !had && len(r.records) >= maxRecords || bytes > maxRecordBytes && len(rec.Value) > len(old.Value) {
		return false, fmt.Errorf("%s %q: %w (%d records, %d MiB)", rec.Class, rec.Key, errFull, len(r.records), r.bytes>>20)
	}
	if had {
		r.toggle(&old)
	}
	r.records[id] = rec
	r.bytes = bytes
	r.toggle(&rec)
	return true, nil
}

// drop forgets a record altogether.
func (r *Registers) drop(id ID) {
	if old, had := r.records[id]; had {
		r.toggle(&old)
		r.bytes -= len(old.Value)
		delete(r.records, id)
	}
}

// Get gives a value; false: never written, or deleted.
func (r *Registers) Get(id ID) (Record, bool) {
	rec, ok := r.records[id]
	return rec, ok && rec.Value != nil
}

// List gives the records of a class that are not deleted, by key.
func (r *Registers) List(class string) []Record {
	var out []Record
	for id, rec := range r.records {
		if id.Class == class && rec.Value != nil {
			out = append(out, rec)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// expire forgets tombstones that are older than their life.
func (r *Registers) expire(now time.Time) int {
	n := 0
	for id, rec := range r.records {
		if rec.Value == nil && now.Sub(rec.Time.Time()) > tombstoneLife {
			r.drop(id)
			n++
		}
	}
	return n
}
