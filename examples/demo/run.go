package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

const (
	learnAtLeast = 8 * time.Second  // a wrong edge would show, and rare ones come twice
	learnAtMost  = 40 * time.Second // the rarest edge comes every 5 s, after its client is up
	phaseTime    = 6 * time.Second  // of normal traffic per mode: every rare edge at least once
	alertsTime   = 8 * time.Second  // until every kind of alert must have come
)

// run plays the demo from beginning to end. Its error says that something was not as promised, or
// that it could not go on; either way nothing is left behind unless keep says so.
func run(ctx context.Context, out io.Writer, keep bool) (err error) {
	was, err := snapshot()
	if err != nil {
		return err
	}
	s, err := open()
	if err != nil {
		return err
	}
	t := newTeller(out)
	t.say("Bulkhead: a shop of containers on this machine, learned, walled in, then attacked from inside.")
	err = perform(ctx, s, t)
	if keep && err == nil {
		err = t.summary()
		s.hints(t)
		return err
	}
	if downErr := s.down(); downErr != nil {
		return errors.Join(err, fmt.Errorf("take the shop down: %w", downErr))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; the shop was taken down")
	}
	if err != nil {
		return err
	}
	left, err := was.leftovers(s.lab.Name, s.lab.Dir, s.dir)
	if err != nil {
		return err
	}
	t.promise(len(left) == 0, "nothing left behind", "%s", orNone(left))
	return t.summary()
}

// perform is the seven acts. It ends early only when going on makes no sense.
func perform(ctx context.Context, s *stage, t *teller) error {
	for _, act := range []struct {
		title string
		play  func(context.Context, *stage, *teller) error
	}{
		{"The shop comes up through a real CNI chain", actUp},
		{"Learn: everything may pass, and is written down", actLearn},
		{"Generate: a policy that allows what was seen", actGenerate},
		{"Alert: the policy is tried, nothing is dropped", actAlert},
		{"Enforce: what the policy does not allow is dropped", actEnforce},
		{"Attack: " + attackerService + " was taken over", actAttack},
		{"Alerts: who, what, why", actAlerts},
	} {
		t.act(act.title)
		if err := act.play(ctx, s, t); err != nil {
			return err
		}
	}
	return nil
}

func actUp(ctx context.Context, s *stage, t *teller) error {
	began := time.Now()
	if err := s.up(ctx); err != nil {
		return err
	}
	t.say("%d pods attached by bridge, host-local and bulkhead-cni in %.1f s; rules were in force before any of them ran",
		len(s.graph.Pods()), time.Since(began).Seconds())
	if err := s.play(ctx); err != nil {
		return err
	}
	t.command("bulkhead status")
	status, err := s.cli(ctx, "status")
	if err != nil {
		return err
	}
	t.quote(status, 8)
	return nil
}

// actLearn waits until every edge of graph.yaml was reported, the rare one and that of the start
// too, and a little longer for one that should not be there.
func actLearn(ctx context.Context, s *stage, t *teller) error {
	var c comparison
	began := time.Now()
	for ctx.Err() == nil && time.Since(began) < learnAtMost {
		g, err := s.client.Graph(ctx)
		if err != nil {
			return err
		}
		c = compare(s.graph, g)
		if c.Found == c.True {
			break
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	took := time.Since(began)
	if err := pause(ctx, learnAtLeast-took); err != nil {
		return err
	}
	g, err := s.client.Graph(ctx)
	if err != nil {
		return err
	}
	c = compare(s.graph, g)
	done, err := s.count()
	if err != nil {
		return err
	}
	t.say("%s; the last true edge came after %.0f s", done, took.Seconds())
	t.command("bulkhead graph")
	text, err := s.cli(ctx, "graph")
	if err != nil {
		return err
	}
	t.quote(text, 12)
	for _, e := range c.Missing {
		t.say("not seen: %s", e)
	}
	for _, e := range c.Wrong {
		t.say("wrong: %s", e)
	}
	t.promise(c.Found == c.True && len(c.Wrong) == 0, "learned graph against the true one", "%d of %d edges, %d wrong", c.Found, c.True, len(c.Wrong))
	t.promise(done.failures == 0, "calls while learning", "%s", done)
	return nil
}

func actGenerate(ctx context.Context, s *stage, t *teller) error {
	dir := filepath.Join(s.dir, "policies")
	t.command("bulkhead policy generate --out policies")
	written, err := s.cli(ctx, "policy", "generate", "--out", dir)
	if err != nil {
		return err
	}
	files := strings.Count(written, "\n")
	t.say("%d files; here is one of them, policies/default-%s.yaml:", files, friendService)
	t.quote(read(filepath.Join(dir, "default-"+friendService+".yaml")), 28)
	t.command("bulkhead policy lint -f policies")
	found, err := s.cli(ctx, "policy", "lint", "-f", dir)
	t.promise(err == nil, "generated policies", "%d files, nothing wrong with them", files)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, found)
	}
	return nil
}

func actAlert(ctx context.Context, s *stage, t *teller) error {
	t.command("bulkhead policy apply -f policies --mode alert")
	out, err := s.cli(ctx, "policy", "apply", "-f", filepath.Join(s.dir, "policies"), "--mode", "alert", "--yes")
	if err != nil {
		return err
	}
	t.quote(lastLines(out, 2), 2)
	if err := traffic(ctx, s, t, "calls in mode alert"); err != nil {
		return err
	}
	status, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	t.promise(status.Counters.WouldDeny == 0, "false alarms in mode alert", "%d connections that policy would deny", status.Counters.WouldDeny)
	return nil
}

// actEnforce puts the policy in force, and then makes every call of the graph afresh, as if each
// service had just been restarted: edges of the start must pass too.
func actEnforce(ctx context.Context, s *stage, t *teller) error {
	t.command("bulkhead mode --all enforce")
	out, err := s.cli(ctx, "mode", "--all", "enforce")
	if err != nil {
		return err
	}
	t.quote(out, 2)
	if err := traffic(ctx, s, t, "calls in mode enforce"); err != nil {
		return err
	}
	once, err := s.once(ctx)
	if err != nil {
		return err
	}
	t.promise(once.failures == 0 && once.edges > 0, "every true edge anew, as after a restart", "%s", once)
	return nil
}

// traffic lets the shop run for a while and notes whether any call failed.
func traffic(ctx context.Context, s *stage, t *teller, what string) error {
	before, err := s.count()
	if err != nil {
		return err
	}
	if err := pause(ctx, phaseTime); err != nil {
		return err
	}
	after, err := s.count()
	if err != nil {
		return err
	}
	d := after.since(before)
	t.promise(d.calls > 0 && d.failures == 0, what, "%s", d)
	return nil
}

func actAttack(ctx context.Context, s *stage, t *teller) error {
	before, err := s.count()
	if err != nil {
		return err
	}
	b, err := s.startBattle(ctx, t)
	if err != nil {
		return err
	}
	t.say("its honest calls go to the catalogue and DNS; an ear at %s's interface, before all rules, tells what arrives", victimService)
	if err := b.run(ctx); err != nil {
		return err
	}
	after, err := s.count()
	if err != nil {
		return err
	}
	d := after.since(before)
	t.promise(d.calls > 0 && d.failures == 0, "calls of the shop meanwhile", "%s", d)
	return nil
}
