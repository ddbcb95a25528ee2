package gossip

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// A key is replaced in three steps, each on all nodes before the next, so that no message is lost:
// install (everybody can decrypt with it), use (everybody encrypts with it), remove the old one.

// Fingerprint names a key without telling it: the first eight bytes of its SHA-256, in hex.
func Fingerprint(key []byte) string {
	h := sha256.Sum256(key)
	return hex.EncodeToString(h[:8])
}

// KeyState is what one node answers about its keys.
type KeyState struct {
	Node    string   `json:"node"`
	Primary string   `json:"primary"` // fingerprint of the key that it encrypts with
	Keys    []string `json:"keys"`    // fingerprints of all that it decrypts with, sorted
	Error   string   `json:"error,omitempty"`
}

type keyOrder struct {
	_    struct{} `cbor:",toarray"`
	Do   string
	Key  []byte // install
	Name string // use, remove: its fingerprint
}

type keyReport struct {
	_       struct{} `cbor:",toarray"`
	Primary string
	Keys    []string
}

// ErrNotEncrypted says that the cluster was started without keys.
var ErrNotEncrypted = errors.New("gossip is not encrypted: start every node with a key first")

// Keys asks all members what keys they have, by node.
func (g *Cluster) Keys(ctx context.Context) ([]KeyState, error) {
	return g.orderKeys(ctx, keyOrder{Do: "list"})
}

// InstallKey gives all members a further key of 16, 24 or 32 bytes to decrypt with. Errors name the
// nodes that did not take it; say it again when they are back.
func (g *Cluster) InstallKey(ctx context.Context, key []byte) ([]KeyState, error) {
	if err := memberlist.ValidateKey(key); err != nil {
		return nil, fmt.Errorf("gossip: key of %d bytes: want 16, 24 or 32", len(key))
	}
	return g.orderKeys(ctx, keyOrder{Do: "install", Key: key})
}

// UseKey makes all members encrypt with the key of that fingerprint. Errors: it is refused while a
// member lacks it, or cannot be asked.
func (g *Cluster) UseKey(ctx context.Context, fingerprint string) ([]KeyState, error) {
	now, err := g.Keys(ctx)
	if err != nil {
		return now, fmt.Errorf("gossip: key %s is not used, since not all nodes can be asked: %w; bring them back, or forget them: bulkhead cluster forget", fingerprint, err)
	}
	var lag []string
	for _, s := range now {
		if !slices.Contains(s.Keys, fingerprint) {
			lag = append(lag, s.Node)
		}
	}
	if len(lag) > 0 {
		return now, fmt.Errorf("gossip: key %s is not used: %s would not understand; install it there first", fingerprint, strings.Join(lag, ", "))
	}
	return g.orderKeys(ctx, keyOrder{Do: "use", Name: fingerprint})
}

// RemoveKey makes all members forget the key of that fingerprint. Errors: it is refused while a member
// encrypts with it, or cannot be asked, or where nobody has it.
func (g *Cluster) RemoveKey(ctx context.Context, fingerprint string) ([]KeyState, error) {
	now, err := g.Keys(ctx)
	if err != nil {
		return now, fmt.Errorf("gossip: key %s is not removed, since not all nodes can be asked: %w; bring them back, or forget them: bulkhead cluster forget", fingerprint, err)
	}
	known := false
	for _, s := range now {
		known = known || slices.Contains(s.Keys, fingerprint)
		if s.Primary == fingerprint {
			return now, fmt.Errorf("gossip: key %s is not removed: node %s encrypts with it; use another first", fingerprint, s.Node)
		}
	}
	if !known {
		return now, fmt.Errorf("gossip: key %s is not removed: no node has it", fingerprint)
	}
	return g.orderKeys(ctx, keyOrder{Do: "remove", Name: fingerprint})
}

