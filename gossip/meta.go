package gossip

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/fxamacker/cbor/v2"
)

// meta is what a node tells all others of itself, in its own hand: memberlist passes it on by whoever
// heard it. A later version may add fields; numbers are never used again.
type meta struct {
	Key     []byte  `cbor:"1,keyasint"`           // the node's public key
	Leaving bool    `cbor:"2,keyasint,omitempty"` // its last word
	Last    Version `cbor:"3,keyasint,omitempty"` // with Leaving: of its endpoints, so that an old goodbye is known
	Version string  `cbor:"4,keyasint,omitempty"` // of the program
	Trust   []byte  `cbor:"5,keyasint,omitempty"` // a hash of whose policies it trusts: see [Config.Trust]
	Can     uint64  `cbor:"6,keyasint,omitempty"` // what it can beside its protocol version; bits that nobody knows mean nothing
}

// signedBody is how it travels.
type signedBody struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sign []byte // ed25519 over name and body
}

var errImpostor = errors.New("not the key that the node is known by")

// maxProgram bounds a program's version, in bytes: memberlist takes 512 for all that a node says.
const maxProgram = 64

// lenient reads what a later version may have added to.
var lenient = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 64}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func signedMeta(node string, body []byte) []byte {
	return append([]byte("bulkhead member 1\x00"+node+"\x00"), body...)
}

// sealMeta writes and signs it, in at most limit bytes.
func sealMeta(node string, m meta, key ed25519.PrivateKey, limit int) []byte {
	m.Version = m.Version[:min(len(m.Version), maxProgram)]
	for {
		body, err := encoder.Marshal(&m)
		if err != nil {
			panic(fmt.Sprintf("gossip: encode %T: %v", m, err))
		}
		out, err := encoder.Marshal(&signedBody{Body: body, Sign: ed25519.Sign(key, signedMeta(node, body))})
		if err != nil {
			panic(fmt.Sprintf("gossip: encode %T: %v", m, err))
		}
		if len(out) <= limit || m.Version == "" {
			return out
		}
		m.Version = ""
	}
}

// readMeta reads what was verified before.
func readMeta(b []byte) (meta, error) {
	var s signedBody
	var m meta
	if err := lenient.Unmarshal(b, &s); err != nil {
		return m, fmt.Errorf("what it says of itself: %w: %w", errMalformed, err)
	}
	if err := lenient.Unmarshal(s.Body, &m); err != nil {
		return m, fmt.Errorf("what it says of itself: %w: %w", errMalformed, err)
	}
	if strings.ContainsFunc(m.Version, unicode.IsControl) {
		return m, fmt.Errorf("what it says of itself: version %q: %w", m.Version, errMalformed)
	}
	if len(m.Key) != ed25519.PublicKeySize || len(m.Trust) > 64 || len(m.Version) > maxProgram {
		return m, fmt.Errorf("what it says of itself: a key of %d bytes, trust of %d, version of %d: %w", len(m.Key), len(m.Trust), len(m.Version), errMalformed)
	}
	return m, nil
}

// openMeta reads what somebody says that a node says of itself.
func openMeta(node string, b []byte) (meta, error) {
	// Names are printed, in logs and on terminals.
	if len(node) > maxName || strings.ContainsFunc(node, unicode.IsControl) {
		return meta{}, fmt.Errorf("its name has %d bytes, or control characters; want 1 to %d: %w", len(node), maxName, errMalformed)
	}
	m, err := readMeta(b)
	if err != nil {
		return m, err
	}
	var s signedBody
	if err := lenient.Unmarshal(b, &s); err != nil || !ed25519.Verify(m.Key, signedMeta(node, s.Body), s.Sign) {
		return m, fmt.Errorf("what it says of itself is not in its own hand: %w", ErrForged)
	}
	return m, nil
}
