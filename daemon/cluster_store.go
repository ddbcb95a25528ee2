package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// bucketCluster holds what a restart must not lose of the cluster.
var bucketCluster = []byte("cluster")

// keySnapshot is what package gossip wrote down of its state, behind its SHA-256.
var keySnapshot = []byte("snapshot")

var errDamaged = errors.New("is damaged")

// PutSnapshot writes the cluster's state.
func (s *Store) PutSnapshot(data []byte) error {
	sum := sha256.Sum256(data)
	return s.update("cluster state", func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketCluster)
		if err != nil {
			return err
		}
		return b.Put(keySnapshot, append(sum[:], data...))
	})
}

// Snapshot gives what PutSnapshot wrote; nil: nothing. Errors wrap errDamaged where it is not that.
func (s *Store) Snapshot() ([]byte, error) {
	var out []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketCluster)
		if b == nil {
			return nil
		}
		raw := b.Get(keySnapshot)
		if raw == nil {
			return nil
		}
		if len(raw) < sha256.Size || [sha256.Size]byte(raw) != sha256.Sum256(raw[sha256.Size:]) {
			return fmt.Errorf("stored cluster state of %d bytes %w", len(raw), errDamaged)
		}
		out = append([]byte{}, raw[sha256.Size:]...)
		return nil
	})
	return out, err
}
