package gossip

import (
	"crypto/ed25519"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// Versions of the messages of this package that this program reads, and speaks. memberlist keeps nodes
// apart that have none in common.
const (
	protocolMin = 1
	protocolMax = 1
)

// frame is a message with who sent it. The name is the sender's word: what counts carries a signature
// of its own.
type frame struct {
	from    string
	message []byte
}

// kind is the message's type; zero: it is empty.
func (f frame) kind() byte {
	if len(f.message) == 0 {
		return 0
	}
	return f.message[0]
}

func (g *Cluster) frame(message []byte) []byte {
	out := make([]byte, 0, 1+len(g.config.Node)+len(message))
	out = append(out, byte(len(g.config.Node)))
	out = append(out, g.config.Node...)
	return append(out, message...)
}

func readFrame(b []byte) (frame, error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return frame{}, fmt.Errorf("gossip: frame of %d bytes ends within its sender's name: %w", len(b), errMalformed)
	}
	n := 1 + int(b[0])
	return frame{string(b[1:n]), append([]byte(nil), b[n:]...)}, nil
}

// NotifyMsg is called by memberlist with a message of another node.
func (g *Cluster) NotifyMsg(b []byte) {
	f, err := readFrame(b)
	if err != nil {
		g.counts.Refused.Add(1)
		return
	}
	select {
	case g.inbox <- f:
	default:
		g.counts.Overflow.Add(1)
	}
}

// GetBroadcasts is called by memberlist to fill a packet.
func (g *Cluster) GetBroadcasts(overhead, limit int) [][]byte {
	return g.queue.GetBroadcasts(overhead, limit)
}

// LocalState is called by memberlist when it compares members with another node over TCP: this package
// adds a summary, never its state.
func (g *Cluster) LocalState(bool) []byte { return g.frame(g.State.Summary()) }

// MergeRemoteState is called by memberlist with the other node's LocalState.
func (g *Cluster) MergeRemoteState(b []byte, _ bool) {
	if len(b) > 0 {
		g.NotifyMsg(b)
	}
}

// meta is what members know of each other without asking.
type meta struct {
	_       struct{} `cbor:",toarray"`
	Key     []byte
	Version string
	Leaving bool
}

// NodeMeta is called by memberlist.
func (g *Cluster) NodeMeta(limit int) []byte {
	m := meta{Key: g.config.Key.Public().(ed25519.PublicKey), Version: g.config.Version, Leaving: g.leaving.Load()}
	b, err := encoder.Marshal(&m)
	if err != nil || len(b) > limit {
		m.Version = "" // the key fits always
		b, _ = encoder.Marshal(&m)
	}
	return b
}

func readMeta(b []byte) (meta, error) {
	var m meta
	if err := decoder.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if len(m.Key) != ed25519.PublicKeySize {
		return m, fmt.Errorf("key of %d bytes: %w", len(m.Key), errMalformed)
	}
	return m, nil
}

// NotifyAlive is called by memberlist before it takes a node for a member: its key must be the one that
// it is known by.
func (g *Cluster) NotifyAlive(n *memberlist.Node) error {
	if n.Name == g.config.Node {
		return nil
	}
	m, err := readMeta(n.Meta)
	if err == nil {
		err = g.State.Pin(n.Name, m.Key)
	}
	if err != nil {
		g.counts.Refused.Add(1)
		g.log.Warn("refused a member", "node", n.Name, "address", n.Address(), "err", err)
	}
	return err
}

// NotifyConflict is called by memberlist when two nodes go by one name.
func (g *Cluster) NotifyConflict(have, other *memberlist.Node) {
	g.log.Warn("two nodes go by one name", "node", have.Name, "address", have.Address(), "other", other.Address())
}