// orderKeys gives all members the same order, side by side, and gathers what they answer.
func (g *Cluster) orderKeys(ctx context.Context, o keyOrder) ([]KeyState, error) {
	if g.ring == nil {
		return nil, fmt.Errorf("gossip: keys: %w", ErrNotEncrypted)
	}
	body, err := encoder.Marshal(&o)
	if err != nil {
		return nil, fmt.Errorf("gossip: keys: %w", err)
	}
	members := g.Members()
	out := make([]KeyState, 0, len(members))
	errs := make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		if m.Status == Left {
			continue
		}
		out = append(out, KeyState{Node: m.Node})
		asked.Add(1)
		go func(s *KeyState, failed *error) {
			defer asked.Done()
			if *failed = g.askKeys(ctx, s, body); *failed != nil {
				s.Error = (*failed).Error()
			}
		}(&out[len(out)-1], &errs[i])
	}
	asked.Wait()
	return out, errors.Join(errs...)
}

func (g *Cluster) askKeys(ctx context.Context, s *KeyState, order []byte) error {
	var raw []byte
	var err error
	if s.Node == g.config.Node {
		raw, err = g.onKeys(ctx, s.Node, order)
	} else {
		raw, err = g.Ask(ctx, s.Node, "keys", order)
	}
	if err != nil {
		return err
	}
	var r keyReport
	if err := decoder.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("gossip: node %q answers: %w: %w", s.Node, errMalformed, err)
	}
	s.Primary, s.Keys = r.Primary, r.Keys
	return nil
}

// onKeys carries an order out on this node's ring.
func (g *Cluster) onKeys(_ context.Context, from string, body []byte) ([]byte, error) {
	var o keyOrder
	if err := decoder.Unmarshal(body, &o); err != nil {
		return nil, fmt.Errorf("order about keys: %w: %w", errMalformed, err)
	}
	if g.ring == nil {
		return nil, ErrNotEncrypted
	}
	if o.Do != "list" {
		if err := g.changeKeys(&o); err != nil {
			return nil, err
		}
		g.log.Info("key", "order", o.Do, "key", o.Name, "from", from)
	}
	r := keyReport{Primary: Fingerprint(g.ring.GetPrimaryKey())}
	for _, k := range g.ring.GetKeys() {
		r.Keys = append(r.Keys, Fingerprint(k))
	}
	slices.Sort(r.Keys)
	return encoder.Marshal(&r)
}

// changeKeys carries out an order that changes the ring, and stores it. What is so already is no error.
func (g *Cluster) changeKeys(o *keyOrder) error {
	g.keys.Lock()
	defer g.keys.Unlock()
	if o.Do == "install" {
		o.Name = Fingerprint(o.Key)
	}
	key := g.keyNamed(o.Name)
	var err error
	switch {
	case o.Do == "install" && len(g.ring.GetKeys()) >= maxKeys:
		err = fmt.Errorf("there are %d already; remove one first", maxKeys)
	case o.Do == "install":
		err = g.ring.AddKey(o.Key)
	case o.Do == "use" && key == nil:
		err = errors.New("not installed")
	case o.Do == "use":
		err = g.ring.UseKey(key)
	case o.Do == "remove" && key != nil:
		err = g.ring.RemoveKey(key)
	case o.Do != "remove":
		err = fmt.Errorf("no such order about keys: %.20q", o.Do)
	}
	if err != nil {
		return fmt.Errorf("key %.20s: %w", o.Name, err)
	}
	if g.config.KeysChanged == nil {
		return nil
	}
	if err := g.config.KeysChanged(g.ring.GetKeys()); err != nil {
		return fmt.Errorf("key %.20s: done, and not stored: %w", o.Name, err)
	}
	return nil
}

// maxKeys bounds the ring: each message is tried with each key.
const maxKeys = 8

func (g *Cluster) keyNamed(fingerprint string) []byte {
	for _, k := range g.ring.GetKeys() {
		if Fingerprint(k) == fingerprint {
			return k
		}
	}
	return nil
}
