package firewall

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrOwned says that another process holds a table of ours: another daemon, or somebody who took it
// while no daemon was running.
var ErrOwned = errors.New("owned by another process")

// ownedError is ErrOwned with who owns what.
type ownedError struct {
	where string
	table *Table
	port  uint32 // of the owner's socket
}

func (e *ownedError) Error() string {
	return fmt.Sprintf("%s: table %s %s: %v (netlink port %d); stop the other bulkheadd, or find who holds it: rules there cannot be changed",
		e.where, e.table.Family, e.table.Name, ErrOwned, e.port)
}

func (e *ownedError) Unwrap() error { return ErrOwned }

// takeOver reads a table and makes it this socket's own, so that nobody else can change it. A table
// that is not there stays so: the first Apply makes it together with its rules. nil says that.
//
// A table belongs to a socket while it is open, and with persist it stays, without an owner, when the
// socket is closed; whoever asks first gets it then. One that was made without persist cannot be
// taken, only replaced.
func (s *socket) takeOver(like *Table, flags uint32) (*Table, error) {
	st, err := s.readHead(like)
	switch {
	case err != nil || st == nil:
		return nil, err
	case st.owner != 0 && st.owner != s.port:
		return nil, &ownedError{s.where, like, st.owner}
	case st.owner == s.port:
	case st.flags&tablePersist != flags&tablePersist:
		st.table.foreign = fmt.Sprintf("its flags are %#x, not %#x", st.flags, flags)
		return st.table, nil
	case flags&tableOwner != 0:
		// Before it is read: nobody else can change it from then on.
		b := newBatch()
		b.newTable(like, flags)
		if err := s.commit(b); err != nil {
			return nil, fmt.Errorf("take over: %w", err)
		}
	}
	if st, err = s.readTable(like); err != nil || st == nil {
		return nil, err
	}
	return st.checked(flags), nil
}

// checked marks a table that has not the flags it should have, a dormant one for instance.
func (st *tableState) checked(flags uint32) *Table {
	if st.flags != flags {
		st.table.foreign = fmt.Sprintf("its flags are %#x, not %#x", st.flags, flags)
	}
	return st.table
}

// again says whether an error is about the moment and not about the request.
func again(err error) bool {
	for _, e := range []error{errAgain, unix.ENOBUFS, unix.EINTR, unix.EBUSY, unix.ERESTART, unix.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// stale says whether an error can come from a picture of the kernel that is no longer true.
func stale(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) }
