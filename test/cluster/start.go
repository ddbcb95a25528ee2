package cluster

import (
	"context"
	"net/netip"
	"time"
)

// Start starts a container anew and has it connect once, at its first moment. It tells how long the ADD
// took, and whether the connection's first packet was taken: one that is dropped is sent again after a
// second.
func (t *Town) Start(ctx context.Context, pod string, server netip.AddrPort) (add time.Duration, taken bool, err error) {
	if err := t.Detach(ctx, pod); err != nil {
		return 0, false, err
	}
	if err := t.Knows(ctx, pod, false, t.Others(pod)...); err != nil {
		return 0, false, err
	}
	begin := time.Now()
	if err := t.Attach(ctx, pod); err != nil {
		return 0, false, err
	}
	add = time.Since(begin)
	conn, err := t.Dial(pod, server, firstPacket)
	if err != nil {
		return add, false, nil
	}
	return add, true, conn.Close()
}

// firstPacket is less than TCP's first retransmission timeout (1 s, RFC 6298), and more than a busy
// machine takes to answer.
const firstPacket = 900 * time.Millisecond
