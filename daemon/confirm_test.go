package daemon

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// cutting is a change that cuts web off from cart, to be confirmed.
func cutting(within string) api.ApplyRequest {
	return api.ApplyRequest{Files: []api.File{allowing("cart", "nobody")}, Mode: "enforce", ConfirmWithin: within}
}

func (p *process) wantReach(when string, from, to *pod, port int, want bool) {
	p.n.t.Helper()
	if err := from.reaches(to.v4, port); (err == nil) != want {
		p.n.t.Errorf("%s: %s reaches %s: %v; want it: %t", when, from.name, to.name, err, want)
	}
}

func (p *process) pending() *api.Pending {
	p.n.t.Helper()
	s, err := p.client.Status(ctx)
	p.n.must(err)
	return s.Pending
}

// state is what the history says of a generation.
func (p *process) state(n uint64) string {
	p.n.t.Helper()
	g, err := p.client.Generation(ctx, n)
	p.n.must(err)
	return g.State
}

// TestConfirm: a change that nobody confirms in time is undone, with the modes that came with it; one
// that is confirmed stays.
func TestConfirm(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	r := d.do(cutting("2s"))
	if r.Pending == nil || r.Pending.Generation != 1 || r.Pending.Seconds <= 1 || r.Pending.Seconds > 2 || r.Workloads != 2 {
		t.Fatalf("applied: %+v", r)
	}
	d.wantReach("while it waits", web, cart, 8080, false)
	d.refuses(api.ApplyRequest{Files: []api.File{allowing("b", "web")}}, api.Conflict, "generation 1 of ", "waits for confirmation until", "policy confirm", "policy rollback")
	d.refuses(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "cart"}}}, api.Conflict, "waits for confirmation")
	d.refuses(api.ApplyRequest{Do: api.DoRollback, Generation: number64(1)}, api.Conflict, "waits for confirmation")
	eventually(t, 5*time.Second, "undone", func() error {
		if p := d.pending(); p != nil {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	d.wantReach("undone", web, cart, 8080, true)
	d.wantRows("undone", "")
	if m, err := d.client.Modes(ctx); err != nil || m[1].Service != "shop/cart" || m[1].Mode != "learn" {
		t.Errorf("modes %+v, %v", m, err)
	}
	if s := d.state(1); s != "rolled back" {
		t.Errorf("generation 1 is %q", s)
	}
	if _, err := d.client.Confirm(ctx, api.ConfirmRequest{}); !api.HasCode(err, api.Conflict) || err.Error() != "generation 1 was rolled back: it was not confirmed in time, or not wanted" {
		t.Errorf("too late: %v", err)
	}

	d.do(cutting("1s"))
	if _, err := d.client.Confirm(ctx, api.ConfirmRequest{Generation: 2}); !api.HasCode(err, api.Conflict) {
		t.Errorf("confirm of another generation: %v", err)
	}
	c, err := d.client.Confirm(ctx, api.ConfirmRequest{Generation: 3})
	if err != nil || c.Generation != 3 {
		t.Fatalf("confirm: %+v, %v", c, err)
	}
	time.Sleep(1500 * time.Millisecond)
	d.wantReach("confirmed", web, cart, 8080, false)
	if s := d.state(3); s != "confirmed" {
		t.Errorf("generation 3 is %q", s)
	}

	// Not wanted: undone at once, and what came meanwhile stays.
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Mode: "learn", ConfirmWithin: "1h"})
	d.mode("shop/web", "alert")
	d.wantReach("the next", web, cart, 8080, true)
	if r := d.do(api.ApplyRequest{Do: api.DoRollback}); r.Pending != nil || len(r.Changed) != 1 {
		t.Errorf("not wanted: %+v", r)
	}
	d.wantReach("not wanted", web, cart, 8080, false)
	d.wantRows("not wanted", "cart=nobody")
	if m, err := d.client.Modes(ctx); err != nil || m[2].Service != "shop/web" || m[2].Mode != "alert" {
		t.Errorf("modes %+v, %v", m, err)
	}
	d.refuses(cutting("1ms"), api.BadRequest, `confirmWithin "1ms": want a span of 1s to 24h0m0s`)
	d.refuses(cutting("soon"), api.BadRequest, `confirmWithin "soon"`)
}

