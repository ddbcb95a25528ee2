package gossip

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"
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
		g.refuse("", err)
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
	return g.queue.Take(overhead, limit)
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

// NodeMeta is called by memberlist.
func (g *Cluster) NodeMeta(limit int) []byte {
	about := g.about
	if g.leaving.Load() {
		about.Leaving, about.Last = true, g.State.Version(g.config.Node, Endpoints)
	}
	return sealMeta(g.config.Node, about, g.config.Key, limit)
}

// NotifyAlive is called by memberlist, under its lock, before it takes a node for a member: what it says
// of itself must be in its own hand, its key the one that it is known by, and none of it older than what
// is known.
func (g *Cluster) NotifyAlive(n *memberlist.Node) error {
	err := g.admitMember(n)
	if err != nil {
		g.refuse(n.Name, fmt.Errorf("member %q at %s: %w", n.Name, n.Address(), err))
	}
	return err
}

func (g *Cluster) admitMember(n *memberlist.Node) error {
	if g.knowsMeta(n.Name, n.Meta) {
		return nil
	}
	m, err := openMeta(n.Name, n.Meta)
	if err != nil {
		return err
	}
	if n.Name == g.config.Node {
		if !g.config.Key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(m.Key)) {
			return fmt.Errorf("it goes by this node's name and shows another key: %w", errImpostor)
		}
		return nil
	}
	if err := errors.Join(g.room(n.Name), g.barred(n.Name, m.Key)); err != nil {
		return err
	}
	return g.State.Pin(n.Name, m.Key)
}

// NotifyConflict is called by memberlist when a node is said to live at two addresses. Both show the
// same key (see NotifyAlive): somebody copied a node with its state.
func (g *Cluster) NotifyConflict(have, other *memberlist.Node) {
	g.alarm(have.Name, AlarmNameClash, fmt.Sprintf("node %q lives at %s and is said to live at %s, with the same key; if it did not just move, its state folder was copied: give the copy a name and a state of its own", have.Name, have.Address(), other.Address()))
}
