package daemon

import (
	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/flow"
)

// bucketNames holds what workloads learned from DNS answers: id → StoredNames.
var bucketNames = []byte("names")

// StoredNames is what one workload learned. It belongs to a namespace: a container that comes again
// under the same id has asked for nothing yet.
type StoredNames struct {
	Cookie uint64           `json:"cookie"`
	Names  []flow.KnownName `json:"names"`
}

// PutNames writes what workloads learned, and forgets those without a name.
func (s *Store) PutNames(by map[string]StoredNames) error {
	if len(by) == 0 {
		return nil
	}
	return s.update("names", func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketNames)
		if err != nil {
			return err
		}
		for id, n := range by {
			if len(n.Names) == 0 {
				err = b.Delete([]byte(id))
			} else {
				err = putJSON(b, id, n)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Names gives what PutNames wrote, by workload.
func (s *Store) Names() (map[string]StoredNames, error) {
	out := map[string]StoredNames{}
	none := false
	if err := s.db.View(func(tx *bbolt.Tx) error { none = tx.Bucket(bucketNames) == nil; return nil }); err != nil || none {
		return out, err
	}
	err := eachJSON(s.db, bucketNames, func(id string, n StoredNames) { out[id] = n })
	return out, err
}

// restoreNames gives a workload back what it learned under a former daemon.
func (w *workload) restoreNames(n StoredNames) {
	if n.Cookie == w.cookie {
		w.names.Restore(n.Names, w.d.now())
	}
	w.names.stored = w.names.Version()
}

// storeNames writes the names of workloads that learned something.
func (d *Daemon) storeNames() error {
	by := map[string]StoredNames{}
	versions := map[*workload]uint64{}
	for _, w := range d.local() {
		version := w.names.Version()
		w.names.mu.Lock()
		changed := version != w.names.stored
		w.names.mu.Unlock()
		if changed {
			by[w.id], versions[w] = StoredNames{w.cookie, w.names.Known(true)}, version
		}
	}
	if err := d.store.PutNames(by); err != nil {
		return err
	}
	for w, version := range versions {
		w.names.mu.Lock()
		w.names.stored = version
		w.names.mu.Unlock()
	}
	return nil
}
