package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// StoredWorkload is what a later daemon needs to take a workload over.
type StoredWorkload struct {
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Labels    identity.Labels `json:"labels,omitempty"` // of the request only; the inventory is read anew
	NetNS     string          `json:"netns"`

	// RuntimeLabels are what the container's runtime said; they count where the inventory says nothing.
	RuntimeLabels identity.Labels `json:"runtimeLabels,omitempty"`

	Cookie     uint64            `json:"cookie"`
	Interfaces []StoredInterface `json:"interfaces"`
	Resolvers  []netip.Addr      `json:"resolvers,omitempty"`
	Gateways   []netip.Addr      `json:"gateways,omitempty"`
	Since      time.Time         `json:"since"`
	StartSeen  bool              `json:"startSeen"`
}

// StoredInterface is one interface of a StoredWorkload.
type StoredInterface struct {
	Name      string       `json:"name"`
	Network   string       `json:"network,omitempty"` // the CNI network that brought it
	Host      string       `json:"host,omitempty"`
	HostIndex int          `json:"hostIndex,omitempty"`
	MAC       string       `json:"mac"`
	Addrs     []netip.Addr `json:"addrs"`
	Found     bool         `json:"found,omitempty"` // the host brought it and no ADD told of it
}

// StoredPolicy is one policy that came by the API. Whether it is a shadow its key says, not its text.
type StoredPolicy struct {
	File    string    `json:"file"` // for messages
	Text    string    `json:"text"`
	Applied time.Time `json:"applied"`

	// In a cluster: the write to its register, see package gossip.
	Time uint64 `json:"time,omitempty"`
	Node string `json:"node,omitempty"`
}

// PutWorkload writes or overwrites a workload.
func (s *Store) PutWorkload(w StoredWorkload) error {
	return s.update("workload "+w.ID, func(tx *bbolt.Tx) error {
		return putJSON(tx.Bucket(bucketWorkloads), w.ID, w)
	})
}

// DeleteWorkloads forgets workloads; ids that are not there are no error.
func (s *Store) DeleteWorkloads(ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	return s.update("forget workloads", func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(bucketWorkloads).Delete([]byte(id)); err != nil {
				return err
			}
			if b := tx.Bucket(bucketNames); b != nil {
				if err := b.Delete([]byte(id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Workloads gives every stored workload, sorted by id. One that does not decode costs itself only
// and is told of in the error.
func (s *Store) Workloads() ([]StoredWorkload, error) {
	var out []StoredWorkload
	err := eachJSON(s.db, bucketWorkloads, func(_ string, w StoredWorkload) { out = append(out, w) })
	return out, err
}

// The watched folders.
const (
	folderPolicies  = "policies"
	folderInventory = "inventory"
)

// PutFiles replaces what is remembered of a watched folder: the last good text of each file, by path.
func (s *Store) PutFiles(folder string, texts map[string][]byte) error {
	return s.update(folder+" files", func(tx *bbolt.Tx) error { return putFiles(tx, folder, texts) })
}

func putFiles(tx *bbolt.Tx, folder string, texts map[string][]byte) error {
	b, err := tx.Bucket(bucketFiles).CreateBucketIfNotExists([]byte(folder))
	if err != nil {
		return err
	}
	err = b.ForEach(func(k, _ []byte) error { // deleting while ForEach runs is not allowed
		if _, still := texts[string(k)]; !still {
			texts[string(k)] = nil
		}
		return nil
	})
	for path, text := range texts {
		switch {
		case err != nil:
			return err
		case text == nil:
			err = b.Delete([]byte(path))
		default:
			err = b.Put([]byte(path), text)
		}
	}
	return err
}

// Files gives what PutFiles wrote.
func (s *Store) Files(folder string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketFiles).Bucket([]byte(folder))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			out[string(k)] = append([]byte{}, v...)
			return nil
		})
	})
	return out, err
}

// Policies gives the policies of the API by key.
func (s *Store) Policies() (map[string]StoredPolicy, error) {
	out := map[string]StoredPolicy{}
	err := eachJSON(s.db, bucketPolicies, func(key string, p StoredPolicy) { out[key] = p })
	return out, err
}

// Modes gives each service's own mode, and the default if one was ever set by the API.
func (s *Store) Modes() (map[string]policy.Mode, *policy.Mode, error) {
	out := map[string]policy.Mode{}
	var standard *policy.Mode
	err := s.db.View(func(tx *bbolt.Tx) error {
		if raw := tx.Bucket(bucketMeta).Get(keyDefaultMode); raw != nil {
			mode, err := policy.ParseMode(string(raw))
			if err != nil {
				return fmt.Errorf("default mode: %w", err)
			}
			standard = &mode
		}
		return tx.Bucket(bucketModes).ForEach(func(k, v []byte) error {
			mode, err := policy.ParseMode(string(v))
			if err != nil {
				return fmt.Errorf("mode of %s: %w", k, err)
			}
			out[string(k)] = mode
			return nil
		})
	})
	return out, standard, err
}

// PutLearned writes what changed in graph and baseline.
func (s *Store) PutLearned(changed []flow.Edge, removed []flow.Key, known []flow.Known) error {
	if len(changed)+len(removed)+len(known) == 0 {
		return nil
	}
	return s.update("edges", func(tx *bbolt.Tx) error {
		edges, baseline := tx.Bucket(bucketEdges), tx.Bucket(bucketBaseline)
		for _, k := range removed {
			if err := edges.Delete([]byte(k.ID())); err != nil {
				return err
			}
		}
		for _, e := range changed {
			raw, err := flow.EncodeEdge(e)
			if err == nil {
				err = edges.Put([]byte(e.Key.ID()), raw)
			}
			if err != nil {
				return err
			}
		}
		for _, e := range known {
			raw, err := flow.EncodeKnown(e)
			if err == nil {
				err = baseline.Put([]byte(e.Key.ID()), raw)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Learned gives what PutLearned wrote. A record that does not decode costs itself only and is told
// of in the error.
func (s *Store) Learned() ([]flow.Edge, []flow.Known, error) {
	edges, err := decodeAll(s.db, bucketEdges, flow.DecodeEdge)
	known, knownErr := decodeAll(s.db, bucketBaseline, flow.DecodeKnown)
	return edges, known, errors.Join(err, knownErr)
}
