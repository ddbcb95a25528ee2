package daemon

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/holder"
)

// TestHolder: while the daemon is dead, root in a container cannot be rid of the rules either, and the
// next daemon finds them as they were.
func TestHolder(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.dir, "holder.sock")
	h, err := holder.Listen(path, slog.New(slog.DiscardHandler))
	n.must(err)
	life, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Run(life) }()
	defer func() {
		end()
		n.must(<-served)
	}()

	lines := []string{"defaultMode: enforce", "holder: " + path}
	d := n.start(lines...)
	web, cart, bad := n.pod("web-1"), n.pod("cart-1"), n.pod("bad-1")
	d.add(web, cart, bad)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})

	var tries, leaks atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, args := range [][]string{{"flush", "ruleset"}, {"delete", "table", "inet", "bulkhead"}} {
				_ = exec.Command("ip", append([]string{"netns", "exec", cart.nsName, "nft"}, args...)...).Run()
				tries.Add(1)
			}
			if c, err := bad.dial(cart.v4, 8080, 20*time.Millisecond); err == nil {
				c.Close()
				leaks.Add(1)
			}
		}
	}()
	for range 4 {
		d.kill()
		time.Sleep(200 * time.Millisecond)
		if out, err := exec.Command("ip", "netns", "exec", cart.nsName, "nft", "list", "table", "inet", "bulkhead").CombinedOutput(); err != nil {
			t.Errorf("the rules are gone while the daemon is away: %s", out)
		}
		d = n.start(lines...)
	}
	close(stop)
	<-stopped
	if leaks.Load() > 0 || tries.Load() < 20 {
		t.Errorf("of %d tries %d got through", tries.Load(), leaks.Load())
	}
	n.must(web.reaches(cart.v4, 8080))

	held := func() int {
		c, err := holder.Dial(path)
		n.must(err)
		defer c.Close()
		list, err := c.List()
		n.must(err)
		for _, f := range list {
			n.must(f.Close())
		}
		return len(list)
	}
	if got := held(); got != 3 {
		t.Errorf("%d sockets are held, want 3", got)
	}
	d.cni(bad.request("DEL"))
	if got := held(); got != 2 {
		t.Errorf("%d sockets are held after a DEL, want 2", got)
	}
}
