package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Bounds of what is held.
const (
	maxHeld = 16_384
	maxName = 64
	// maxMessage is how long a datagram can be: a verb and a name, or an error.
	maxMessage = 512
)

// Holder holds sockets by name.
type Holder struct {
	log    *slog.Logger
	listen *net.UnixListener

	mu   sync.Mutex
	held map[string]*os.File
}

// Listen takes the socket path, for root only. Errors: another holder answers there, or the path cannot
// be made.
func Listen(path string, log *slog.Logger) (*Holder, error) {
	if c, err := Dial(path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("holder: %s: another holder answers there; one is enough", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("holder: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("holder: %w", err)
	}
	// Nobody else may connect, not even before the mode is set.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("holder: %w", err)
	}
	return &Holder{log: log, listen: l, held: map[string]*os.File{}}, nil
}

// Run serves until ctx ends; then all sockets are closed.
func (h *Holder) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = h.listen.Close() })
	defer stop()
	defer h.clear()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		conn, err := h.listen.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("holder: %w", err)
		}
		calls.Add(1)
		go func() {
			defer calls.Done()
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			defer conn.Close()
			h.serve(conn)
		}()
	}
}

func (h *Holder) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.held {
		_ = f.Close()
	}
	clear(h.held)
}

// serve answers one client until it goes.
func (h *Holder) serve(conn *net.UnixConn) {
	for {
		text, file, err := receive(conn)
		if err != nil {
			return
		}
		verb, name, _ := strings.Cut(text, " ")
		if err = h.obey(conn, verb, name, file); err != nil {
			h.log.Warn("refused", "request", text, "err", err)
			err = send(conn, "error "+err.Error(), nil)
		} else {
			err = send(conn, "ok", nil)
		}
		if err != nil {
			return
		}
	}
}

func (h *Holder) obey(conn *net.UnixConn, verb, name string, file *os.File) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if verb != "keep" && file != nil {
		_ = file.Close()
	}
	switch verb {
	case "keep":
		return h.keep(name, file)
	case "drop":
		if f := h.held[name]; f != nil {
			_ = f.Close()
			delete(h.held, name)
		}
		return nil
	case "list":
		for _, name := range slices.Sorted(maps.Keys(h.held)) {
			if err := send(conn, "item "+name, h.held[name]); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%q is no request; want keep, drop or list", verb)
}

func (h *Holder) keep(name string, file *os.File) error {
	if file == nil {
		return fmt.Errorf("keep %q without a descriptor", name)
	}
	old, had := h.held[name]
	if name == "" || len(name) > maxName || !had && len(h.held) >= maxHeld {
		_ = file.Close()
		return fmt.Errorf("keep %q: want a name of 1 to %d bytes, and at most %d of them", name, maxName, maxHeld)
	}
	if had {
		_ = old.Close()
	}
	h.held[name] = file
	return nil
}

// send writes one datagram, with a descriptor where there is one.
func send(conn *net.UnixConn, text string, file *os.File) error {
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	_, _, err := conn.WriteMsgUnix([]byte(text[:min(len(text), maxMessage)]), rights, nil)
	return err
}

// receive reads one datagram.
func receive(conn *net.UnixConn) (string, *os.File, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, rights, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return "", nil, err
	}
	if n == 0 {
		return "", nil, net.ErrClosed
	}
	text := string(buf[:n])
	if rights == 0 {
		return text, nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:rights])
	if err != nil || len(messages) != 1 {
		return "", nil, fmt.Errorf("control message: %w", errors.Join(err, unix.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return "", nil, fmt.Errorf("descriptor: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return text, os.NewFile(uintptr(fds[0]), "held"), nil
}
