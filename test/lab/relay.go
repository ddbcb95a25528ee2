package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Shape is what a relay does to every frame of a node, in each direction. Where Jitter is more than
// the time between two frames, they overtake each other.
type Shape struct {
	Delay     time.Duration
	Jitter    time.Duration // on top of Delay, evenly from 0 to this
	Duplicate int           // percent of frames that come twice, each with a delay of its own
	Lose      int           // percent
}

func (s Shape) check() error {
	if s.Delay < 0 || s.Jitter < 0 || s.Duplicate < 0 || s.Duplicate > 100 || s.Lose < 0 || s.Lose > 99 {
		return fmt.Errorf("shape %+v: want spans and percentages of 0 or more", s)
	}
	return nil
}

// inFlight is how many frames a relay holds in one direction; more are dropped, as a router's queue
// would.
const inFlight = 8192

// relayed is the name of the port that a relay has on the bridge in the place of a node's.
func relayed(port string) string { return "r" + port[1:] }

// Bend puts a relay between a node and the LAN, or another in its place: a process that takes every
// frame in hand, since kernels without sch_netem delay nothing.
//
//	node eth0 ── n3   (packet socket) relay (tap)   r3 ── lan0
func (l *Lab) Bend(ctx context.Context, node string, s Shape) error {
	if err := s.check(); err != nil {
		return err
	}
	port, err := l.port(node)
	if err != nil {
		return err
	}
	if err := l.Straight(node); err != nil {
		return err
	}
	log := filepath.Join(l.Dir, "relay-"+port+".log")
	err = l.spawn(l.LAN, "relay "+node, log, filepath.Join(l.Bin, "bulkhead-lab"), "relay", "--port", port,
		"--delay", s.Delay.String(), "--jitter", s.Jitter.String(), "--duplicate", fmt.Sprint(s.Duplicate), "--lose", fmt.Sprint(s.Lose))
	if err != nil {
		return err
	}
	for {
		if up, err := l.attached(relayed(port)); err != nil || up {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s: relay: %w; its log ends:\n%s", node, ctx.Err(), tail(log))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// attached says whether a port is on the bridge.
func (l *Lab) attached(port string) (bool, error) {
	lan, err := openPlace(l.LAN)
	if err != nil {
		return false, err
	}
	defer lan.close()
	link, err := lan.LinkByName(port)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	return err == nil && link.Attrs().MasterIndex != 0, err
}

// Straight takes a node's relay out and plugs the node into the bridge itself; without a relay it
// does nothing.
func (l *Lab) Straight(node string) error {
	port, err := l.port(node)
	if err != nil {
		return err
	}
	var pids []int
	for pid, what := range recorded(l.Dir) {
		if what == "relay "+node {
			pids = append(pids, pid)
		}
	}
	if err := end(pids); err != nil {
		return fmt.Errorf("node %s: relay: %w", node, err)
	}
	if on, err := l.attached(port); on || err != nil {
		return err
	}
	return within(nsPath(l.LAN), func() error { return setMaster(port, "lan0") })
}

// setMaster puts a port of the calling thread's namespace on a bridge, or off with "".
func setMaster(port, bridge string) error {
	link, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if bridge == "" {
		err = netlink.LinkSetNoMaster(link)
	} else {
		var br netlink.Link
		if br, err = netlink.LinkByName(bridge); err == nil {
			err = errors.Join(netlink.LinkSetMaster(link, br), netlink.LinkSetUp(link))
		}
	}
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return nil
}

// RunRelay is the relay's process, in the LAN's namespace, until ctx ends. Frames carry their
// virtio_net_hdr with them: checksums that nobody has computed yet, and segments that nobody has cut.
func RunRelay(ctx context.Context, port string, s Shape) error {
	if err := errors.Join(s.check(), setMaster(port, "")); err != nil {
		return err
	}
	wire, err := openPort(port)
	if err != nil {
		return err
	}
	defer wire.Close()
	tap, err := openTap(relayed(port))
	if err != nil {
		return err
	}
	defer tap.Close()
	if err := setMaster(relayed(port), "lan0"); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { wire.Close(); tap.Close() })
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- s.pump(wire, tap) }() // both end when their files are closed
	go func() { ended <- s.pump(tap, wire) }()
	first := <-ended
	wire.Close()
	tap.Close()
	second := <-ended
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(first, second)
}

// openPort opens every frame that a port takes in, and sends what is written.
func openPort(port string) (*os.File, error) {
	link, err := netlink.LinkByName(port)
	if err != nil {
		return nil, fmt.Errorf("port %s: %w", port, err)
	}
	const allFrames = (unix.ETH_P_ALL&0xff)<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("port %s: packet socket: %w", port, err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allFrames, Ifindex: link.Attrs().Index}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port %s: packet socket: %w", port, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), port), nil
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pump carries frames one way until a file is closed.
func (s Shape) pump(from, to *os.File) error {
	var held atomic.Int64
	buf := make([]byte, 1<<17)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, unix.ENETDOWN) { // the cable was pulled
			continue
		}
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		copies := 1
		if rand.IntN(100) < s.Lose {
			copies = 0
		} else if rand.IntN(100) < s.Duplicate {
			copies = 2
		}
		for range copies {
			wait := s.Delay
			if s.Jitter > 0 {
				wait += rand.N(s.Jitter)
			}
			if held.Load() >= inFlight {
				continue
			}
			held.Add(1)
			frame := append([]byte(nil), buf[:n]...)
			time.AfterFunc(wait, func() {
				defer held.Add(-1)
				_, _ = to.Write(frame) // a frame that cannot be sent is a frame lost, as on a cable
			})
		}
	}
}
