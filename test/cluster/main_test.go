package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// TestMain builds the programs that labs are made of, unless BULKHEAD_BIN names them, and takes the
// town down that the tests share.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	if os.Getenv("BULKHEAD_BIN") == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "bulkhead-cluster-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := lab.Build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv("BULKHEAD_BIN", dir)
	}
	defer func() {
		for _, s := range []*shared{&five, &three} {
			if s.town == nil {
				continue
			}
			if err := s.town.Down(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}()
	// Tests that wait for their town must not keep those of another from running.
	if err := flag.Set("test.parallel", "32"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// shared is a town that tests use one after the other.
type shared struct {
	lock sync.Mutex // held by the test that uses it
	once sync.Once
	town *Town
	err  error
}

var (
	five  shared // as a cluster is by default
	three shared // with a grace of shortGrace, and no wait at starts
)

// shortGrace is how long the nodes of three keep a dead node's containers known.
const shortGrace = 3 * time.Second

// patience is how long a test waits for what must come: machines are slow and noisy.
const patience = 60 * time.Second

// soon bounds one wait.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func fiveNodes(t *testing.T) *Town { return five.use(t, 5, nil) }

func threeNodes(t *testing.T) *Town {
	return three.use(t, 3, map[string]any{"grace": shortGrace.String(), "startWait": "0s"})
}

// use gives the town, whole, healthy and without policies, and brings it back to that after the test.
func (s *shared) use(t *testing.T, nodes int, config map[string]any) *Town {
	t.Helper()
	needRoot(t)
	t.Parallel() // with tests of other towns: most of the time they wait for something
	s.lock.Lock()
	t.Cleanup(s.lock.Unlock)
	s.once.Do(func() {
		var said strings.Builder
		s.town, s.err = Up(context.Background(), nodes, lab.Options{Progress: &said, Config: map[string]any{"cluster": config}})
		if s.err != nil {
			s.err = errors.Join(s.err, errors.New(said.String()))
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	t.Cleanup(func() { restore(t, s.town) })
	return s.town
}

// restore heals what a test broke, takes its policies out, and waits until all nodes are of one mind.
func restore(t *testing.T, town *Town) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, town.Heal())
	for _, n := range town.Names() {
		if town.DaemonPID(n) == 0 {
			must(t, town.StartDaemon(ctx, n))
		} else {
			must(t, town.ThawDaemon(n))
		}
	}
	for _, p := range town.Pods {
		if p.Detached {
			must(t, town.Attach(ctx, p.String()))
		}
	}
	must(t, town.Known(ctx))
	must(t, town.OneMind(ctx))
	list, err := town.Policies(ctx, "n1")
	must(t, err)
	for name := range list {
		must(t, town.Delete(ctx, "n1", strings.TrimPrefix(name, "NetworkPolicy shop/")))
	}
	must(t, town.OneMind(ctx))
	if t.Failed() {
		for _, n := range town.Nodes {
			t.Logf("%s: %s", n.Name, logOf(n))
		}
	}
}

// logOf is the end of a daemon's log.
func logOf(n *lab.Node) string {
	text, err := os.ReadFile(n.Dir + "/bulkheadd.log")
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needRoot skips a test that needs root, or fails it where root is promised.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1")
	}
	t.Skip("needs root")
}
