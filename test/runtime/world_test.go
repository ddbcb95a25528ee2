package runtime

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// world is a namespace outside of the node that counts who connects to port 9999.
type world struct {
	mu    sync.Mutex
	calls map[netip.Addr]int
}

// openWorld listens in the world until the test ends.
func (n *node) openWorld() *world {
	n.t.Helper()
	w := &world{calls: map[netip.Addr]int{}}
	var l net.Listener
	path := filepath.Join("/proc", strconv.Itoa(n.init.Process.Pid), "root/run/netns/world")
	if err := within(path, func() (err error) {
		l, err = net.Listen("tcp4", "192.0.2.1:9999")
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	var routine sync.WaitGroup
	routine.Add(1)
	go func() {
		defer routine.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			from, _ := netip.ParseAddrPort(c.RemoteAddr().String()) // a TCP address always parses
			w.mu.Lock()
			w.calls[from.Addr()]++
			w.mu.Unlock()
			_ = c.Close()
		}
	}()
	n.t.Cleanup(func() { _ = l.Close(); routine.Wait() })
	return w
}

// heard counts the connections from any of the addresses.
func (w *world) heard(addrs ...string) (count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			panic(err) // the API's addresses are written by netip
		}
		count += w.calls[addr]
	}
	return count
}

// within runs fn on a thread of its own in a network namespace; sockets it opens stay there. The
// thread ends with fn, since nothing must run on it afterwards.
func within(path string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		f, err := os.Open(path)
		if err == nil {
			defer f.Close()
			if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				err = fmt.Errorf("enter %s: %w", path, err)
			}
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
