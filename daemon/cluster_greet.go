package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// greeting asks a node to know the asking node's workloads as they are at a version of its book.
type greeting struct {
	_       struct{} `cbor:",toarray"`
	Message []byte   // the latest changes, see gossip.State.Latest; empty: wait for the broadcast
	Epoch   uint64
	Seq     uint64
	Wait    uint64 // milliseconds
}

// greetLook is how often a node that was greeted looks whether what it was told of has come another way.
const greetLook = 10 * time.Millisecond

// onGreet answers when the workloads of the asking node are known here, and what follows from that is in
// force in the workloads of this node.
func (c *cluster) onGreet(ctx context.Context, from string, body []byte) ([]byte, error) {
	var q greeting
	if err := askDecoder.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("malformed question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, min(startFollow, time.Duration(q.Wait)*time.Millisecond))
	defer cancel()
	if len(q.Message) > 0 {
		// It carries its owner's signature, whoever sent it.
		if _, err := c.State.Receive(from, q.Message); err != nil {
			return nil, err
		}
	}
	want := gossip.Version{Epoch: q.Epoch, Seq: q.Seq}
	for c.State.Version(from, gossip.Endpoints).Before(want) {
		select {
		case <-ctx.Done():
			return nil, errors.New("not heard yet")
		case <-time.After(greetLook):
		}
	}
	c.take()
	if held, all := c.d.settle(ctx, "cluster: "+from+" starts"), len(c.d.local()); held < all {
		return nil, fmt.Errorf("in force in %d of %d workloads", held, all)
	}
	return nil, nil
}
