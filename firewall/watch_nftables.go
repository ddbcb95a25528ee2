package firewall

import (
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

// readNftables tells of transactions that are not ours.
func (w *Watch) readNftables(b []byte) error {
	now := time.Now()
	for m := range kernelMessages(b) {
		if m.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.body) < nfgenmsgSize {
			continue
		}
		// What is gathered of another generation never ends: its end was lost, as blind has told.
		if g := binary.BigEndian.Uint16(m.body[2:]); w.change.generation != g {
			w.change = watchChange{generation: g}
		}
		if m.kind&0xff != unix.NFT_MSG_NEWGEN {
			w.change.note(m)
			continue
		}
		done := w.change
		w.change = watchChange{}
		if e, foreign := done.end(m, w.own, now); foreign {
			w.emit(e)
			if e.Flushed {
				w.layAgain(now)
			}
		}
	}
	return nil
}

// layAgain lays the tripwire, now or when it has lain cut for a while.
func (w *Watch) layAgain(now time.Time) {
	if w.relay != nil {
		return // it is due already
	}
	if wait := w.laid.Add(tripwirePause).Sub(now); wait > 0 {
		w.relay = time.AfterFunc(wait, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.relay = nil
			if !w.closed {
				w.lay(time.Now())
			}
		})
		return
	}
	w.lay(now)
}

func (w *Watch) lay(now time.Time) {
	w.laid = now
	err := w.tripwire.lay()
	if err != nil && !w.refused {
		w.emit(Event{Time: now, Kind: EventNftables, Table: tripwireName,
			What: "the tripwire cannot be laid again, a flush would not be noticed: " + err.Error()})
	}
	w.refused = err != nil
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

// ignorePorts has the kernel drop what the sockets with these ports caused, before it takes room in
// the buffer. All messages of one read have the same cause, so the first is looked at.
func ignorePorts(fd int, ports []uint32) error {
	const portAt = 12 // nlmsg_pid in struct nlmsghdr
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portAt}}
	for _, p := range ports {
		// The program loads big-endian; the header is in the machine's order.
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, p))
		code = append(code,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: k},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 31}) // whole
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}
