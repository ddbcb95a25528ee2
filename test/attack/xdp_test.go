package attack

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sender over AF_XDP (Documentation/networking/af_xdp.rst): frames go from memory that is shared
// with the kernel straight to the driver's transmit function. Copy mode and a TX ring need no BPF
// program and no right but CAP_NET_RAW; neither netfilter's egress hook nor tc sees them.

const (
	xdpFrame = 4096 // bytes of one frame in the shared memory, and its chunk size
	xdpRing  = 8    // frames and ring entries, a power of two
)

// xdpPort is one open AF_XDP socket.
type xdpPort struct {
	fd               int
	memory, tx, done []byte // shared: frames, TX ring, completion ring
	txOff, doneOff   unix.XDPRingOffset
	sent, completed  uint32 // frames put on the TX ring, and frames that the kernel was done with
}

// openXDP binds to the device's first queue.
func openXDP(device string) (func([]byte) error, error) {
	index, err := ifindex(device)
	if err != nil {
		return nil, err
	}
	p := &xdpPort{}
	if err := p.open(index); err != nil {
		return nil, fmt.Errorf("AF_XDP: %w", err)
	}
	return p.send, nil
}

func (p *xdpPort) open(index uint32) (err error) {
	if p.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if p.memory, err = unix.Mmap(-1, 0, xdpFrame*xdpRing, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&p.memory[0]))), Len: uint64(len(p.memory)), Size: xdpFrame}
	if err := setsockopt(p.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return fmt.Errorf("XDP_UMEM_REG: %w", err)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_XDP, ring, xdpRing); err != nil {
			return fmt.Errorf("ring %d: %w", ring, err)
		}
	}
	var off unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(off))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(p.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		return fmt.Errorf("XDP_MMAP_OFFSETS: %w", e)
	}
	p.txOff, p.doneOff = off.Tx, off.Cr
	shared := func(at int64, desc, size uint64) ([]byte, error) {
		return unix.Mmap(p.fd, at, int(desc+xdpRing*size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if p.tx, err = shared(unix.XDP_PGOFF_TX_RING, off.Tx.Desc, uint64(unsafe.Sizeof(unix.XDPDesc{}))); err != nil {
		return fmt.Errorf("TX ring: %w", err)
	}
	if p.done, err = shared(unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr.Desc, 8); err != nil {
		return fmt.Errorf("completion ring: %w", err)
	}
	if err := unix.Bind(p.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func setsockopt(fd, name int, value unsafe.Pointer, size uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(name), uintptr(value), size, 0); e != 0 {
		return e
	}
	return nil
}

// word is one of a ring's counters.
func word(ring []byte, at uint64) *uint32 { return (*uint32)(unsafe.Pointer(&ring[at])) }

// send gives one frame to the kernel and waits until it is done with it.
func (p *xdpPort) send(frame []byte) error {
	if len(frame) > xdpFrame {
		return fmt.Errorf("AF_XDP: frame of %d bytes, room for %d", len(frame), xdpFrame)
	}
	slot := p.sent % xdpRing
	copy(p.memory[slot*xdpFrame:], frame)
	desc := (*unix.XDPDesc)(unsafe.Pointer(&p.tx[p.txOff.Desc+uint64(slot)*uint64(unsafe.Sizeof(unix.XDPDesc{}))]))
	*desc = unix.XDPDesc{Addr: uint64(slot) * xdpFrame, Len: uint32(len(frame))}
	p.sent++
	atomic.StoreUint32(word(p.tx, p.txOff.Producer), p.sent)
	for range 1000 {
		err := unix.Sendto(p.fd, nil, unix.MSG_DONTWAIT, nil)
		if err != nil && err != unix.EAGAIN && err != unix.EBUSY && err != unix.ENOBUFS {
			return fmt.Errorf("AF_XDP: %w", err)
		}
		if now := atomic.LoadUint32(word(p.done, p.doneOff.Producer)); now != p.completed {
			p.completed = now
			atomic.StoreUint32(word(p.done, p.doneOff.Consumer), now)
			return nil
		}
		runtime.Gosched()
	}
	return fmt.Errorf("AF_XDP: frame %d: the kernel did not take it", p.sent)
}
