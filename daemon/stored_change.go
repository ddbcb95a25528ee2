package daemon

import (
	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Change is what one call changes: policies, modes, and what the history says of it go together or
// not at all.
type Change struct {
	Put         map[string]StoredPolicy // by slot.store
	Delete      []string
	Modes       map[string]*policy.Mode // service → its own mode, nil: none any more
	DefaultMode **policy.Mode           // nil: as it is; else the mode of services without their own, or none set by the API
	Files       map[string][]byte       // nil: as they are; else the policies' folder, see PutFiles

	Generation *StoredGeneration // nil: nothing that the history should know
	Texts      map[Hash]string   // texts that Generation's changes name and the store may not have yet
	Settled    map[uint64]string // generation → the state that it is in now
	Pending    **StoredPending   // nil: as it is; else what waits for confirmation, or nothing
	Evidence   map[string]*StoredEvidence
	Said       []gossip.Record // what the cluster is to hear of it, see Said
}

func (c *Change) empty() bool {
	return len(c.Put)+len(c.Delete)+len(c.Modes)+len(c.Settled)+len(c.Evidence)+len(c.Said) == 0 && c.DefaultMode == nil && c.Files == nil &&
		c.Generation == nil && c.Pending == nil
}

// Commit writes a change in one transaction.
func (s *Store) Commit(c Change) error {
	if c.empty() {
		return nil
	}
	return s.update("policies", func(tx *bbolt.Tx) error {
		for _, step := range []func(*bbolt.Tx, *Change) error{putPolicies, putModes, putPending, putGeneration, putEvidence, putSaid} {
			if err := step(tx, &c); err != nil {
				return err
			}
		}
		if c.Files != nil {
			return putFiles(tx, folderPolicies, c.Files)
		}
		return nil
	})
}

func putPolicies(tx *bbolt.Tx, c *Change) error {
	b := tx.Bucket(bucketPolicies)
	for _, key := range c.Delete {
		if err := b.Delete([]byte(key)); err != nil {
			return err
		}
	}
	for key, p := range c.Put {
		if err := putJSON(b, key, p); err != nil {
			return err
		}
	}
	return nil
}

func putModes(tx *bbolt.Tx, c *Change) error {
	b := tx.Bucket(bucketModes)
	for service, mode := range c.Modes {
		if err := putMode(b, []byte(service), mode); err != nil {
			return err
		}
	}
	if c.DefaultMode == nil {
		return nil
	}
	return putMode(tx.Bucket(bucketMeta), keyDefaultMode, *c.DefaultMode)
}

func putMode(b *bbolt.Bucket, key []byte, mode *policy.Mode) error {
	if mode == nil {
		return b.Delete(key)
	}
	return b.Put(key, []byte(mode.String()))
}

func putPending(tx *bbolt.Tx, c *Change) error {
	meta := tx.Bucket(bucketMeta)
	switch {
	case c.Pending == nil:
		return nil
	case *c.Pending == nil:
		return meta.Delete(keyPending)
	}
	return putJSON(meta, string(keyPending), *c.Pending)
}

// putEvidence writes what shadows have seen; nil takes it away.
func putEvidence(tx *bbolt.Tx, c *Change) error {
	b := tx.Bucket(bucketEvidence)
	for key, e := range c.Evidence {
		var err error
		if e == nil {
			err = b.Delete([]byte(key))
		} else {
			err = putJSON(b, key, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
