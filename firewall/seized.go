package firewall

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Seizure tells of a table of ours that somebody in the workload's namespace had made his own. That
// takes a moment in which neither a daemon nor a holder had it.
type Seizure struct {
	Table   string // "inet bulkhead"
	Process string // who held it, by the name that it gives itself; empty: not found
	PID     int
	Beside  string // where our rules stand instead; empty: the table is ours again
	Reason  string // why it could not be taken back
}

// String says it in a sentence without a full stop.
func (s Seizure) String() string {
	text := fmt.Sprintf("while nobody guarded it, table %s was taken over", s.Table)
	if s.Beside == "" {
		return text + " and its rules may have been changed; it was taken back"
	}
	return fmt.Sprintf("%s and cannot be taken back (%s); the same rules are in force in table %s beside it", text, s.Reason, s.Beside)
}

// Seizures gives what was found since the last call.
func (ns *Namespace) Seizures() []Seizure {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	out := ns.seizures
	ns.seizures = nil
	return out
}

// wrestTries bounds a race with somebody who takes the table again and again.
const wrestTries = 20

// take is takeOver, which does not stop at somebody who holds the table: from a process of the
// container it is taken back, and where that does not succeed our rules go to a table beside.
func (ns *Namespace) take(like *Table) (*Table, error) {
	s := ns.socket(like.Place)
	got, err := s.takeOver(like, ns.features.tableFlags)
	var owned *ownedError
	if like.Place == AtNode || !errors.As(err, &owned) {
		if err == nil {
			delete(ns.beside, like.Name)
		}
		return got, err
	}
	thief, wrested := ns.wrest(like, owned.port)
	if errors.Is(wrested, errOnNode) {
		return nil, err // another daemon, or what keeps sockets for one
	}
	told := Seizure{Table: like.Family.String() + " " + like.Name, Process: thief.name, PID: thief.pid}
	if wrested == nil {
		delete(ns.beside, like.Name)
		ns.seizures = append(ns.seizures, told)
		return s.takeOver(like, ns.features.tableFlags)
	}
	if ns.beside[like.Name] == "" {
		if ns.beside == nil {
			ns.beside = map[string]string{}
		}
		ns.beside[like.Name] = like.Name + "-" + randomName()
		told.Beside, told.Reason = like.Family.String()+" "+ns.beside[like.Name], wrested.Error()
		ns.seizures = append(ns.seizures, told)
	}
	other := *like
	other.Name = ns.beside[like.Name]
	return s.takeOver(&other, ns.features.tableFlags)
}

// randomName is the end of a name that nobody can have taken before us.
func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// placed is a ruleset with the names under which its tables stand.
func (ns *Namespace) placed(rs *Ruleset) *Ruleset {
	if len(ns.beside) == 0 {
		return rs
	}
	out := &Ruleset{spec: rs.spec, Tables: slices.Clone(rs.Tables)}
	for i, t := range out.Tables {
		if name := ns.beside[t.Name]; name != "" && t.Place == InWorkload {
			t := *t
			t.Name = name
			out.Tables[i] = &t
		}
	}
	return out
}

