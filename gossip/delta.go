package gossip

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Delta is what changed in a book after From, up to its head's version: what is broadcast. An entry
// without a value was deleted.
type Delta struct {
	_       struct{} `cbor:",toarray"`
	Head    Head
	From    uint64
	Entries []Entry
}

// Contents is some buckets of a book as they are at its head's version: what is fetched.
type Contents struct {
	_       struct{} `cbor:",toarray"`
	Head    Head
	Buckets uint16 // bit i: bucket i is in Entries, whole
	Entries []Entry
}

// delta gives the last changes, those since a time and the very last, as many of them as fit into limit
// bytes; nil: not even the last one.
func (b *Book) delta(limit int, since time.Time) *Delta {
	d := &Delta{Head: b.head, From: b.head.Version.Seq}
	size := headSize + len(b.head.Owner)
	seen := map[string]bool{}
	for i := len(b.recent) - 1; i >= 0; i-- {
		c := b.recent[i]
		if c.seq != b.head.Version.Seq && c.at.Before(since) {
			break
		}
		if !seen[c.key] {
			value, _ := b.Get(c.key)
			if size += len(c.key) + len(value) + entryOverhead; size > limit {
				break
			}
			seen[c.key] = true
			d.Entries = append(d.Entries, Entry{Key: c.key, Value: value})
		}
		// All changes of a number, or none.
		if i == 0 || b.recent[i-1].seq != c.seq {
			d.From = c.seq - 1
		}
	}
	// What belongs to a number that did not fit whole does no harm: values are the newest.
	if d.From == b.head.Version.Seq {
		return nil
	}
	return d
}

// Upper bounds of what CBOR adds.
const (
	headSize      = 160
	entryOverhead = 8
)

// contents gives the buckets.
func (b *Book) contents(want bucketSet) *Contents {
	c := &Contents{Head: b.head, Buckets: uint16(want)}
	for i, list := range b.entries {
		if want.has(i) {
			c.Entries = append(c.Entries, list...)
		}
	}
	return c
}

// apply brings a copy of another node's book to the delta's version. Errors: [ErrStale], [ErrGap],
// [ErrForged] (the signature, or the entries are not what it was given for); the book is then as it was.
func (b *Book) apply(d *Delta, key ed25519.PublicKey) ([]Entry, error) {
	have, to := b.head.Version, d.Head.Version
	switch {
	case !have.Before(to):
		return nil, ErrStale
	case have.Epoch != to.Epoch || have.Seq < d.From:
		return nil, ErrGap
	}
	if err := d.Head.verify(key); err != nil {
		return nil, err
	}
	next := b.copyFor(touchedBy(d.Entries))
	for _, e := range d.Entries {
		next.put(e.Key, e.Value)
	}
	return b.take(next, &d.Head, touchedBy(d.Entries), ErrForged)
}

// replace brings a copy of another node's book to the contents' version: these buckets are replaced,
// the others must be so already. Errors: as of apply.
func (b *Book) replace(c *Contents, key ed25519.PublicKey) ([]Entry, error) {
	if !b.head.Version.Before(c.Head.Version) {
		return nil, ErrStale
	}
	if err := c.Head.verify(key); err != nil {
		return nil, err
	}
	fresh := bucketSet(c.Buckets)
	next := b.copyFor(0)
	for i := range next.entries {
		if fresh.has(i) {
			next.head.Count -= uint32(len(next.entries[i]))
			for _, e := range next.entries[i] {
				next.bytes -= len(e.Key) + len(e.Value)
			}
			next.entries[i] = nil
		}
	}
	for _, e := range c.Entries {
		if !fresh.has(bucketOf(e.Key)) || e.Value == nil {
			return nil, fmt.Errorf("%s of node %q: entry %q does not belong to the buckets sent: %w", c.Head.Kind, c.Head.Owner, e.Key, ErrForged)
		}
		next.put(e.Key, e.Value)
	}
	// The buckets that were not sent may have been others when they were asked for.
	otherwise := ErrGap
	if fresh == allBuckets {
		otherwise = ErrForged
	}
	return b.take(next, &c.Head, fresh, otherwise)
}

func touchedBy(entries []Entry) (s bucketSet) {
	for _, e := range entries {
		s.addKey(e.Key)
	}
	return s
}

// copyFor shares all buckets but those that will be written to.
func (b *Book) copyFor(write bucketSet) *Book {
	next := &Book{head: b.head, entries: b.entries, hashes: b.hashes, bytes: b.bytes}
	for i := range next.entries {
		if write.has(i) {
			next.entries[i] = slices.Clone(next.entries[i])
		}
	}
	return next
}

// take makes next the book if it is what head was signed for, and says what changed; if it is not, the
// error wraps otherwise.
func (b *Book) take(next *Book, head *Head, touched bucketSet, otherwise error) ([]Entry, error) {
	next.rehash(touched)
	if next.head.Root != head.Root || next.head.Count != head.Count {
		return nil, fmt.Errorf("%s of node %q at %d/%d: entries are not those that the node signed: %w",
			head.Kind, head.Owner, head.Version.Epoch, head.Version.Seq, otherwise)
	}
	var changed []Entry
	for i := range next.entries {
		if touched.has(i) {
			changed = append(changed, differences(b.entries[i], next.entries[i])...)
		}
	}
	for i := range next.entries {
		if touched.has(i) {
			next.entries[i] = slices.Clone(next.entries[i]) // without the room that it grew by
		}
	}
	next.head = *head
	*b = *next
	return changed, nil
}

// differences lists what to do to make was into is; both are sorted.
func differences(was, is []Entry) []Entry {
	var out []Entry
	for len(was) > 0 || len(is) > 0 {
		switch c := compareFirst(was, is); {
		case c < 0:
			out = append(out, Entry{Key: was[0].Key})
			was = was[1:]
		case c > 0:
			out = append(out, is[0])
			is = is[1:]
		default:
			if !bytes.Equal(was[0].Value, is[0].Value) {
				out = append(out, is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
	return out
}

// compareFirst compares the first keys; a list that has ended is greater.
func compareFirst(a, b []Entry) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return strings.Compare(a[0].Key, b[0].Key)
}
