package daemon

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// maxGenerations bounds the history. The oldest go first.
	maxGenerations = 100
	// maxHistory bounds the bytes of the history with its texts: where 100 generations have more, fewer
	// are kept. The newest always is.
	maxHistory = 64 << 20
)

// Hash is the SHA-256 of a policy's text without the blanks around it.
type Hash [sha256.Size]byte

func hashOf(text string) Hash { return sha256.Sum256([]byte(strings.TrimSpace(text))) }

func (h Hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

func (h *Hash) UnmarshalText(b []byte) error {
	n, err := hex.Decode(h[:], b)
	if err == nil && n != len(h) {
		err = fmt.Errorf("hash of %d bytes, want %d", n, len(h))
	}
	return err
}

// StoredGeneration is one change that took force. What it replaced stands in it, so that the state
// after any generation is the present one with the later generations taken back, newest first:
// a generation costs what it changes, however many policies there are.
type StoredGeneration struct {
	Number  uint64    `json:"number"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	UID     *uint32   `json:"uid,omitempty"`
	PID     int32     `json:"pid,omitempty"`
	Cause   string    `json:"cause"`
	Message string    `json:"message,omitempty"`
	State   string    `json:"state,omitempty"`
	Files   []string  `json:"files,omitempty"`

	Changes []StoredChange     `json:"changes,omitempty"`
	Modes   []StoredModeChange `json:"modes,omitempty"`
}

// The states of a generation that somebody had to confirm.
const (
	statePending    = "pending"
	stateConfirmed  = "confirmed"
	stateRolledBack = "rolled back"
)

// StoredChange is one policy before and after a generation; nil is none.
type StoredChange struct {
	Slot   string       `json:"slot"`
	Before *StoredState `json:"before,omitempty"`
	After  *StoredState `json:"after,omitempty"`
}

// StoredState is a policy as it was. Texts of the watched folder's files are not kept: only the file
// brings one back.
type StoredState struct {
	Text Hash   `json:"text"`
	From string `json:"from"`           // sourceAPI, or the file of the watched folder
	File string `json:"file,omitempty"` // for messages
}

// StoredModeChange is a service's own mode before and after a generation; nil is none. The service
// "*" is the mode of those that have none.
type StoredModeChange struct {
	Service string       `json:"service"`
	Before  *policy.Mode `json:"before,omitempty"`
	After   *policy.Mode `json:"after,omitempty"`
}

// kept lists the texts that a generation keeps alive.
func (g *StoredGeneration) kept() []Hash {
	var out []Hash
	for _, c := range g.Changes {
		if c.Before != nil && c.Before.From == sourceAPI {
			out = append(out, c.Before.Text)
		}
	}
	return out
}

// history is the buckets of the history within one transaction.
type history struct {
	tx                *bbolt.Tx
	list, texts, uses *bbolt.Bucket
	bytes             uint64
}

func openHistory(tx *bbolt.Tx) *history {
	h := &history{tx: tx, list: tx.Bucket(bucketHistory), texts: tx.Bucket(bucketTexts), uses: tx.Bucket(bucketTextUses)}
	h.bytes = number(tx.Bucket(bucketMeta).Get(keyHistoryBytes))
	return h
}

func number(raw []byte) uint64 {
	if len(raw) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(raw)
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// putGeneration adds to the history, settles former generations, and lets go of the oldest.
func putGeneration(tx *bbolt.Tx, c *Change) error {
	if c.Generation == nil && len(c.Settled) == 0 {
		return nil
	}
	h := openHistory(tx)
	for n, state := range c.Settled {
		if err := h.settle(n, state); err != nil {
			return err
		}
	}
	if g := c.Generation; g != nil {
		for _, hash := range g.kept() {
			if err := h.use(hash, c.Texts[hash]); err != nil {
				return err
			}
		}
		if err := h.put(g); err != nil {
			return err
		}
		if err := h.prune(g.Number); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyHistoryBytes, numberKey(h.bytes))
}

func (h *history) put(g *StoredGeneration) error {
	raw, err := json.Marshal(g)
	if err != nil {
		return err
	}
	key := numberKey(g.Number)
	h.bytes -= min(h.bytes, uint64(len(h.list.Get(key))))
	h.bytes += uint64(len(raw))
	return h.list.Put(key, raw)
}

// settle notes in which state a generation is. One that is not kept any more does not matter.
func (h *history) settle(n uint64, state string) error {
	raw := h.list.Get(numberKey(n))
	if raw == nil {
		return nil
	}
	var g StoredGeneration
	if err := json.Unmarshal(raw, &g); err != nil {
		return nil //nolint:nilerr // a record that does not decode keeps nobody from going on
	}
	g.State = state
	return h.put(&g)
}

// use counts one more change that names a text.
func (h *history) use(hash Hash, text string) error {
	if h.texts.Get(hash[:]) == nil {
		if err := h.texts.Put(hash[:], []byte(text)); err != nil {
			return err
		}
		h.bytes += uint64(len(text))
	}
	return h.uses.Put(hash[:], numberKey(number(h.uses.Get(hash[:]))+1))
}

// unuse counts one less, and lets go of a text that nobody names.
func (h *history) unuse(hash Hash) error {
	if n := number(h.uses.Get(hash[:])); n > 1 {
		return h.uses.Put(hash[:], numberKey(n-1))
	}
	h.bytes -= min(h.bytes, uint64(len(h.texts.Get(hash[:]))))
	if err := h.uses.Delete(hash[:]); err != nil {
		return err
	}
	return h.texts.Delete(hash[:])
}

// prune lets go of the oldest generations beyond the bounds, never of the newest, nor of one that may
// have to be undone.
func (h *history) prune(newest uint64) error {
	var pending StoredPending
	if raw := h.tx.Bucket(bucketMeta).Get(keyPending); raw != nil {
		if err := json.Unmarshal(raw, &pending); err != nil {
			return err
		}
	}
	for {
		key, raw := h.list.Cursor().First()
		oldest := number(key)
		if key == nil || oldest >= newest || oldest == pending.Generation || oldest+maxGenerations > newest && h.bytes <= maxHistory {
			return nil
		}
		var g StoredGeneration
		if err := json.Unmarshal(raw, &g); err == nil {
			for _, hash := range g.kept() {
				if err := h.unuse(hash); err != nil {
					return err
				}
			}
		}
		h.bytes -= min(h.bytes, uint64(len(raw)))
		if err := h.list.Delete(numberKey(oldest)); err != nil {
			return err
		}
	}
}

// Generations calls f for the generations, newest first, until it returns false. A record that does
// not decode ends it with an error: what is older cannot be reached without it.
func (s *Store) Generations(f func(StoredGeneration) bool) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketHistory).Cursor()
		for k, raw := c.Last(); k != nil; k, raw = c.Prev() {
			var g StoredGeneration
			if err := json.Unmarshal(raw, &g); err != nil {
				return fmt.Errorf("history, generation %d: %w", number(k), err)
			}
			if !f(g) {
				return nil
			}
		}
		return nil
	})
}

// Texts gives the texts of these hashes; one that is not there is an error.
func (s *Store) Texts(hashes []Hash) (map[Hash]string, error) {
	out := map[Hash]string{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketTexts)
		for _, h := range hashes {
			raw := b.Get(h[:])
			if raw == nil {
				return fmt.Errorf("history: text %x is not there", h[:6])
			}
			out[h] = string(raw)
		}
		return nil
	})
	return out, err
}

// Pending gives the change that waits for confirmation, or nil.
func (s *Store) Pending() (*StoredPending, error) {
	var out *StoredPending
	err := s.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketMeta).Get(keyPending)
		if raw == nil {
			return nil
		}
		out = &StoredPending{}
		return json.Unmarshal(raw, out)
	})
	return out, err
}

// LastGeneration is the number of the newest generation, 0 where there was none, and when it took
// force, if that can be read.
func (s *Store) LastGeneration() (n uint64, at time.Time, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		k, raw := tx.Bucket(bucketHistory).Cursor().Last()
		var g StoredGeneration
		if n = number(k); n != 0 && json.Unmarshal(raw, &g) == nil {
			at = g.Time
		}
		return nil
	})
	return n, at, err
}

// PutLooked notes until when rules that ended were told of.
func (s *Store) PutLooked(at time.Time) error {
	return s.update("time of the last look", func(tx *bbolt.Tx) error {
		raw, err := at.MarshalText()
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyLooked, raw)
	})
}

// Looked gives what PutLooked wrote; the zero time: nothing.
func (s *Store) Looked() (at time.Time, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketMeta).Get(keyLooked)
		if raw == nil {
			return nil
		}
		return at.UnmarshalText(raw)
	})
	return at, err
}

// Evidence gives what shadows have seen, by slot.store.
func (s *Store) Evidence() (map[string]StoredEvidence, error) {
	out := map[string]StoredEvidence{}
	err := eachJSON(s.db, bucketEvidence, func(key string, e StoredEvidence) { out[key] = e })
	return out, err
}
