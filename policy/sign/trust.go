package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Trust is whose signatures are believed. The zero value believes nobody's.
type Trust struct{ keys map[string]ed25519.PublicKey } // by fingerprint

// NewTrust reads public keys, base64 of 32 bytes each, as `bulkhead policy keygen` prints them. Errors
// name the key by its place in the list.
func NewTrust(list []string) (Trust, error) {
	var keys []ed25519.PublicKey
	for i, text := range list {
		key, err := ParsePublic(text)
		if err != nil {
			return Trust{}, fmt.Errorf("trust: key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return TrustIn(keys...), nil
}

// TrustIn believes the holders of these keys.
func TrustIn(keys ...ed25519.PublicKey) Trust {
	t := Trust{keys: map[string]ed25519.PublicKey{}}
	for _, key := range keys {
		t.keys[Fingerprint(key)] = key
	}
	return t
}

// ParsePublic reads a public key.
func ParsePublic(text string) (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("not an ed25519 public key: want %d bytes in base64, as bulkhead policy keygen prints it", ed25519.PublicKeySize)
	}
	return raw, nil
}

// FormatPublic writes a public key.
func FormatPublic(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// Fingerprint names a key in 16 letters: the first eight bytes of its SHA-256, in hex.
func Fingerprint(key ed25519.PublicKey) string {
	h := sha256.Sum256(key)
	return hex.EncodeToString(h[:8])
}

// Empty says that nobody is trusted: nothing is verified then.
func (t Trust) Empty() bool { return len(t.keys) == 0 }

// Hash is of all keys; nodes whose hashes differ judge differently.
func (t Trust) Hash() []byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(t.keys)) {
		h.Write(t.keys[name])
	}
	return h.Sum(nil)[:8]
}

// Verify says who signed a document, and when. Errors: [ErrUnsigned], [ErrUntrusted], [ErrForged], or
// it cannot be read.
func (t Trust) Verify(text []byte) (Signature, error) {
	d, err := Open(text)
	if err != nil {
		return Signature{}, err
	}
	return t.VerifyDocument(d)
}

// VerifyDocument is Verify for a document that is read already.
func (t Trust) VerifyDocument(d *Document) (Signature, error) {
	s, err := d.Signature()
	if err != nil {
		return Signature{}, err
	}
	key, trusted := t.keys[s.Key]
	if !trusted {
		return s, fmt.Errorf("key %.16q: %w", s.Key, ErrUntrusted)
	}
	return s, d.verify(s, key)
}

func (d *Document) verify(s Signature, key ed25519.PublicKey) error {
	b, err := d.signed(s.At)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, b, s.bytes) {
		return fmt.Errorf("key %s, %s: %w", s.Key, s.At.Format(timeShape), ErrForged)
	}
	return nil
}
