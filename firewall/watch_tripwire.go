package firewall

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// TripwireTable is an empty inet table without an owner, so that a flush of the ruleset deletes it
// and thereby tells of itself.
const TripwireTable = "bulkhead-tripwire"

const (
	tripwireName    = "inet " + TripwireTable
	tripwireComment = "tells bulkhead when the ruleset is flushed"

	// Source: libnftnl/udata.h, uapi/linux/netfilter/nf_tables.h.
	tripwireUdata    = 0 // a comment
	tripwireUserdata = 6 // NFTA_TABLE_USERDATA
)

// tripwire lays and removes the table through a socket of its own, whose port says that a change of
// it is ours.
type tripwire struct {
	mu      sync.Mutex
	sock    *socket
	removed bool // for good: a lay that is due comes too late
}

// openTripwire opens the socket in a namespace; where is for errors.
func openTripwire(file *os.File, where string) (*tripwire, error) {
	sock, err := openSocket(file, where)
	if err != nil {
		return nil, err
	}
	return &tripwire{sock: sock}, nil
}

// there says whether the table exists.
func (t *tripwire) there() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sock.get(unix.NFT_MSG_GETTABLE, FamilyINet, "table "+tripwireName,
		func(a *attrs) { a.name(unix.NFTA_TABLE_NAME, TripwireTable) }, func(Family, []attr) {})
}

// lay makes the table, or finds it there.
func (t *tripwire) lay() error {
	b := newBatch()
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, FamilyINet, "table "+tripwireName, func(a *attrs) {
		a.name(unix.NFTA_TABLE_NAME, TripwireTable)
		a.bytes(tripwireUserdata, comment(tripwireUdata, tripwireComment))
	})
	return t.commit("lay", b, func() bool { return !t.removed })
}

// remove deletes the table; one that is gone is no error.
func (t *tripwire) remove() error {
	b := newBatch()
	b.add(unix.NFT_MSG_DELTABLE, 0, FamilyINet, "table "+tripwireName,
		func(a *attrs) { a.name(unix.NFTA_TABLE_NAME, TripwireTable) })
	err := t.commit("remove", b, func() bool { t.removed = true; return true })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (t *tripwire) commit(what string, b *batch, wanted func() bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !wanted() {
		return nil
	}
	if t.sock.fd < 0 {
		return fmt.Errorf("%s tripwire: %w", what, os.ErrClosed)
	}
	if err := t.sock.commit(b); err != nil {
		return fmt.Errorf("%s tripwire: %w", what, err)
	}
	return nil
}

func (t *tripwire) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sock.close()
}
