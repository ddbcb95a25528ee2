package attack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// ear hears what arrives at a host. One for frames (packet(7)) hears everything that reaches the
// interface, before any rule of the host's own; one for sockets (raw(7)) hears what has passed the
// host's rules and would be handed to whoever listens.
type ear struct {
	host  *host
	files []*os.File
	wg    sync.WaitGroup

	mu       sync.Mutex
	watchers map[*watcher]bool
}

// watcher counts what one trick brought to one ear.
type watcher struct {
	match func(*host, []byte) bool
	count atomic.Int64
	first atomic.Pointer[string] // the first that matched, for people
}

// protocols are those that a socket ear listens to.
var protocols = []int{1, 2, 4, 6, 17, 41, 47, 50, 51, 58, 94, 103, 132, 136, 253}

// newEar hears frames that come in.
func newEar(h *host) (*ear, error) {
	e := &ear{host: h, watchers: map[*watcher]bool{}}
	return e, e.open(func() (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1, err
		}
		var index uint32
		if index, err = ifindex(h.device); err != nil {
			return fd, err
		}
		all := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8)
		return fd, errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
				&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(index)}))
	})
}

// newSocketEar hears what raw sockets are handed.
func newSocketEar(h *host) (*ear, error) {
	e := &ear{host: h, watchers: map[*watcher]bool{}}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range protocols {
			err := e.open(func() (int, error) {
				fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
				if err != nil {
					return -1, err
				}
				return fd, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
			})
			if err != nil {
				e.close()
				return nil, fmt.Errorf("family %d protocol %d: %w", family, proto, err)
			}
		}
	}
	return e, nil
}

func ifindex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return req.Uint32(), nil
}

// open makes a socket in the host's namespace and hears it until close.
func (e *ear) open(socket func() (int, error)) error {
	fd := -1
	err := firewall.Enter(e.host.path, func() (err error) {
		fd, err = socket()
		return err
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("ear of %s: %w", e.host.name, err)
	}
	f := os.NewFile(uintptr(fd), "ear")
	e.files = append(e.files, f)
	e.wg.Add(1)
	go e.hear(f) // ends with close
	return nil
}

func (e *ear) hear(f *os.File) {
	defer e.wg.Done()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // ENETDOWN when the interface went away for a while
			continue
		}
		e.tell(buf[:n])
	}
}

func (e *ear) tell(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		if w.match(e.host, b) {
			if w.count.Add(1) == 1 {
				s := fmt.Sprintf("%x", b[:min(len(b), 96)])
				w.first.Store(&s)
			}
		}
	}
}

func (e *ear) watch(match func(*host, []byte) bool) *watcher {
	w := &watcher{match: match}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers[w] = true
	return w
}

func (e *ear) unwatch(w *watcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.watchers, w)
}

func (e *ear) close() {
	for _, f := range e.files {
		f.Close()
	}
	e.wg.Wait()
}

// holds matches what carries the token.
func holds(token []byte) func(*host, []byte) bool {
	return func(_ *host, b []byte) bool { return bytes.Contains(b, token) }
}
