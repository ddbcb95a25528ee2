package firewall

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// thiefEnv tells the test program to be a process of the container that makes our tables its own, and
// how.
const thiefEnv = "BULKHEAD_TEST_THIEF"

// TestThief is no test: see thiefEnv. It does what it does until its input ends.
func TestThief(t *testing.T) {
	how := os.Getenv(thiefEnv)
	if how == "" {
		return
	}
	file, err := openNode(ownNamespacePath)
	if err != nil {
		t.Fatal(err)
	}
	seize := func() (*socket, error) {
		s, err := openSocket(file, "the container")
		if err != nil {
			return nil, err
		}
		table := &Table{Family: FamilyINet, Name: TableName}
		b := newBatch() // take the orphan, and put one that lets everything through in its place
		b.newTable(table, tableOwner|tablePersist)
		if err := s.commit(b); err != nil {
			return s, err
		}
		b = newBatch()
		Change{Op: DeleteTable, Table: table}.encode(b, 0)
		b.newTable(table, tableOwner|tablePersist)
		return s, s.commit(b)
	}
	s, err := seize()
	if err != nil {
		t.Fatal(err)
	}
	switch how {
	case "hide":
		// A socket on its way in another one is in no process's list of descriptors.
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err == nil {
			err = unix.Sendmsg(pair[0], []byte{1}, unix.UnixRights(s.fd), nil, 0)
		}
		if err == nil {
			err = s.close()
		}
		if err != nil {
			t.Fatal(err)
		}
	case "loop":
		go func() {
			for {
				if again, err := seize(); err == nil {
					s = again
				}
			}
		}()
	}
	fmt.Println("seized")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// testThief starts a thief in a namespace and waits until it has what it wants. stop lets go.
func testThief(t *testing.T, path, how string) (pid int, stop func()) {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", filepath.Base(path), os.Args[0], "-test.run=^TestThief$", "-test.v")
	c.Env = append(os.Environ(), thiefEnv+"="+how)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var text []string
	for lines.Scan() && lines.Text() != "seized" {
		text = append(text, lines.Text())
	}
	if lines.Text() != "seized" {
		t.Fatalf("the thief got nothing: %s", strings.Join(text, "\n"))
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = in.Close()
			_ = c.Wait()
		}
	}
	t.Cleanup(stop)
	return c.Process.Pid, stop
}

// TestSeized: with neither daemon nor holder there, root in the container makes our table its own. The
// next daemon takes it back; where that cannot be, its rules stand beside. Either way what is denied
// stays denied, and it is told.
func TestSeized(t *testing.T) {
	for _, c := range []struct {
		how    string
		beside bool
	}{{"hold", false}, {"hide", true}} {
		t.Run(c.how, func(t *testing.T) {
			node := newTestNode(t)
			w, peer := node.workload(t), node.workload(t)
			peer.serve(t, 80, 53)
			w.unguarded() // nothing outside helps
			sides := egress(testEntry(peer.v4.String(), identity.TCP, 81, 81))
			w.apply(t, policy.Enforce, sides)
			if err := w.ns.Close(); err != nil {
				t.Fatal(err)
			}
			to := netip.AddrPortFrom(peer.v4, 80)
			pid, stop := testThief(t, w.path, c.how)
			w.ns = testOpen(t, Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}})
			w.apply(t, policy.Enforce, sides)
			told := w.ns.Seizures()
			if len(told) != 1 || (told[0].Beside != "") != c.beside || !c.beside && (told[0].PID != pid || told[0].Process == "") {
				t.Errorf("told %+v", told)
			} else {
				t.Log(told[0])
			}
			if w.talks("tcp", to, 300*time.Millisecond) {
				t.Error("what is denied got through")
			}
			if err := w.ns.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
			if list := testIn(t, w.path, "nft", "list", "tables"); strings.Contains(list, "inet bulkhead-") != c.beside {
				t.Errorf("tables: %s", list)
			}
			if got := strings.Join(w.ns.Warnings(), "\n"); strings.Contains(got, "is held by somebody") != c.beside {
				t.Errorf("warnings: %s", got)
			}
			// Again: the next daemon finds the same.
			if err := w.ns.Close(); err != nil {
				t.Fatal(err)
			}
			w.ns = testOpen(t, Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}})
			w.apply(t, policy.Enforce, sides)
			if w.talks("tcp", to, 300*time.Millisecond) {
				t.Error("what is denied got through after a restart")
			}
			// And when it is let go, there is one table again.
			stop()
			if err := w.ns.Check(); c.beside && err == nil {
				t.Error("that the table is free again is not noticed")
			}
			w.apply(t, policy.Enforce, sides)
			if err := w.ns.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
			if list := testIn(t, w.path, "nft", "list", "tables"); list != "table netdev bulkhead-eth0\ntable inet bulkhead\n" && list != "table inet bulkhead\ntable netdev bulkhead-eth0\n" {
				t.Errorf("tables left:\n%s", list)
			}
			if w.talks("tcp", to, 300*time.Millisecond) {
				t.Error("what is denied got through at the end")
			}
		})
	}
}

// TestSeizedInALoop races with somebody who takes the table again and again.
func TestSeizedInALoop(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	sides := both(egress(), ingress())
	w.apply(t, policy.Enforce, sides)
	if err := w.ns.Close(); err != nil {
		t.Fatal(err)
	}
	_, stop := testThief(t, w.path, "loop")
	w.ns = testOpen(t, Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}})
	w.apply(t, policy.Enforce, sides)
	for _, s := range w.ns.Seizures() {
		t.Log(s)
	}
	if err := w.ns.Check(); err != nil {
		t.Error(err)
	}
	stop()
}

// A table that a process of the node holds is another daemon's: that is an error, as ever.
func TestOwnedOnTheNode(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	w.apply(t, policy.Learn, policy.Sides{})
	if other, err := Open(Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}}); err == nil {
		_ = other.Close()
		t.Error("a second daemon got the first one's table")
	} else if !strings.Contains(err.Error(), "stop the other bulkheadd") {
		t.Error(err)
	}
	if err := w.ns.Check(); err != nil {
		t.Error(err)
	}
}
