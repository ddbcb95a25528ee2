package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const threeNodes = `
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {app: a}}, spec: {nodeName: n1, containers: [{ports: [{containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.244.1.10}, {ip: "fd00:244:1::10"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: shop, labels: {app: b}}, spec: {nodeName: n2, containers: [{ports: [{containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.244.2.10}, {ip: "fd00:244:2::10"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: shop, labels: {app: c}}, spec: {nodeName: n3, containers: [{ports: [{containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.244.3.10}, {ip: "fd00:244:3::10"}]}}
`

func TestFaultRules(t *testing.T) {
	s := &State{Nodes: []*Node{{Name: "east"}, {Name: "west"}, {Name: "north"}}}
	got := s.faultRules(faults{
		Cut:  []cut{{"east", "west", All}, {"east", "north", Gossip}},
		Lose: map[string]loss{"west": {20, Gossip}, "north": {20, Gossip}, "east": {5, All}},
	})
	want := `table bridge faults
delete table bridge faults
table bridge faults {
	chain gossip {
		iifname { "n1", "r1" } oifname { "n3", "r3" } counter drop
		iifname { "n3", "r3" } oifname { "n1", "r1" } counter drop
		iifname { "n2", "n3", "r2", "r3" } numgen random mod 100 < 20 counter drop
		iifname != { "n2", "n3", "r2", "r3" } oifname { "n2", "n3", "r2", "r3" } numgen random mod 100 < 20 counter drop
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname { "n1", "r1" } oifname { "n2", "r2" } counter drop
		iifname { "n2", "r2" } oifname { "n1", "r1" } counter drop
		iifname { "n1", "r1" } numgen random mod 100 < 5 counter drop
		iifname != { "n1", "r1" } oifname { "n1", "r1" } numgen random mod 100 < 5 counter drop
		meta l4proto { tcp, udp } th dport 7946 goto gossip
		meta l4proto { tcp, udp } th sport 7946 goto gossip
	}
}
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestFaults holds what each fault of the LAN stops, what it lets pass, and that healing ends it.
func TestFaults(t *testing.T) {
	l := up(t, Options{Manifests: threeNodes, NoBulkhead: true})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Nodes speak gossip's port, pods theirs; 1 to 2, 1 to 3, 2 to 3.
	ways := []string{"n1 n2 UDP/7946", "n1 n2 TCP/7946", "shop/a shop/b TCP/8080", "shop/a fd00:244:3::10 UDP/53", "n2 n3 UDP/7946", "shop/b shop/c TCP/8080"}
	expect := func(what, want string) {
		t.Helper()
		got := ""
		answers := asked(t, l, ways)
		for _, w := range ways {
			if answers[w] == "deny" {
				got += "x"
			} else {
				got += "-"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s: %v", what, got, want, answers)
		}
	}
	must(l.Cut(All, []string{"n1"}, nil))
	expect("n1 cut off", "xxxx--")
	must(l.Heal("n1"))
	must(l.Cut(Gossip, []string{"n1", "n3"}, []string{"n2"}))
	expect("gossip with n2 cut", "xx--x-")
	must(l.Heal())
	must(l.Unplug("n3"))
	expect("n3 unplugged", "---xxx")
	must(l.Heal("n3"))
	expect("healed", "------")
	if err := l.Cut(All, []string{"n9"}, nil); err == nil {
		t.Error("a node that is not there was cut off")
	}
	if err := l.Lose(All, 100, "n1"); err == nil {
		t.Error("a loss of everything was taken")
	}
}

// TestLossAndRelay sends numbered datagrams over a LAN that loses some, and over a relay that delays, doubles
// and reorders them; and a stream, which arrives whole over both.
func TestLossAndRelay(t *testing.T) {
	l := up(t, Options{Manifests: threeNodes, NoBulkhead: true})
	const n = 400
	if err := l.Lose(All, 30, "n2"); err != nil {
		t.Fatal(err)
	}
	if got := datagrams(t, l, n); got.different < n/2 || got.different > n*9/10 || got.twice != 0 {
		t.Errorf("30%% loss: %+v of %d", got, n)
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Bend(ctx, "n2", Shape{Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Duplicate: 20}); err != nil {
		t.Fatal(err)
	}
	got := datagrams(t, l, n)
	if got.different < n*9/10 || got.twice < n/20 || got.twice > n/2 || got.overtaken < n/20 || got.soonest < 30*time.Millisecond {
		t.Errorf("relay: %+v of %d", got, n)
	}
	stream(t, l, 4<<20)
	if err := l.Bend(ctx, "n2", Shape{}); err != nil { // another in its place
		t.Fatal(err)
	}
	stream(t, l, 4<<20)
	if err := l.Straight("n2"); err != nil {
		t.Fatal(err)
	}
	if got := datagrams(t, l, n); got.different < n*9/10 || got.twice != 0 || got.overtaken > n/20 {
		t.Errorf("relay taken out: %+v of %d", got, n)
	}
}

type arrived struct {
	different, twice, overtaken int
	soonest                     time.Duration
}

// datagrams sends numbers from pod a to pod b, a little apart, and tells what came.
func datagrams(t *testing.T, l *Lab, n int) arrived {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	in(t, l, "shop/b", func() (err error) { server, err = net.ListenPacket("udp4", "10.244.2.10:9999"); return err })
	defer server.Close()
	in(t, l, "shop/a", func() (err error) { client, err = net.Dial("udp4", "10.244.2.10:9999"); return err })
	defer client.Close()
	meet(t, client, server)
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := fmt.Fprintf(client, "%d %d", i, time.Now().UnixNano()); err != nil {
				sent <- err
				return
			}
			time.Sleep(200 * time.Microsecond)
		}
		sent <- nil
	}()
	out, seen, last := arrived{soonest: time.Hour}, map[int]bool{}, -1
	buf := make([]byte, 100)
	for len(seen) < n {
		if err := server.SetReadDeadline(time.Now().Add(700 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		size, _, err := server.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		var i int
		var at int64
		if _, scan := fmt.Sscanf(string(buf[:size]), "%d %d", &i, &at); err != nil || scan != nil {
			t.Fatal(err, scan)
		}
		if i < 0 { // of meet, late
			continue
		}
		if seen[i] {
			out.twice++
		} else if i < last {
			out.overtaken++
		}
		seen[i], last = true, i
		out.soonest = min(out.soonest, time.Since(time.Unix(0, at)))
	}
	out.different = len(seen)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	return out
}

// meet sends until something arrives: where a neighbour is asked for and the question is lost, the next
// one comes a second later.
func meet(t *testing.T, client net.Conn, server net.PacketConn) {
	t.Helper()
	buf := make([]byte, 100)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		_, err := fmt.Fprint(client, "-1 0")
		if err := errors.Join(err, server.SetReadDeadline(time.Now().Add(100*time.Millisecond))); err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ReadFrom(buf); err == nil {
			return
		}
	}
	t.Fatal("nothing arrives")
}

// stream sends bytes from pod a to pod b over IPv6 and compares what comes out.
func stream(t *testing.T, l *Lab, size int) {
	t.Helper()
	var server net.Listener
	in(t, l, "shop/b", func() (err error) {
		server, err = net.Listen("tcp6", netip.AddrPortFrom(netip.MustParseAddr("fd00:244:2::10"), 9999).String())
		return err
	})
	defer server.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sent := make(chan error, 1)
	go func() {
		sent <- within(nsPath(l.pod("shop/a").NetNS), func() error {
			c, err := net.Dial("tcp6", server.Addr().String())
			if err != nil {
				return err
			}
			_, err = c.Write(want)
			return errors.Join(err, c.Close())
		})
	}()
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(want, got) {
		t.Errorf("stream: %v, %d of %d bytes, equal %v", err, len(got), len(want), bytes.Equal(want, got))
	}
}

// in runs f on a thread inside of a pod's network.
func in(t *testing.T, l *Lab, pod string, f func() error) {
	t.Helper()
	if err := within(nsPath(l.pod(pod).NetNS), f); err != nil {
		t.Fatal(err)
	}
}