// strays are tables beside ours that a former daemon left, when the seized one is free again.
func (ns *Namespace) strays(like *Ruleset) (out []*Table, err error) {
	ns.in.calm = true // of a stray that comes meanwhile the next Open takes care
	defer func() { ns.in.calm = false }()
	for _, t := range like.Tables {
		if t.Place != InWorkload {
			continue
		}
		err = ns.in.dump(unix.NFT_MSG_GETTABLE, t.Family, "tables", nil, func(f Family, at []attr) {
			name := cstring(find(at, unix.NFTA_TABLE_NAME))
			end, ours := strings.CutPrefix(name, t.Name+"-")
			_, err := hex.DecodeString(end)
			if ours && err == nil && len(end) == 16 && f == t.Family && be32(find(at, nftaTableOwner)) == 0 {
				out = append(out, &Table{Place: InWorkload, Family: f, Name: name})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// thief is a process that holds a table of ours.
type thief struct {
	pid  int
	name string
}

// Why a table could not be taken back.
var (
	errOnNode   = errors.New("its holder is on the node")
	errNoHolder = errors.New("no process was found that holds it")
)

// wrest ends somebody's hold on a table. A table belongs to a socket, and the kernel lets nobody else
// change it, not even root on the host. But root on the host can have a copy of the socket
// (pidfd_getfd, Linux 5.6), and who has the socket may delete the table. Ours is made in its place at
// once; whose it is is looked at afterwards, since the holder can read our answers away.
func (ns *Namespace) wrest(t *Table, port uint32) (thief, error) {
	var who thief
	for range wrestTries {
		socket, holder, err := ns.socketOf(port)
		if err != nil {
			return who, err
		}
		who = holder
		b := newBatch()
		Change{Op: DeleteTable, Table: t}.encode(b, 0)
		_ = socket.commit(b)
		_ = socket.close()
		b = newBatch()
		b.newTable(t, ns.features.tableFlags)
		_ = ns.in.commit(b)
		if port, err = ns.in.ownerOf(t); err != nil {
			return who, err
		}
		if port == ns.in.port || port == 0 {
			return who, nil
		}
	}
	return who, fmt.Errorf("it is taken again and again by %s (pid %d)", who.name, who.pid)
}

// ownerOf asks for the port of a table's owner; zero: none, or there is no such table.
func (s *socket) ownerOf(t *Table) (port uint32, err error) {
	_, err = s.get(unix.NFT_MSG_GETTABLE, t.Family, "table "+t.Name, func(a *attrs) { a.name(unix.NFTA_TABLE_NAME, t.Name) },
		func(_ Family, at []attr) { port = be32(find(at, nftaTableOwner)) })
	return port, err
}

// socketOf gives a copy of the netfilter socket with a port in the workload's namespace, and who has it.
func (ns *Namespace) socketOf(port uint32) (*socket, thief, error) {
	var inode string
	err := EnterFile(ns.file, func() (err error) {
		inode, err = netlinkInode("/proc/thread-self/net/netlink", unix.NETLINK_NETFILTER, port)
		return err
	})
	if err != nil {
		return nil, thief{}, err
	}
	node, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, thief{}, err
	}
	why := errNoHolder
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return nil, thief{}, err
	}
	for _, path := range fds {
		if link, err := os.Readlink(path); err != nil || link != "socket:["+inode+"]" {
			continue
		}
		parts := strings.Split(path, "/")
		pid, _ := strconv.Atoi(parts[2])
		fd, _ := strconv.Atoi(parts[4])
		name, _ := os.ReadFile("/proc/" + parts[2] + "/comm")
		who := thief{pid, watchText([]byte(strings.TrimSpace(string(name))))}
		if where, err := os.Readlink("/proc/" + parts[2] + "/ns/net"); err == nil && where == node {
			return nil, who, errOnNode
		}
		s, err := ns.copySocket(pid, fd, port)
		if err == nil {
			return s, who, nil
		}
		why = fmt.Errorf("the socket of %s (pid %d) cannot be copied: %w", who.name, pid, err)
	}
	return nil, thief{}, why
}

// netlinkInode finds a socket in the kernel's list of netlink sockets.
func netlinkInode(list string, protocol int, port uint32) (string, error) {
	f, err := os.Open(list)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() { // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		at := strings.Fields(lines.Text())
		if len(at) == 10 && at[1] == strconv.Itoa(protocol) && at[2] == strconv.FormatUint(uint64(port), 10) {
			return at[9], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", errNoHolder
}

// copySocket copies a descriptor of another process. It is looked at before it is used: the process
// may have put something else in its place.
func (ns *Namespace) copySocket(pid, fd int, port uint32) (*socket, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	n, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: n, where: ns.path, seq: 1 << 30}
	name, err := unix.Getsockname(n)
	if a, ok := name.(*unix.SockaddrNetlink); err != nil || !ok || a.Pid != port {
		return nil, errors.Join(fmt.Errorf("descriptor %d is another one now", fd), err, s.close())
	}
	theirs, err := unix.GetsockoptUint64(n, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	if own, err := unix.GetsockoptUint64(ns.in.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil || own != theirs {
		return nil, errors.Join(errors.New("it belongs to another namespace"), err, s.close())
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}
