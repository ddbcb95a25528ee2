package daemon

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// schema is the version of what the store's buckets hold. A store of a later version is refused,
// an earlier one is brought forward in one transaction (see migrate).
// 2 brought shadows, which an earlier program would enforce, and the history.
const schema = 2

// lockWait is how long Open waits for another daemon to let go of the store: longer than a clean
// stop of the former daemon takes, short enough for a person.
const lockWait = 2 * time.Second

// ErrStoreHeld says that another daemon works on the same state.
var ErrStoreHeld = errors.New("held by another daemon")

var (
	bucketMeta      = []byte("meta")      // see the keys below
	bucketWorkloads = []byte("workloads") // id → StoredWorkload
	bucketPolicies  = []byte("policies")  // slot.store → StoredPolicy, those of the API
	bucketModes     = []byte("modes")     // "namespace/name" of a service → mode
	bucketFiles     = []byte("files")     // folder, then path → last good text of a watched file
	bucketEdges     = []byte("edges")     // flow.Key.ID → edge
	bucketBaseline  = []byte("baseline")  // flow.Key.ID → known edge
	bucketHistory   = []byte("history")   // number as big-endian uint64 → StoredGeneration
	bucketTexts     = []byte("texts")     // SHA-256 of a text → the text of a policy that is no more, see history
	bucketTextUses  = []byte("textUses")  // SHA-256 of a text → how many changes of the history name it, uint64
	bucketEvidence  = []byte("evidence")  // slot.store of a shadow → StoredEvidence

	keySchema       = []byte("schema")
	keyDefaultMode  = []byte("defaultMode")
	keyPending      = []byte("pending")      // StoredPending, where a change waits for confirmation
	keyLooked       = []byte("looked")       // text: when expiries were last told of
	keyHistoryBytes = []byte("historyBytes") // uint64: values of history and texts together
)

// Store is the daemon's state on disk: one bbolt file, one process, one writer at a time. Every
// write is one transaction, on disk when the call returns; a failed one leaves what was there.
type Store struct {
	db *bbolt.DB

	mu     sync.Mutex
	failed error // of the last write; nil after one that worked
}

// OpenStore opens or creates the store in the folder. Errors: ErrStoreHeld, a schema from the
// future, or the file system's.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "state.db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w; stop it, or give this one another stateDir", file, ErrStoreHeld)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	s := &Store{db: db}
	if err := s.migrate(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", file, err), db.Close())
	}
	return s, nil
}

// migrate makes the buckets and brings the schema up to date. A store that is current is not
// written to, so that a full disk does not keep a daemon from starting.
func (s *Store) migrate() error {
	current := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil
		}
		raw := meta.Get(keySchema)
		if len(raw) != 8 {
			return fmt.Errorf("schema of %d bytes, want 8; the file is not ours", len(raw))
		}
		v := binary.BigEndian.Uint64(raw)
		if v > schema {
			return fmt.Errorf("schema %d, this program knows %d; use the newer bulkheadd", v, schema)
		}
		current = v == schema
		return nil
	})
	if err != nil || current {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketWorkloads, bucketPolicies, bucketModes, bucketFiles, bucketEdges, bucketBaseline,
			bucketHistory, bucketTexts, bucketTextUses, bucketEvidence} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
	})
}

// Close waits for the transaction under way and lets go of the file.
func (s *Store) Close() error { return s.db.Close() }

// update runs one write transaction. bbolt holds one writer at a time; the others wait.
func (s *Store) update(what string, f func(*bbolt.Tx) error) error {
	err := s.db.Update(f)
	if err != nil {
		err = fmt.Errorf("store %s in %s: %w; nothing was changed", what, s.db.Path(), err)
	}
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return err
}

// Healthy says whether the store can be written to. It asks the disk only when the last write
// failed.
func (s *Store) Healthy() error {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed == nil {
		return nil
	}
	return s.update("nothing, to try", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
	})
}

func putJSON(b *bbolt.Bucket, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), raw)
}

func decodeAll[T any](db *bbolt.DB, bucket []byte, decode func([]byte) (T, error)) ([]T, error) {
	var out []T
	var bad []error
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
			v, err := decode(raw)
			if err != nil {
				bad = append(bad, fmt.Errorf("%s %q: %w", bucket, k, err))
				return nil
			}
			out = append(out, v)
			return nil
		})
	})
	return out, errors.Join(append(bad, err)...)
}

func eachJSON[T any](db *bbolt.DB, bucket []byte, f func(key string, v T)) error {
	var bad []error
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
			var v T
			if err := json.Unmarshal(raw, &v); err != nil {
				bad = append(bad, fmt.Errorf("%s %q: %w", bucket, k, err))
				return nil
			}
			f(string(k), v)
			return nil
		})
	})
	return errors.Join(append(bad, err)...)
}
