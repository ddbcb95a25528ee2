package main

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// profile samples where the pinned core is, by the kernel's CPU clock, and tells how much of this
// process's time is spent in netfilter hooks. That is a share within the very same time, so a machine
// whose speed swings does not disturb it; it needs neither hardware counters nor BTF, which virtual
// machines often lack.
//
// It leaves out what rules cost outside of the hooks: connection tracking's timers and its part of every
// packet's buffer, for instance. The bridge's own passage through hooks, which is there without rules as
// well, is not counted.
type profile struct {
	fd      int
	ring    []byte
	pid     uint32
	tail    uint64
	symbols []symbol // of the kernel, by address
}

type symbol struct {
	at   uint64
	name string
}

const (
	samplesPerSecond = 4000
	ringPages        = 256
	hookEntry        = "nf_hook_slow"
)

// openProfile samples a core, and is an error where the kernel does not let us.
func openProfile(core int) (*profile, error) {
	p := &profile{pid: uint32(os.Getpid())}
	var err error
	if p.symbols, err = kernelSymbols(); err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample:      samplesPerSecond,
		Sample_type: unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_CALLCHAIN,
		Bits:        unix.PerfBitFreq | unix.PerfBitDisabled | unix.PerfBitExcludeCallchainUser,
	}
	if p.fd, err = unix.PerfEventOpen(&attr, -1, core, -1, unix.PERF_FLAG_FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("sample core %d: %w", core, err)
	}
	p.ring, err = unix.Mmap(p.fd, 0, (1+ringPages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(p.fd)
		return nil, fmt.Errorf("sample core %d: %w", core, err)
	}
	return p, nil
}

// kernelSymbols reads where the kernel's functions begin.
func kernelSymbols() ([]symbol, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []symbol
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 3 || !strings.EqualFold(w[1], "t") {
			continue
		}
		at, err := strconv.ParseUint(w[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("/proc/kallsyms: %w", err)
		}
		if at != 0 {
			out = append(out, symbol{at, w[2]})
		}
	}
	slices.SortFunc(out, func(a, b symbol) int { return cmp.Compare(a.at, b.at) })
	if !slices.ContainsFunc(out, func(s symbol) bool { return s.name == hookEntry }) {
		return nil, fmt.Errorf("/proc/kallsyms: no address of %s", hookEntry)
	}
	return out, nil
}

func (p *profile) function(ip uint64) string {
	i, exact := slices.BinarySearchFunc(p.symbols, ip, func(s symbol, ip uint64) int { return cmp.Compare(s.at, ip) })
	if !exact {
		i--
	}
	if i < 0 {
		return ""
	}
	return p.symbols[i].name
}

// inHook says whether a stack, innermost first, is in a hook that is not the bridge's.
func (p *profile) inHook(stack []uint64) bool {
	callee := ""
	for _, ip := range stack {
		name := p.function(ip)
		if name == hookEntry {
			return callee != "" && !strings.HasPrefix(callee, "br_") && !strings.HasPrefix(callee, "ip_sabotage")
		}
		callee = name
	}
	return false
}

func (p *profile) start() error { return unix.IoctlSetInt(p.fd, unix.PERF_EVENT_IOC_ENABLE, 0) }

// stop gives the number of samples in this process since start, and how many of them were in hooks.
func (p *profile) stop() (all, hooks int, err error) {
	if err := unix.IoctlSetInt(p.fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
		return 0, 0, err
	}
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(&p.ring[0]))
	head := atomic.LoadUint64(&page.Data_head)
	data := p.ring[os.Getpagesize():]
	var rec []byte
	for p.tail < head {
		at := p.tail % uint64(len(data))
		size := uint64(binary.NativeEndian.Uint16(data[at+6:])) // records are aligned: their headers do not wrap
		rec = rec[:0]
		for i := range size {
			rec = append(rec, data[(at+i)%uint64(len(data))])
		}
		p.tail += size
		if binary.NativeEndian.Uint32(rec) != unix.PERF_RECORD_SAMPLE || binary.NativeEndian.Uint32(rec[8:]) != p.pid {
			continue
		}
		all++
		stack := make([]uint64, binary.NativeEndian.Uint64(rec[16:]))
		for i := range stack {
			stack[i] = binary.NativeEndian.Uint64(rec[24+8*i:])
		}
		if p.inHook(stack) {
			hooks++
		}
	}
	atomic.StoreUint64(&page.Data_tail, p.tail)
	return all, hooks, nil
}

func (p *profile) close() {
	unix.Munmap(p.ring)
	unix.Close(p.fd)
}
