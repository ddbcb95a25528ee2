package firewall

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoInterface says that an interface that a guard must stand on is not there. Recent kernels take
// a chain for an interface that does not exist and wait for one of that name, so we look ourselves.
var ErrNoInterface = errors.New("no such interface")

// interfacesThere looks whether each guard that is not in force yet has an interface to stand on, the
// very one that the spec means.
func (ns *Namespace) interfacesThere(want *Ruleset) error {
	if want == ns.applied && !ns.unsure {
		return nil
	}
	for _, ifc := range want.spec.Interfaces {
		if len(ifc.MAC) != 6 {
			return fmt.Errorf("network namespace %s: interface %s: MAC %q: want one of Ethernet, for the guard to compare senders with", ns.path, ifc.Name, ifc.MAC)
		}
		file, where, name, place := ns.node, "the node", ifc.Host, AtNode
		if ifc.Host == "" {
			file, where, name, place = ns.file, ns.path, ifc.Name, InWorkload
		}
		if ns.have.table(&Table{Place: place, Family: FamilyNetdev, Name: GuardPrefix + name}) != nil && !ns.unsure {
			continue
		}
		var index uint32
		err := EnterFile(file, func() (err error) {
			index, err = interfaceIndex(name)
			return err
		})
		if err != nil {
			return fmt.Errorf("guard of interface %s of %s: interface %s in %s: %w", ifc.Name, ns.path, name, where, err)
		}
		if ifc.Host != "" && ifc.HostIndex != 0 && int(index) != ifc.HostIndex {
			return fmt.Errorf("guard of interface %s of %s: interface %s of the node has index %d, not %d: %w; it was replaced by another of that name",
				ifc.Name, ns.path, name, index, ifc.HostIndex, ErrNoInterface)
		}
	}
	return nil
}

// interfaceIndex asks for an interface's index in the namespace of the calling thread.
func interfaceIndex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("name %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return 0, ErrNoInterface
		}
		return 0, err
	}
	return req.Uint32(), nil
}
