package firewall

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// features is what this kernel can do. It is asked once, by doing it: a conclusive answer is kept.
type features struct {
	tableFlags uint32
	warnings   []string
	compat     bool // no nft queue: the NFQUEUE target stands in for it
	noQueue    bool // neither
}

var kernel struct {
	sync.Mutex
	known *features
}

// tableKinds are what tables can be, best first.
var tableKinds = []features{
	{tableFlags: tableOwner | tablePersist},
	{tableFlags: tableOwner, warnings: []string{"this kernel cannot keep owned tables when their owner ends (persist, Linux 6.9): " +
		"the rules of every workload vanish when bulkheadd stops; do not stop it without draining the node"}},
	{warnings: []string{"this kernel knows no table owner (Linux 5.12): a container with CAP_NET_ADMIN can change its own rules"}},
}

// probe tries what tables can be, best first, with a table that is made and deleted in one
// transaction.
func probe(s *socket) (features, error) {
	kernel.Lock()
	defer kernel.Unlock()
	if kernel.known != nil {
		return *kernel.known, nil
	}
	var err error
	for _, f := range tableKinds {
		t := &Table{Family: FamilyINet, Name: TableName + "-probe"}
		b := newBatch()
		b.newTable(t, f.tableFlags)
		Change{Op: DeleteTable, Table: t}.encode(b, 0)
		if err = s.commit(b); err == nil {
			f.probeQueue(s)
			kernel.known = &f
			return f, nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return features{}, fmt.Errorf("try nftables: %w; it needs CAP_NET_ADMIN and a kernel with nf_tables", err)
}
