package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// heard is what reached the namespace since the ear opened.
type heard struct {
	From   int `json:"from"`   // frames from one of the addresses
	Marked int `json:"marked"` // frames that hold the mark, whoever sent them
	Others int `json:"others"` // all other IP frames: they prove that the ear hears
}

// hear counts frames at a packet socket, which sees them before any rule of the namespace does:
// zero means that nothing arrived. It rewrites -report until it is stopped. Needs CAP_NET_RAW.
func hear(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("shop hear", flag.ContinueOnError)
	from := f.String("from", "", "addresses to count by, comma separated")
	mark := f.String("mark", marker, "text to count by")
	report := f.String("report", "", "file for the counts")
	if err := f.Parse(args); err != nil {
		return err
	}
	wanted := map[netip.Addr]bool{}
	for _, s := range strings.Split(*from, ",") {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("hear: %w", err)
		}
		wanted[addr] = true
	}
	fd, err := packetSocket(unix.ETH_P_ALL)
	if err != nil {
		return fmt.Errorf("hear: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		return fmt.Errorf("hear: %w", err)
	}
	var h heard
	buf := make([]byte, 64<<10)
	var written time.Time
	for ctx.Err() == nil {
		if time.Since(written) > 50*time.Millisecond {
			if err := writeJSON(*report, h); err != nil {
				return err
			}
			written = time.Now()
		}
		n, sender, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hear: %w", err)
		}
		if ll, ok := sender.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			h.count(buf[:n], wanted, []byte(*mark))
		}
	}
	return writeJSON(*report, h)
}

func (h *heard) count(frame []byte, wanted map[netip.Addr]bool, mark []byte) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	network := p.NetworkLayer()
	if network == nil {
		return // ARP and the like: part of finding each other
	}
	src, _ := netip.AddrFromSlice(network.NetworkFlow().Src().Raw())
	switch marked := bytes.Contains(frame, mark); {
	case marked:
		h.Marked++
	case wanted[src]:
		if !discovery(p) {
			h.From++
		}
	default:
		h.Others++
	}
}

// discovery is neighbour discovery, which is no traffic between workloads.
func discovery(p gopacket.Packet) bool {
	icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	return ok && icmp.TypeCode.Type() >= layers.ICMPv6TypeRouterSolicitation && icmp.TypeCode.Type() <= layers.ICMPv6TypeRedirect
}

func writeJSON(path string, v any) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.Rename(path+".new", path)
}
