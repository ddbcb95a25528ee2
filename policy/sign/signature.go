package sign

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Signature is what the annotation holds: "v1,KEY,TIME,SIGNATURE".
type Signature struct {
	Key     string    // fingerprint of the signer's key
	At      time.Time // when it was signed, to the millisecond: the later of two versions holds
	Cluster string    // the only cluster that it is for; empty: any
	bytes   []byte
}

const (
	format    = "v1"
	timeShape = "2006-01-02T15:04:05.000Z07:00"
)

// Errors of a document whose signature is wanted.
var (
	ErrUnsigned  = errors.New("not signed")
	ErrUntrusted = errors.New("signed with a key that is not trusted")
	ErrForged    = errors.New("not what was signed: it was changed since, or the signature is another document's")
)

// Serial orders the versions of one document.
func (s Signature) Serial() uint64 { return uint64(max(s.At.UnixMilli(), 0)) }

func (s Signature) String() string {
	return strings.Join([]string{format, s.Key, s.At.UTC().Format(timeShape), base64.RawURLEncoding.EncodeToString(s.bytes)}, ",")
}

// Signature reads the document's annotation, and judges nothing. Errors: [ErrUnsigned], [ErrForged].
func (d *Document) Signature() (Signature, error) {
	text := d.note(Annotation)
	if text == "" {
		return Signature{}, ErrUnsigned
	}
	parts := strings.Split(text, ",")
	if len(parts) != 4 || parts[0] != format {
		return Signature{}, fmt.Errorf("annotation %s: want %s,KEY,TIME,SIGNATURE: %w", Annotation, format, ErrForged)
	}
	at, err := time.Parse(timeShape, parts[2])
	// Another way to write the same time would be another serial for what was signed once.
	if err != nil || at.UTC().Format(timeShape) != parts[2] {
		return Signature{}, fmt.Errorf("annotation %s: time %q: want %s: %w", Annotation, parts[2], timeShape, ErrForged)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[3])
	if err != nil || len(raw) != ed25519.SignatureSize {
		return Signature{}, fmt.Errorf("annotation %s: not a signature of %d bytes in base64: %w", Annotation, ed25519.SignatureSize, ErrForged)
	}
	return Signature{Key: parts[1], At: at.UTC(), Cluster: d.note(ClusterAnnotation), bytes: raw}, nil
}

// signed is what the signature is over.
func (d *Document) signed(at time.Time) ([]byte, error) {
	text, err := d.canonical()
	if err != nil {
		return nil, err
	}
	b := []byte("bulkhead document 1\x00")
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMilli()))
	return append(b, text...), nil
}

// Read tells of a document's signature without judging it. Errors: [ErrUnsigned], or the document or
// its annotation cannot be read.
func Read(text []byte) (Signature, error) {
	d, err := Open(text)
	if err != nil {
		return Signature{}, err
	}
	return d.Signature()
}
