package attack

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// senderEnv makes this test binary the attacker's program.
const senderEnv = "BULKHEAD_ATTACK_SENDER"

// The ways a frame can leave, each with CAP_NET_RAW alone.
const (
	byPacket = "packet" // AF_PACKET: whole frames past the IP stack (packet(7))
	byBypass = "bypass" // the same with PACKET_QDISC_BYPASS
	byXDP    = "xdp"    // AF_XDP, copy mode, TX ring only: past netdev egress too
	byRaw    = "raw"    // raw IP sockets with a header of one's own (raw(7)): the frame without its Ethernet
)

// order is what the sender is asked to do.
type order struct {
	How    string
	Device string
	Frames [][]byte
}

// outcome of an order: how many frames the kernel took, and what it said of the others.
type outcome struct {
	Sent int
	Errs []string
}

// sender is a program that runs in a workload with few capabilities and sends what it is told.
type sender struct {
	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *gob.Encoder
	dec *gob.Decoder
}

// sender gives the program that sends from a workload, and starts it when there is none yet.
func (w *arena) sender(from *host, as lab.As) (*sender, error) {
	w.senders.Lock()
	defer w.senders.Unlock()
	key := from.name + " " + string(as)
	if s := w.senders.of[key]; s != nil {
		return s, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := w.Command(context.Background(), from.name, as, self)
	cmd.Env = append(os.Environ(), senderEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("sender in %s: %w", from.name, err)
	}
	s := &sender{cmd: cmd, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	w.senders.of[key] = s
	return s, nil
}

func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.Close() // it ends with its input
	_ = s.cmd.Wait()
}

// send has frames sent. The error is about the sender; that the kernel refused frames is in the
// outcome.
func (s *sender) send(how, device string, frames ...[]byte) (outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out outcome
	if err := s.enc.Encode(order{how, device, frames}); err != nil {
		return out, fmt.Errorf("sender: %w", err)
	}
	if err := s.dec.Decode(&out); err != nil {
		return out, fmt.Errorf("sender: %w", err)
	}
	return out, nil
}

// runSender is the program: orders from in, outcomes to out, until in ends.
func runSender(in io.Reader, out io.Writer) int {
	dec, enc := gob.NewDecoder(in), gob.NewEncoder(out)
	ports := map[string]func([]byte) error{} // by way and device
	for {
		var o order
		if err := dec.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return 0
			}
			fmt.Fprintln(os.Stderr, "sender:", err)
			return 1
		}
		if err := enc.Encode(carryOut(o, ports)); err != nil {
			fmt.Fprintln(os.Stderr, "sender:", err)
			return 1
		}
	}
}

func carryOut(o order, ports map[string]func([]byte) error) (out outcome) {
	key := o.How + " " + o.Device
	port := ports[key]
	if port == nil {
		var err error
		if port, err = openPort(o.How, o.Device); err != nil {
			return outcome{Errs: []string{err.Error()}}
		}
		ports[key] = port
	}
	for _, f := range o.Frames {
		if err := port(f); err != nil {
			out.Errs = append(out.Errs, err.Error())
			continue
		}
		out.Sent++
	}
	return out
}

// openPort opens a way out; it stays open as long as the program.
func openPort(how, device string) (func([]byte) error, error) {
	switch how {
	case byPacket, byBypass:
		send, _, err := openPacket(device, how == byBypass)
		return send, err
	case byXDP:
		return openXDP(device)
	case byRaw:
		return openRaw()
	}
	return nil, fmt.Errorf("way %q: not known", how)
}

// openPacket opens a packet socket that sends whole frames.
func openPacket(device string, bypass bool) (send func([]byte) error, end func(), err error) {
	index, err := ifindex(device)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	if bypass {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			unix.Close(fd)
			return nil, nil, fmt.Errorf("PACKET_QDISC_BYPASS: %w", err)
		}
	}
	send = func(frame []byte) error {
		to := &unix.SockaddrLinklayer{Ifindex: int(index), Halen: 6}
		if len(frame) >= 14 {
			to.Protocol = uint16(frame[12]) | uint16(frame[13])<<8
			copy(to.Addr[:], frame)
		}
		return unix.Sendto(fd, frame, 0, to)
	}
	return send, func() { unix.Close(fd) }, nil
}

// openRaw sends IP packets whose header is the caller's: the Ethernet header of the frame is left
// out, since the kernel writes its own.
func openRaw() (func([]byte) error, error) {
	four, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	six, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	return func(frame []byte) error {
		switch p := frame[min(14, len(frame)):]; {
		case len(p) >= 20 && p[0]>>4 == 4:
			return unix.Sendto(four, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])})
		case len(p) >= 40 && p[0]>>4 == 6:
			return unix.Sendto(six, p, 0, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])})
		}
		return errors.New("raw sockets send IP")
	}, nil
}
