package daemon

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// bucketHits holds what rules were used for: slot.store → policyHits.
var bucketHits = []byte("hits")

// hitsEvery is how seldom counts are written: what a crash may lose of them.
const hitsEvery = 30 * time.Second

// PutHits writes the counts of policies, and forgets those without.
func (s *Store) PutHits(of map[policy.Key]*policyHits) error {
	if len(of) == 0 {
		return nil
	}
	return s.update("hits", func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketHits)
		if err != nil {
			return err
		}
		for key, p := range of {
			name := slot{Key: key}.store()
			if p == nil {
				err = b.Delete([]byte(name))
			} else {
				err = putJSON(b, name, p)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Hits gives what PutHits wrote.
func (s *Store) Hits() (map[policy.Key]policyHits, error) {
	out := map[policy.Key]policyHits{}
	none := false
	if err := s.db.View(func(tx *bbolt.Tx) error { none = tx.Bucket(bucketHits) == nil; return nil }); err != nil || none {
		return out, err
	}
	err := eachJSON(s.db, bucketHits, func(name string, p policyHits) {
		if at, err := parseSlot(name); err == nil {
			out[at.Key] = p
		}
	})
	return out, err
}

// storeHits writes the counts that changed, now and then, and when life ends.
func (d *Daemon) storeHits(life context.Context) error {
	h := &d.hits
	h.mu.Lock()
	if len(h.dirty) == 0 || d.now().Sub(h.stored) < hitsEvery && life.Err() == nil {
		h.mu.Unlock()
		return nil
	}
	of := make(map[policy.Key]*policyHits, len(h.dirty))
	for key := range h.dirty {
		of[key] = nil
		if p := h.of[key]; p != nil {
			c := *p
			c.Rules = append([]ruleHit(nil), p.Rules...)
			of[key] = &c
		}
	}
	h.dirty, h.stored = map[policy.Key]bool{}, d.now()
	h.mu.Unlock()
	err := d.store.PutHits(of)
	if err != nil {
		h.mu.Lock()
		for key := range of {
			h.dirty[key] = true
		}
		h.mu.Unlock()
	}
	return err
}
