package gossip

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// What a message is, its first byte. A new meaning gets a new number: an older node refuses what it
// does not know and says so, it never guesses.
const (
	// broadcast; who learns from one passes it on
	msgDelta byte = iota + 1 // a change of a book
	msgWrite                 // a write to a register
	msgNews                  // that there is such a change or write, too large for a packet

	// between two nodes
	msgSummary  // hashes of all that the sender has
	msgVector   // hashes of all parts
	msgHeads    // what the sender has, of some parts
	msgWant     // a request
	msgContents // buckets of a book
	msgRecords  // registers

	msgQuestion // see ask.go
	msgAnswer
)

// summary tells in a few bytes whether two nodes hold the same.
type summary struct {
	_         struct{} `cbor:",toarray"`
	Books     uint64
	Registers uint64
}

// vector tells in which parts they differ.
type vector struct {
	_         struct{} `cbor:",toarray"`
	Books     []uint64
	Registers []uint64
	Answer    bool // the sender was sent a vector already
}

// heads is what the sender has of some parts of its state.
type heads struct {
	_         struct{} `cbor:",toarray"`
	Books     []bookHead
	Registers []recordHead
}

type bookHead struct {
	_       struct{} `cbor:",toarray"`
	Owner   string
	Kind    Kind
	Version Version
}

type recordHead struct {
	_     struct{} `cbor:",toarray"`
	Class string
	Key   string
	Rank  uint64
	Time  Timestamp
	Node  string
}

// want asks for what the sender lacks.
type want struct {
	_         struct{} `cbor:",toarray"`
	Books     []wantBook
	Registers []ID
}

type wantBook struct {
	_      struct{} `cbor:",toarray"`
	Owner  string
	Kind   Kind
	Have   Version
	Hashes []uint64 // of the buckets that the sender has; empty: it has none
}

// Limits of what is taken from the network.
const (
	maxName       = 253       // of a node (RFC 1123)
	maxKey        = 512       // of an entry or record
	maxValue      = 64 << 10  // of an entry
	maxRecord     = 4 << 20   // of a record's value
	maxBook       = 100_000   // entries of one book
	maxBookBytes  = 12 << 20  // keys and values of one book: it must fit into a message
	maxBooksBytes = 256 << 20 // of all other nodes' books: 100,000 endpoints are some 30 MiB
	maxMessage    = 16 << 20  // memberlist takes 20 MiB of one stream
	recordsAtOnce = 256 << 10 // bytes of records in one message
)

var encoder = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

var decoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxArrayElements: maxBook, MaxMapPairs: 64, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// encode makes a message of one of the types above. All of them can be encoded.
func encode(kind byte, body any) []byte {
	b, err := encoder.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("gossip: encode %T: %v", body, err))
	}
	return append([]byte{kind}, b...)
}

var errMalformed = errors.New("malformed")

// decode reads a message's body and holds it to the limits. Errors wrap errMalformed.
func decode[T any, P interface {
	*T
	check() error
}](raw []byte) (*T, error) {
	if len(raw) > maxMessage {
		return nil, fmt.Errorf("%T of %d bytes, at most %d: %w", *new(T), len(raw), maxMessage, errMalformed)
	}
	out := new(T)
	if err := decoder.Unmarshal(raw[1:], out); err != nil {
		return nil, fmt.Errorf("%T: %w: %w", *out, errMalformed, err)
	}
	if err := P(out).check(); err != nil {
		return nil, fmt.Errorf("%T: %w: %w", *out, errMalformed, err)
	}
	return out, nil
}

func (s *summary) check() error { return nil }

func (v *vector) check() error {
	if len(v.Books) != parts || len(v.Registers) != parts {
		return fmt.Errorf("%d and %d parts, want %d", len(v.Books), len(v.Registers), parts)
	}
	return nil
}

func (h *heads) check() error {
	var errs []error
	for i := range h.Books {
		errs = append(errs, checkBook(h.Books[i].Owner, h.Books[i].Kind))
	}
	for i := range h.Registers {
		errs = append(errs, checkText("key", h.Registers[i].Key, maxKey), checkText("class", h.Registers[i].Class, maxName), checkText("node", h.Registers[i].Node, maxName))
	}
	return errors.Join(errs...)
}

func (w *want) check() error {
	var errs []error
	for i := range w.Books {
		errs = append(errs, checkBook(w.Books[i].Owner, w.Books[i].Kind))
		if n := len(w.Books[i].Hashes); n != 0 && n != buckets {
			errs = append(errs, fmt.Errorf("%d buckets, want %d", n, buckets))
		}
	}
	return errors.Join(errs...)
}

func (d *Delta) check() error { return errors.Join(d.Head.check(), checkEntries(d.Entries)) }

func (c *Contents) check() error { return errors.Join(c.Head.check(), checkEntries(c.Entries)) }

func (h *Head) check() error {
	if h.Count > maxBook {
		return fmt.Errorf("a book of %d entries, at most %d", h.Count, maxBook)
	}
	return checkBook(h.Owner, h.Kind)
}

func checkBook(owner string, kind Kind) error {
	if kind != Endpoints && kind != Edges {
		return fmt.Errorf("no such kind of book: %d", kind)
	}
	return checkText("node", owner, maxName)
}

func checkText(what, text string, limit int) error {
	if text == "" || len(text) > limit {
		return fmt.Errorf("a %s of %d bytes, want 1 to %d", what, len(text), limit)
	}
	return nil
}

func checkEntries(entries []Entry) error {
	for i := range entries {
		if err := checkText("key", entries[i].Key, maxKey); err != nil {
			return err
		}
		if n := len(entries[i].Value); n > maxValue {
			return fmt.Errorf("entry %q of %d bytes, at most %d", entries[i].Key, n, maxValue)
		}
	}
	return nil
}

// records is the body of msgRecords.
type records struct {
	_    struct{} `cbor:",toarray"`
	List []Record
}

func (r *records) check() error {
	for i := range r.List {
		x := &r.List[i]
		if err := errors.Join(checkText("class", x.Class, maxName), checkText("key", x.Key, maxKey), checkText("node", x.Node, maxName)); err != nil {
			return err
		}
		if len(x.Value) > maxRecord {
			return fmt.Errorf("%s %q of %d bytes, at most %d", x.Class, x.Key, len(x.Value), maxRecord)
		}
	}
	return nil
}
