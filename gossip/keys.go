package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	_   struct{} `cbor:",toarray"`
	Do  string
	Key []byte
}

type keyReport struct {
	_       struct{} `cbor:",toarray"`
	Primary string
	Keys    []string
}

// ErrNotEncrypted says that the cluster was started without keys.
var ErrNotEncrypted = errors.New("gossip is not encrypted: start every node with a key first")

// Keys asks all members what keys they have, by node.
func (g *Cluster) Keys(ctx context.Context) ([]KeyState, error) { return g.orderKeys(ctx, "list", nil) }

// InstallKey gives all members a further key of 16, 24 or 32 bytes to decrypt with. Errors name the
// nodes that did not take it; say it again when they are back.
func (g *Cluster) InstallKey(ctx context.Context, key []byte) ([]KeyState, error) {
	return g.orderKeys(ctx, "install", key)
}

// UseKey makes all members encrypt with a key. Errors: it is refused while a member lacks it.
func (g *Cluster) UseKey(ctx context.Context, key []byte) ([]KeyState, error) {
	now, err := g.Keys(ctx)
	if err != nil {
		return now, fmt.Errorf("not used: %w", err)
	}
	name := Fingerprint(key)
	var lag []string
	for _, s := range now {
		if !slices.Contains(s.Keys, name) {
			lag = append(lag, s.Node)
		}
	}
	if len(lag) > 0 {
		return now, fmt.Errorf("gossip: key %s is not used: %s would not understand; install it there first", name, strings.Join(lag, ", "))
	}
	return g.orderKeys(ctx, "use", key)
}

// RemoveKey makes all members forget a key. Errors: it is refused while a member encrypts with it, or
// cannot be asked.
func (g *Cluster) RemoveKey(ctx context.Context, key []byte) ([]KeyState, error) {
	now, err := g.Keys(ctx)
	if err != nil {
		return now, fmt.Errorf("not removed: %w", err)
	}
	name := Fingerprint(key)
	for _, s := range now {
		if s.Primary == name {
			return now, fmt.Errorf("gossip: key %s is not removed: node %s encrypts with it; use another first", name, s.Node)
		}
	}
	return g.orderKeys(ctx, "remove", key)
}

// orderKeys gives all members the same order, side by side, and gathers what they answer.
func (g *Cluster) orderKeys(ctx context.Context, do string, key []byte) ([]KeyState, error) {
	if g.ring == nil {
		return nil, fmt.Errorf("gossip: keys: %w", ErrNotEncrypted)
	}
	body, err := encoder.Marshal(&keyOrder{Do: do, Key: key})
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
	var err error
	switch o.Do {
	case "list":
	case "install":
		err = g.ring.AddKey(o.Key)
	case "use":
		err = g.ring.UseKey(o.Key)
	case "remove":
		if slices.ContainsFunc(g.ring.GetKeys(), func(k []byte) bool { return bytes.Equal(k, o.Key) }) {
			err = g.ring.RemoveKey(o.Key)
		}
	default:
		err = fmt.Errorf("no such order about keys: %q", o.Do)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", Fingerprint(o.Key), err)
	}
	if o.Do != "list" {
		g.log.Info("key", "order", o.Do, "key", Fingerprint(o.Key), "from", from)
		if g.config.KeysChanged != nil {
			if err := g.config.KeysChanged(g.ring.GetKeys()); err != nil {
				return nil, fmt.Errorf("key %s is in use and not stored: %w", Fingerprint(o.Key), err)
			}
		}
	}
	r := keyReport{Primary: Fingerprint(g.ring.GetPrimaryKey())}
	for _, k := range g.ring.GetKeys() {
		r.Keys = append(r.Keys, Fingerprint(k))
	}
	slices.Sort(r.Keys)
	return encoder.Marshal(&r)
}
