package gossip

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
)

// ClassForget is the class of registers that say which nodes are gone for good: a node's name, and the
// key that it had. A machine that was set up anew has another key and may come back under the name.
const ClassForget = "forget"

// ErrForgotten says that a node was removed from the cluster for good.
var ErrForgotten = errors.New("the cluster has forgotten it")

// Forget drops what is known of a node that is no living member. The register of [ClassForget] is the
// caller's to write; it keeps the node away.
func (g *Cluster) Forget(node string) {
	g.mu.Lock()
	if k := g.nodes[node]; k != nil && k.status != Alive {
		delete(g.nodes, node)
	}
	g.mu.Unlock()
	g.State.Forget(node)
}

// barred says whether a node was forgotten under that key.
func (g *Cluster) barred(node string, key ed25519.PublicKey) error {
	if rec, gone := g.State.Get(ClassForget, node); gone && bytes.Equal(rec.Value, key) {
		return fmt.Errorf("%w; let it back with: bulkhead cluster forget --undo %s", ErrForgotten, node)
	}
	return nil
}
