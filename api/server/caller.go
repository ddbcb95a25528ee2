package server

import "context"

// Caller is who makes a call, as the kernel knows it since connect(2).
type Caller struct {
	UID uint32
	PID int32 // as this process's namespace numbers it; 0: of another one
}

// CallerOf gives the caller of the call whose context this is. False: ctx is none of a call's.
func CallerOf(ctx context.Context) (Caller, bool) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok || p.err != nil {
		return Caller{}, false
	}
	return Caller{UID: p.uid, PID: p.pid}, true
}