// TestConfirmAcrossCrashes: a deadline is kept whenever the daemon dies, and one that passed while it
// was away is kept before the first workload is touched.
func TestConfirmAcrossCrashes(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	back := func(when string) {
		t.Helper()
		eventually(t, 5*time.Second, when, func() error { return web.reaches(cart.v4, 8080) })
		if d.pending() != nil {
			t.Errorf("%s: it still waits", when)
		}
		d.wantRows(when, "")
	}

	d.do(cutting("3s"))
	d.kill()
	d.wantReach("while no daemon runs", web, cart, 8080, false)
	d = n.start()
	if p := d.pending(); p == nil || p.Seconds > 3 || p.Generation != 1 {
		t.Errorf("after a crash before the deadline: %+v", p)
	}
	d.wantReach("before the deadline", web, cart, 8080, false)
	back("after the deadline")

	begin := d.do(cutting("1s")).Generation
	d.kill()
	time.Sleep(1200 * time.Millisecond)
	d.wantReach("past the deadline, while no daemon runs", web, cart, 8080, false)
	d = n.start() // is ready only when all workloads hold what is wanted
	d.wantReach("at once after the start", web, cart, 8080, true)
	if s := d.state(begin); s != "rolled back" {
		t.Errorf("generation %d is %q", begin, s)
	}
	back("past the deadline")

	// Whenever it dies around the call and the deadline, in the end nothing of the change is left.
	random := rand.New(rand.NewPCG(3, 4))
	for range 6 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = d.client.Apply(ctx, cutting("1s"))
		}()
		time.Sleep(time.Duration(random.IntN(1200)) * time.Millisecond)
		d.kill()
		<-done
		d = n.start()
		eventually(t, 5*time.Second, "settled", func() error {
			if d.pending() != nil {
				return errNot
			}
			return nil
		})
		back("killed")
	}
}

// TestConfirmOnFullDisk: a full disk keeps nothing in force that was not confirmed, and the store follows
// when there is room again.
func TestConfirmOnFullDisk(t *testing.T) {
	n := newNode(t)
	state := filepath.Join(n.dir, "state")
	n.must(os.Mkdir(state, 0o700))
	n.must(unix.Mount("none", state, "tmpfs", 0, "size=768k"))
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	// The history keeps the text that goes: bbolt wants new pages for it, beside those that are free.
	second := allowing("cart", "nobody")
	second.Data = strings.Repeat("# "+strings.Repeat("x", 100)+"\n", 2000) + second.Data
	d.apply("enforce", allowing("cart", "web"))
	d.do(api.ApplyRequest{Files: []api.File{second}, ConfirmWithin: "3s"})
	d.wantReach("while it waits", web, cart, 8080, false)
	filler := filepath.Join(state, "filler")
	f, err := os.Create(filler)
	n.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	eventually(t, 5*time.Second, "undone in force", func() error { return web.reaches(cart.v4, 8080) })
	s, err := d.client.Status(ctx)
	n.must(err)
	if text := strings.Join(s.Warnings, "\n"); s.Pending == nil || !strings.Contains(text, "it is undone, which is not stored yet") {
		t.Fatalf("the store found room all the same: %+v %s", s.Pending, text)
	}
	n.must(os.Remove(filler))
	eventually(t, 5*time.Second, "stored", func() error {
		if d.pending() != nil {
			return errNot
		}
		return nil
	})
	d.kill()
	d = n.start()
	d.wantReach("after a restart", web, cart, 8080, true)
	if s := d.state(2); s != "rolled back" {
		t.Errorf("generation 2 is %q", s)
	}
}

// TestPendingLeft: within one boot only the time since boot counts, in another one only the clock, and
// neither lets a change live longer than it was given.
func TestPendingLeft(t *testing.T) {
	wall := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := StoredPending{Began: wall, Deadline: wall.Add(time.Minute), Boot: "a", SinceBoot: 1060 * time.Second}
	for _, c := range []struct {
		what string
		at   moment
		want time.Duration
	}{
		{"at once", moment{wall, "a", 1000 * time.Second}, time.Minute},
		{"the clock was set ahead", moment{wall.Add(time.Hour), "a", 1010 * time.Second}, 50 * time.Second},
		{"the clock was set back", moment{wall.Add(-time.Hour), "a", 1061 * time.Second}, -time.Second},
		{"another boot, in time", moment{wall.Add(40 * time.Second), "b", 10 * time.Second}, 20 * time.Second},
		{"another boot, too late", moment{wall.Add(2 * time.Minute), "b", 10 * time.Second}, -time.Minute},
		{"another boot with a clock in the past", moment{time.Unix(0, 0), "b", 10 * time.Second}, time.Minute},
		{"the boot is not known", moment{wall.Add(40 * time.Second), "", 0}, 20 * time.Second},
	} {
		if got := p.left(c.at); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
