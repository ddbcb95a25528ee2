package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Traffic says what a fault on the LAN touches.
type Traffic string

const (
	All    Traffic = "all"    // every frame
	Gossip Traffic = "gossip" // what the daemons say to each other; pods' connections pass
)

// gossipPort is where daemons of a joined lab hear each other, UDP and TCP.
const gossipPort = 7946

// faults are what is wrong with the LAN now. They are a file, so that one command can add to what
// another did, and the bridge's nftables hold exactly what is in it.
type faults struct {
	Cut  []cut
	Lose map[string]loss // by node
}

// cut is a pair of nodes between which nothing passes, in either direction.
type cut struct {
	A, B string
	Of   Traffic
}

type loss struct {
	Percent int
	Of      Traffic
}

// Cut parts two sets of nodes from each other, until Heal: no frame passes between them, or no gossip.
// Without a second set, all the others are meant.
func (l *Lab) Cut(of Traffic, a, b []string) error {
	if err := l.nodesNamed(slices.Concat(a, b)); err != nil {
		return err
	}
	if len(b) == 0 {
		for _, n := range l.Nodes {
			if !slices.Contains(a, n.Name) {
				b = append(b, n.Name)
			}
		}
	}
	return l.fault(func(f *faults) {
		for _, x := range a {
			for _, y := range b {
				if c := (cut{x, y, of}); x != y && !slices.Contains(f.Cut, c) {
					f.Cut = append(f.Cut, c)
				}
			}
		}
	})
}

// Lose drops each packet that one of these nodes sends or is sent with the given chance, 0 to 99; 0
// ends it. A packet between two of them has one chance to be lost.
func (l *Lab) Lose(of Traffic, percent int, nodes ...string) error {
	if percent < 0 || percent > 99 {
		return fmt.Errorf("loss of %d%%: want 0 to 99", percent)
	}
	if err := l.nodesNamed(nodes); err != nil {
		return err
	}
	return l.fault(func(f *faults) {
		for _, n := range nodes {
			if delete(f.Lose, n); percent > 0 {
				f.Lose[n] = loss{percent, of}
			}
		}
	})
}

// Heal ends every fault of the LAN that has to do with these nodes; without any, all. Cables are
// plugged in again and relays taken out.
func (l *Lab) Heal(nodes ...string) error {
	if err := l.nodesNamed(nodes); err != nil {
		return err
	}
	of := func(name string) bool { return len(nodes) == 0 || slices.Contains(nodes, name) }
	errs := []error{l.fault(func(f *faults) {
		f.Cut = slices.DeleteFunc(f.Cut, func(c cut) bool { return of(c.A) || of(c.B) })
		for n := range f.Lose {
			if of(n) {
				delete(f.Lose, n)
			}
		}
	})}
	for _, n := range l.Nodes {
		if of(n.Name) {
			errs = append(errs, l.Straight(n.Name), l.Plug(n.Name))
		}
	}
	return errors.Join(errs...)
}

// Unplug pulls a node's cable: it sees that its carrier is gone.
func (l *Lab) Unplug(node string) error { return l.plugged(node, false) }

// Plug puts a node's cable in again.
func (l *Lab) Plug(node string) error { return l.plugged(node, true) }

func (l *Lab) plugged(node string, in bool) error {
	port, err := l.port(node)
	if err != nil {
		return err
	}
	lan, err := openPlace(l.LAN)
	if err != nil {
		return err
	}
	defer lan.close()
	link, err := lan.LinkByName(port)
	if err != nil {
		return fmt.Errorf("node %s: cable %s: %w", node, port, err)
	}
	if in {
		return lan.LinkSetUp(link)
	}
	return lan.LinkSetDown(link)
}

// port is the name of a node's end on the LAN.
func (s *State) port(node string) (string, error) {
	for i, n := range s.Nodes {
		if n.Name == node {
			return fmt.Sprintf("n%d", i+1), nil
		}
	}
	return "", fmt.Errorf("node %s: not in lab %s", node, s.Name)
}

func (s *State) nodesNamed(names []string) error {
	for _, name := range names {
		if s.node(name) == nil {
			return fmt.Errorf("node %s: not in lab %s", name, s.Name)
		}
	}
	return nil
}

// fault changes the faults of the LAN: file first, then the bridge, which holds what the file says.
func (l *Lab) fault(change func(*faults)) error {
	path := filepath.Join(l.Dir, "faults.json")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f := faults{Lose: map[string]loss{}}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	change(&f)
	if text, err = json.MarshalIndent(f, "", " "); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return nft(nsPath(l.LAN), l.faultRules(f))
}

// faultRules are the bridge's rules for these faults, in the place of those that it has.
func (s *State) faultRules(f faults) string {
	return fmt.Sprintf(`table bridge faults
delete table bridge faults
table bridge faults {
	chain gossip {
%s	}
	chain forward {
		type filter hook forward priority 0; policy accept;
%s		meta l4proto { tcp, udp } th dport %d goto gossip
		meta l4proto { tcp, udp } th sport %[3]d goto gossip
	}
}
`, s.faultsOf(f, Gossip), s.faultsOf(f, All), gossipPort)
}

func (s *State) faultsOf(f faults, of Traffic) string {
	var b strings.Builder
	for _, c := range f.Cut {
		if x, y := s.ports(c.A), s.ports(c.B); c.Of == of {
			fmt.Fprintf(&b, "\t\tiifname %s oifname %s counter drop\n\t\tiifname %s oifname %s counter drop\n", x, y, y, x)
		}
	}
	alike := map[int][]string{}
	for n, l := range f.Lose {
		if l.Of == of {
			alike[l.Percent] = append(alike[l.Percent], n)
		}
	}
	for _, percent := range slices.Sorted(maps.Keys(alike)) {
		ports := s.ports(alike[percent]...)
		for _, who := range []string{"iifname " + ports, "iifname != " + ports + " oifname " + ports} {
			fmt.Fprintf(&b, "\t\t%s numgen random mod 100 < %d counter drop\n", who, percent)
		}
	}
	return b.String()
}

// ports is a set of the nodes' ends on the bridge, with and without a relay between.
func (s *State) ports(nodes ...string) string {
	var out []string
	for _, n := range nodes {
		if p, err := s.port(n); err == nil {
			out = append(out, `"`+p+`"`, `"`+relayed(p)+`"`)
		}
	}
	slices.Sort(out)
	return "{ " + strings.Join(out, ", ") + " }"
}
