package attack

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// startsEnv is how many starts TestThreat2 makes; default 30.
const startsEnv = "BULKHEAD_STARTS"

// TestThreat2: A1 races the start. The first process of a namespace floods a denied workload from its
// first instruction on: not one packet arrives, however often it starts; and an allowed connection in
// its first moment completes (THREATS row 2).
func TestThreat2(t *testing.T) {
	starts := 30
	if n, err := strconv.Atoi(os.Getenv(startsEnv)); err == nil && n > 0 {
		starts = n
	}
	w := enter(t, false)
	newcomer, err := w.host("shop/newcomer")
	must(t, err)
	for _, s := range []state{up, restarting} {
		t.Run(string(s), func(t *testing.T) {
			w.be(t, up)
			r := race{arena: w, T: t, newcomer: newcomer}
			n := starts
			if s == restarting {
				n = (starts + 4) / 5
			}
			for range n {
				if s == up {
					r.start()
					continue
				}
				back := r.dies(rand.N(200 * time.Millisecond))
				r.start()
				must(t, <-back)
			}
			r.judge(n)
			w.trading(t, "at the end")
			record(2, trick{name: "flood_from_the_first_instruction"}, s, !t.Failed())
		})
	}
}

// attach is Attach until it succeeds: a runtime tries again what failed with "try again later".
func (w *arena) attach(ctx context.Context, name string) error {
	for {
		err := w.Attach(ctx, name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// What a failed ADD leaves is taken away by DEL, which may come too early as well.
		_ = w.Detach(ctx, name)
		time.Sleep(20 * time.Millisecond)
	}
}

// race is one newcomer that starts again and again.
type race struct {
	*arena
	*testing.T
	newcomer *host
	leaked   *watcher
	slow     int // allowed connections that took as long as a lost SYN costs
	sent     int
}

// dies kills the daemon after a while and starts it again.
func (r *race) dies(after time.Duration) <-chan error {
	back := make(chan error, 1)
	go func() { // ends when the daemon is back, at most after ready
		time.Sleep(after)
		back <- errors.Join(r.kill(), r.arena.start())
	}()
	return back
}

// floodToken is in each packet of the flood.
var floodToken = []byte("bulkhead-first-instruction!")

// start makes the namespace and floods from it before anything else is done there.
func (r *race) start() {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), ready)
	defer cancel()
	_ = r.Detach(ctx, r.newcomer.name) // fails when the daemon is away just now; ADD begins anew all the same
	if r.leaked == nil {
		r.leaked = r.frames[0].watch(func(_ *host, b []byte) bool { return bytes.Contains(b, floodToken) })
	}
	must(r, r.attach(ctx, r.newcomer.name))
	var conn net.Conn
	var took time.Duration
	err := firewall.Enter(r.newcomer.path, func() error {
		if err := r.flood(); err != nil {
			return err
		}
		began := time.Now()
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(r.outsider.v4, 80).String(), 30*time.Second)
		conn, took = c, time.Since(began)
		return err
	})
	if err != nil {
		r.Errorf("an allowed connection of the first moment: %v", err)
		return
	}
	conn.Close()
	if took > 900*time.Millisecond { // the first retransmission of a SYN comes after a second (RFC 6298)
		r.slow++
	}
}

// flood sends what is denied, as datagrams and as frames of its own, from the calling thread's namespace.
func (r *race) flood() error {
	for _, to := range []netip.Addr{r.victim.v4, r.victim.v6} {
		family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: 53, Addr: r.victim.v4.As4()})
		if to.Is6() {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: 53, Addr: to.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for range 50 {
			// EPERM is what the rules answer; an IPv6 address may still be tentative.
			if err := unix.Sendto(fd, floodToken, 0, sa); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENETUNREACH) {
				unix.Close(fd)
				return err
			}
			r.sent++
		}
		unix.Close(fd)
	}
	send, end, err := openPacket("eth0", false)
	if err != nil {
		return err
	}
	defer end()
	iface, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	frame := ether(iface.HardwareAddr, r.victim.mac, typeIPv4, ip4(r.newcomer.v4, r.victim.v4, protoUDP, nil, udpHead(r.newcomer.v4, r.victim.v4, 40000, 53, floodToken)))
	for range 50 {
		if err := send(frame); err != nil {
			return err
		}
		r.sent++
	}
	return nil
}

// judge says how many of the starts leaked.
func (r *race) judge(starts int) {
	r.Helper()
	must(r, r.trade.round()) // behind what was sent
	defer r.frames[0].unwatch(r.leaked)
	if n := r.leaked.count.Load(); n > 0 {
		r.Errorf("%d packets of %d leaked in %d starts, first %s", n, r.sent, starts, *r.leaked.first.Load())
	}
	// A starved machine may be that slow once; rules that are late would be so every time.
	if r.slow*10 > starts {
		r.Errorf("%d of %d allowed connections of the first moment had to try again", r.slow, starts)
	}
	r.Logf("%d starts, %d denied packets sent, none arrived; %d slow connections", starts, r.sent, r.slow)
}
