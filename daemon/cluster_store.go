package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// bucketCluster holds what a restart must not lose of the cluster.
var bucketCluster = []byte("cluster")

// keySnapshot is what package gossip wrote down of its state, behind its SHA-256.
var keySnapshot = []byte("snapshot")

var errDamaged = errors.New("is damaged")

// PutSnapshot writes the cluster's state. The writes in covered are in it.
func (s *Store) PutSnapshot(data []byte, covered []gossip.Record) error {
	sum := sha256.Sum256(data)
	return s.update("cluster state", func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketCluster)
		if err != nil {
			return err
		}
		if err := unsay(tx, covered); err != nil {
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

// bucketSaid holds writes to registers that no stored snapshot is sure to have: "class\x00key" → record.
var bucketSaid = []byte("said")

func saidKey(id gossip.ID) []byte { return []byte(id.Class + "\x00" + id.Key) }

func putSaid(tx *bbolt.Tx, c *Change) error {
	if len(c.Said) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists(bucketSaid)
	if err != nil {
		return err
	}
	for _, rec := range c.Said {
		if err := putJSON(b, string(saidKey(rec.ID())), rec); err != nil {
			return err
		}
	}
	return nil
}

// Said gives the writes to registers that a crash may have kept from the cluster's state.
func (s *Store) Said() ([]gossip.Record, error) {
	var out []gossip.Record
	none := false
	if err := s.db.View(func(tx *bbolt.Tx) error { none = tx.Bucket(bucketSaid) == nil; return nil }); err != nil || none {
		return out, err
	}
	err := eachJSON(s.db, bucketSaid, func(_ string, rec gossip.Record) { out = append(out, rec) })
	return out, err
}

// unsay forgets writes that are in the snapshot.
func unsay(tx *bbolt.Tx, covered []gossip.Record) error {
	b := tx.Bucket(bucketSaid)
	if b == nil {
		return nil
	}
	for _, rec := range covered {
		raw := b.Get(saidKey(rec.ID()))
		var now gossip.Record
		if raw == nil || json.Unmarshal(raw, &now) == nil && now.Time != rec.Time {
			continue // written again meanwhile
		}
		if err := b.Delete(saidKey(rec.ID())); err != nil {
			return err
		}
	}
	return nil
}
