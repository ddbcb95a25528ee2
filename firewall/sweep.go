package firewall

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SweepGuards deletes guards that nobody owns and whose interface is not in keep, in the node's
// namespace, which is the caller's own. It returns their interfaces, sorted. Guards of a daemon that
// runs are owned and stay, whatever keep says.
func SweepGuards(keep map[string]bool) ([]string, error) {
	node, err := openNode(ownNamespacePath)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	s, err := openSocket(node, "the node's namespace")
	if err != nil {
		return nil, err
	}
	defer s.close()
	var orphans []string
	err = s.dump(unix.NFT_MSG_GETTABLE, FamilyNetdev, "tables", nil, func(f Family, at []attr) {
		host, ours := strings.CutPrefix(cstring(find(at, unix.NFTA_TABLE_NAME)), GuardPrefix)
		if ours && f == FamilyNetdev && !keep[host] && be32(find(at, nftaTableOwner)) == 0 {
			orphans = append(orphans, host)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(orphans)
	var removed []string
	var errs []error
	for _, host := range orphans {
		b := newBatch()
		Change{Op: DeleteTable, Table: &Table{Place: AtNode, Family: FamilyNetdev, Name: GuardPrefix + host}}.encode(b, 0)
		// One transaction each: somebody may have taken or deleted one since.
		if err := s.commit(b); err == nil {
			removed = append(removed, host)
		} else if !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}
