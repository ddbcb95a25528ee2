package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bulkhead-firewall/bulkhead/kube"
)

const (
	parallelADDs = 4 // two plugins' worth of work per core of a small machine
	daemonStart  = 30 * time.Second
	settle       = 2 * time.Minute // until policies are in force everywhere
)

// make does what plan decided, in the order in which a cluster comes up.
func (l *Lab) make(ctx context.Context, inv *kube.Inventory, o Options, progress func(string, ...any)) error {
	start := time.Now()
	if err := prepareNamespaceDir(); err != nil {
		return err
	}
	if err := l.wire(); err != nil {
		return err
	}
	if err := l.serve(); err != nil {
		return err
	}
	progress("%d nodes, %d Service ports, %.1f s", len(l.Nodes), len(l.VIPs), time.Since(start).Seconds())
	if err := l.files(inv, o.Config); err != nil {
		return err
	}
	if l.Bulkhead {
		if err := l.daemons(ctx); err != nil {
			return err
		}
		progress("bulkheadd on every node, %.1f s", time.Since(start).Seconds())
	}
	if err := l.attachAll(ctx, o.Parallel, progress); err != nil {
		return err
	}
	progress("%d pods, %.1f s", len(l.Pods), time.Since(start).Seconds())
	st, err := l.startAgent(ctx)
	if err != nil {
		return err
	}
	for _, problem := range st.Problems {
		progress("note: %s", problem)
	}
	progress("%d listeners, %.1f s", st.Listeners, time.Since(start).Seconds())
	if !l.Bulkhead {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if err := errors.Join(l.inForce(ctx), l.knownEverywhere(ctx)); err != nil {
		return err
	}
	progress("%d policies in force, mode %s, %.1f s", l.Policies, l.Mode, time.Since(start).Seconds())
	return nil
}

// files writes everything that daemons and plugins read.
func (l *Lab) files(inv *kube.Inventory, more map[string]any) error {
	if err := l.join(); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if err := errors.Join(l.conflists(n), l.configure(n, inv, more)); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

func (l *Lab) daemons(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	for _, n := range l.Nodes {
		if err := errors.Join(l.startHolder(n), l.startDaemon(n)); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes {
		if err := n.ready(ctx); err != nil {
			return err
		}
	}
	return os.Symlink(l.Nodes[0].Socket(), l.Socket())
}

// attachAll runs the ADDs, some at a time.
func (l *Lab) attachAll(ctx context.Context, parallel int, progress func(string, ...any)) error {
	if parallel <= 0 {
		parallel = parallelADDs
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, p := range l.Pods {
		if p.HostNetwork {
			continue
		}
		if i > 0 && i%50 == 0 {
			progress("%d of %d pods", i, len(l.Pods))
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return l.attach(ctx, p)
		})
	}
	return group.Wait()
}

// startAgent starts the process of listeners and probes and waits until it is ready.
func (l *Lab) startAgent(ctx context.Context) (agentStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	log := filepath.Join(l.Dir, "agent.log")
	if err := l.spawn("", "agent", log, filepath.Join(l.Bin, "bulkhead-lab"), "agent", "--dir", l.Dir); err != nil {
		return agentStatus{}, err
	}
	st, err := l.agent.ready(ctx)
	if err != nil {
		return st, fmt.Errorf("%w; its log ends:\n%s", err, tail(log))
	}
	return st, nil
}

// spawn starts a process that lives until Down. Where this process does not outlive it, init reaps.
func (l *Lab) spawn(ns, what, log string, argv ...string) error {
	cmd, err := l.start(ns, what, log, argv...)
	if cmd != nil {
		l.wg.Add(1)
		go func() { // ends with the process, at the latest in Down
			defer l.wg.Done()
			_ = cmd.Wait() // its exit is seen by whoever needs it
		}()
	}
	return err
}
