package attack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// trade is the traffic of the allowed peer with the victim, which goes on all the while: datagrams
// with their answers, a long connection, and ever new ones, over both families. Nothing of it may
// be lost.
type trade struct {
	peer, victim *host
	cancel       context.CancelFunc
	wg           sync.WaitGroup
	udp          [2]*net.UDPConn // IPv4, IPv6

	mu      sync.Mutex
	number  uint64               // of the last datagram
	waiting map[string]time.Time // datagrams without an answer
	trouble []string             // what went wrong with connections, at most maxTrouble
}

const (
	pace       = 10 * time.Millisecond // between two rounds
	maxTrouble = 20
)

func newTrade(peer, victim *host) (*trade, error) {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &trade{peer: peer, victim: victim, cancel: cancel, waiting: map[string]time.Time{}}
	for i, a := range []netip.Addr{victim.v4, victim.v6} {
		err := firewall.Enter(peer.path, func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 53)))
			tr.udp[i] = c
			return err
		})
		if err != nil {
			tr.close()
			return nil, fmt.Errorf("allowed traffic: %w", err)
		}
		tr.wg.Add(3) // all end with ctx
		go tr.listen(tr.udp[i])
		go tr.speak(ctx, tr.udp[i])
		go tr.connect(ctx, netip.AddrPortFrom(a, 80))
	}
	return tr, nil
}

func (tr *trade) close() {
	tr.cancel()
	for _, c := range tr.udp {
		if c != nil {
			c.Close()
		}
	}
	tr.wg.Wait()
}

func (tr *trade) complain(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.trouble) < maxTrouble {
		tr.trouble = append(tr.trouble, fmt.Sprintf(format, args...))
	}
}

// send sends one datagram that must be answered.
func (tr *trade) send(c *net.UDPConn) string {
	tr.mu.Lock()
	tr.number++
	id := fmt.Sprintf("trade-%d", tr.number)
	tr.waiting[id] = time.Now()
	tr.mu.Unlock()
	if _, err := c.Write([]byte(id)); err != nil && !errors.Is(err, net.ErrClosed) {
		tr.complain("datagram %s: %v", id, err)
	}
	return id
}

func (tr *trade) speak(ctx context.Context, c *net.UDPConn) {
	defer tr.wg.Done()
	for ctx.Err() == nil {
		tr.send(c)
		select {
		case <-ctx.Done():
		case <-time.After(pace):
		}
	}
}

func (tr *trade) listen(c *net.UDPConn) {
	defer tr.wg.Done()
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			tr.complain("answers: %v", err)
			continue
		}
		if _, id, ok := strings.Cut(string(buf[:n]), " "); ok { // "shop/victim trade-7"
			tr.mu.Lock()
			delete(tr.waiting, id)
			tr.mu.Unlock()
		}
	}
}

// connect holds one connection all the while, and opens new ones.
func (tr *trade) connect(ctx context.Context, server netip.AddrPort) {
	defer tr.wg.Done()
	long, err := tr.dial(ctx, server)
	if err != nil {
		tr.complain("long connection to %s: %v", server, err)
		return
	}
	defer long.Close()
	for ctx.Err() == nil {
		if err := ask(long); err != nil {
			tr.complain("long connection to %s: %v", server, err)
			return
		}
		if c, err := tr.dial(ctx, server); err == nil {
			if err := ask(c); err != nil {
				tr.complain("new connection to %s: %v", server, err)
			}
			c.Close()
		} else if ctx.Err() == nil {
			tr.complain("new connection to %s: %v", server, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * pace):
		}
	}
}

func (tr *trade) dial(ctx context.Context, server netip.AddrPort) (c net.Conn, err error) {
	err = firewall.Enter(tr.peer.path, func() error {
		d := net.Dialer{Timeout: 30 * time.Second}
		c, err = d.DialContext(ctx, "tcp", server.String())
		return err
	})
	return c, err
}

func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

// round sends over both families and waits until all that was sent before is answered. Its error
// says what was lost since the last call, and forgets it.
func (tr *trade) round() error {
	for _, c := range tr.udp {
		tr.send(c)
	}
	tr.mu.Lock()
	upTo := time.Now()
	tr.mu.Unlock()
	var lost []string
	eventually(func() bool {
		lost = tr.unanswered(upTo)
		return len(lost) == 0 || time.Since(upTo) > 10*time.Second
	})
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var errs []error
	if len(lost) > 0 {
		errs = append(errs, fmt.Errorf("%d datagrams without an answer: %s", len(lost), strings.Join(lost[:min(len(lost), 5)], ", ")))
		for _, id := range lost {
			delete(tr.waiting, id)
		}
	}
	for _, s := range tr.trouble {
		errs = append(errs, errors.New(s))
	}
	tr.trouble = nil
	return errors.Join(errs...)
}

func (tr *trade) unanswered(upTo time.Time) (out []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for id, at := range tr.waiting {
		if !at.After(upTo) {
			out = append(out, id)
		}
	}
	return out
}
