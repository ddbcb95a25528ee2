package firewall

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Cut ends the TCP connections in the namespace that the sides no longer allow, and says how many.
// The kernel sends a reset to the peer and gives the program ECONNABORTED. Apply calls it by itself
// where rights shrink; nothing is cut in learn and alert mode.
//
// A connection whose own port has a listener was opened by the peer and needs the right of ingress;
// every other one was opened from here and needs that of egress. Where the listener is gone, either
// right that is written down will do.
func (ns *Namespace) Cut(ctx context.Context, spec Spec) (int, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return 0, err
	}
	return ns.cut(ctx, spec)
}

func (ns *Namespace) cut(ctx context.Context, spec Spec) (int, error) {
	if spec.Mode != policy.Enforce || !spec.Sides.Egress.Judged() && !spec.Sides.Ingress.Judged() {
		return 0, nil
	}
	d, err := openDiag(ns.file, ns.path)
	if err != nil {
		return 0, err
	}
	defer d.socket.close()
	sockets, err := d.tcp()
	if err != nil {
		return 0, err
	}
	if len(sockets.open) == 0 {
		return 0, nil
	}
	rights := ns.rights(spec)
	n := 0
	for _, s := range sockets.open {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		server := sockets.listening[s.local.Port()]
		if rights.allowSocket(s, server) || server && spec.Redirected && rights.ingress.allowsPeer(s.remote.Addr()) {
			continue
		}
		if err := d.destroy(s); err != nil && !errors.Is(err, unix.ENOENT) {
			return n, fmt.Errorf("network namespace %s: cut connection %s to %s: %w; it goes on until one end closes it", ns.path, s.local, s.remote, err)
		} else if err == nil {
			n++
		}
	}
	return n, nil
}

// sockets lists the TCP sockets of the namespace.
func (ns *Namespace) sockets() (tcpSockets, error) {
	d, err := openDiag(ns.file, ns.path)
	if err != nil {
		return tcpSockets{}, err
	}
	defer d.socket.close()
	return d.tcp()
}
