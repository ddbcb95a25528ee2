package firewall

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tripwirePause is how long a tripwire that was cut again and again lies cut: each cut in the
// meantime is an event less, not a fight.
const tripwirePause = time.Second

// routineNftables tells of transactions that are not ours.
func (w *Watch) routineNftables(ctx context.Context) error {
	change := &watchChange{}
	var due, laid time.Time // when the tripwire is to be laid again, and was last
	refused := false        // told once
	lay := func(now time.Time) {
		due, laid = time.Time{}, now
		err := w.tripwire.lay()
		if err != nil && !refused && ctx.Err() == nil {
			w.emit(Event{Time: now, Kind: EventNftables, Table: tripwireName,
				What: "the tripwire cannot be laid again, a flush would not be noticed: " + err.Error()})
		}
		refused = err != nil
	}
	read := func(b []byte) time.Time {
		now := time.Now()
		for m := range kernelMessages(b) {
			if m.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.body) < nfgenmsgSize {
				continue
			}
			// What is gathered of another generation never ends: its end was lost, as blind has told.
			if g := binary.BigEndian.Uint16(m.body[2:]); change.generation != g {
				*change = watchChange{generation: g}
			}
			if m.kind&0xff != unix.NFT_MSG_NEWGEN {
				change.note(m)
				continue
			}
			done := *change
			*change = watchChange{}
			if e, foreign := done.end(m, w.own, now); foreign {
				w.emit(e)
				if e.Flushed && due.IsZero() {
					due = laid.Add(tripwirePause)
				}
			}
		}
		if !due.IsZero() && !now.Before(due) {
			lay(now)
		}
		return due
	}
	return w.loop(ctx, w.nft, read, func() error {
		*change = watchChange{}
		w.blind("the ruleset")
		lay(time.Now()) // its end may be among what was lost
		return nil
	})
}

// ownPorts are the sockets whose changes are ours. Nobody else can have such a port while we hold it.
func (w *Watch) ownPorts() []uint32 {
	ports := []uint32{w.tripwire.sock.port}
	if w.cfg.Own != nil {
		ports = append(ports, w.cfg.Own.in.port)
	}
	return ports
}

// own says whether a transaction is this process's: by the socket's port, or by the thread. The
// name that the kernel tells with it proves nothing. What comes through ownPorts is filtered out by
// the kernel already; this is for the process's other sockets, and works in the machine's first PID
// namespace only.
func (w *Watch) own(port uint32, thread int) bool {
	if slices.Contains(w.ownPorts(), port) {
		return true
	}
	if !watchSeesAllThreads() {
		return false // the number means another thread here, if any
	}
	_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
	return err == nil
}

// watchSeesAllThreads is true in the machine's first PID namespace, whose inode is fixed
// (PROC_PID_INIT_INO in linux/proc_ns.h): only there do our numbers of threads match the kernel's.
func watchSeesAllThreads() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == "pid:[4026531836]"
}
