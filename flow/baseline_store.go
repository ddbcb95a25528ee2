package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Dirty returns the known edges that changed since it was last called, sorted. Nothing is ever taken
// out of a baseline.
func (b *Baseline) Dirty() []Known {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Known, 0, len(b.dirty))
	for k := range b.dirty {
		out = append(out, *b.known[k])
	}
	clear(b.dirty)
	slices.SortFunc(out, func(a, b Known) int { return a.Key.Compare(b.Key) })
	return out
}

// Redo marks what Dirty returned as not yet stored.
func (b *Baseline) Redo(list []Known) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range list {
		if b.known[e.Key] != nil {
			b.dirty[e.Key] = struct{}{}
		}
	}
}

// Restore brings stored edges back. Locks are not among them: they follow from each service's mode.
func (b *Baseline) Restore(list []Known) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range list {
		b.takeLocked(e.Key, e.How, e.At, e.ByClient, e.ByServer)
		delete(b.dirty, e.Key)
	}
}

// knownJSON is a Known on disk.
type knownJSON struct {
	keyJSON
	How      How       `json:"how"`
	At       time.Time `json:"at"`
	ByClient bool      `json:"byClient"`
	ByServer bool      `json:"byServer"`
}

// EncodeKnown gives the bytes to store for a known edge under Key.ID.
func EncodeKnown(e Known) ([]byte, error) {
	return json.Marshal(knownJSON{e.Key.json(), e.How, e.At, e.ByClient, e.ByServer})
}

// DecodeKnown is the reverse of EncodeKnown.
func DecodeKnown(data []byte) (Known, error) {
	var j knownJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return Known{}, fmt.Errorf("stored baseline: %w", err)
	}
	k, err := j.key()
	if err != nil {
		return Known{}, fmt.Errorf("stored baseline: %w", err)
	}
	return Known{k, j.How, j.At, j.ByClient, j.ByServer}, nil
}
