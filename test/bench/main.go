// Command bench measures what Bulkhead costs, as ratios against the same traffic without rules in
// the same run. `make bench` runs it; docs/performance.md says how to read it.
//
// Method: one lab with a bridge holds pairs of workloads: one without rules, the others with ours.
// This process is both ends of all of them, pinned to one core, and takes turns: a round is every
// kind of traffic over every pair, one after another, the first pair rotating. A round's figure is
// the CPU time (user and system) of the process per operation, which holds the kernel's work, since
// packets over a veth are processed in their sender's context. Each ratio is the median over rounds
// of the baseline's figure divided by the pair's, with its quartiles.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func main() {
	rounds := flag.Int("rounds", 20, "interleaved rounds")
	adds := flag.Int("adds", 15, "ADDs with and without the plugin")
	core := flag.Int("core", runtime.NumCPU()-1, "the core to stay on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *adds, *core); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, adds, core int) error {
	// ADDs first: they need both cores and programs of their own.
	if err := benchAdds(ctx, adds); err != nil {
		return fmt.Errorf("ADD latency: %w", err)
	}
	return benchTraffic(ctx, rounds, core)
}

func benchTraffic(ctx context.Context, rounds, core int) error {
	kinds := []struct {
		name    string
		entries int // 0: no rules at all
		guarded bool
	}{
		{"no rules", 0, false}, {"10 entries", 10, true}, {"10,000 entries", 10000, true}, {"10 entries, no guard", 10, false},
	}
	l, err := lab.Up(ctx, lab.Options{Manifests: manifests(len(kinds)), NoBulkhead: true, NoListen: true})
	if err != nil {
		return err
	}
	defer l.Down()
	if err := pin(core); err != nil {
		return err
	}
	var pairs []pair
	for i, k := range kinds {
		p, undo, err := lay(l, i, k.name, k.entries, k.guarded)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		defer undo()
		pairs = append(pairs, p)
	}
	figures, err := measure(ctx, pairs, rounds)
	if err != nil {
		return err
	}
	fmt.Printf("\nCPU time against no rules, %d rounds, core %d (above 1: cheaper than without rules)\n\n", rounds, core)
	fmt.Printf("| traffic | baseline, µs each |")
	for _, p := range pairs[1:] {
		fmt.Printf(" %s |", p.name)
	}
	fmt.Printf("\n|---|---|%s\n", strings.Repeat("---|", len(pairs)-1))
	for i, ld := range loads {
		base := figures[i][0]
		fmt.Printf("| %s | %.1f |", ld.name, median(base))
		for j := range pairs[1:] {
			fmt.Printf(" %v |", ratios(base, figures[i][j+1]))
		}
		fmt.Println()
	}
	return nil
}

// measure gives µs of CPU per operation: [load][pair][round].
func measure(ctx context.Context, pairs []pair, rounds int) ([][][]float64, error) {
	out := make([][][]float64, len(loads))
	for i := range out {
		out[i] = make([][]float64, len(pairs))
	}
	for round := -1; round < rounds; round++ { // round -1 warms up
		for i, ld := range loads {
			for k := range pairs {
				j := (k + max(round, 0)) % len(pairs)
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				us, err := once(pairs[j], ld)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", pairs[j].name, ld.name, err)
				}
				if round >= 0 {
					out[i][j] = append(out[i][j], us)
				}
			}
		}
	}
	return out, nil
}

func once(p pair, ld load) (us float64, err error) {
	err = firewall.Enter(p.client, func() error {
		before, err := cpu()
		if err != nil {
			return err
		}
		if err := ld.run(p.server, ld.n); err != nil {
			return err
		}
		after, err := cpu()
		us = float64((after - before).Nanoseconds()) / 1000 / float64(ld.n)
		return err
	})
	return us, err
}

// benchAdds times libcni's ADD of one pod through bridge and host-local alone, and with the plugin
// and its daemon last in the chain, in turns.
func benchAdds(ctx context.Context, n int) error {
	labs := make([]*lab.Lab, 2)
	for i := range labs {
		l, err := lab.Up(ctx, lab.Options{Manifests: manifests(1), NoBulkhead: i == 0, NoListen: true})
		if err != nil {
			return err
		}
		defer l.Down()
		labs[i] = l
	}
	times := make([][]float64, len(labs))
	for round := range n {
		for k := range labs {
			i := (k + round) % len(labs)
			if err := labs[i].Detach(ctx, podName("client", 0)); err != nil {
				return err
			}
			start := time.Now()
			if err := labs[i].Attach(ctx, podName("client", 0)); err != nil {
				return err
			}
			times[i] = append(times[i], float64(time.Since(start).Microseconds())/1000)
		}
	}
	fmt.Printf("ADD: bridge and host-local alone %.1f ms, with Bulkhead %.1f ms (medians of %d, in turns); ratio %v\n",
		median(times[0]), median(times[1]), n, ratios(times[0], times[1]))
	return nil
}

func podName(role string, i int) string { return fmt.Sprintf("bench/%s-%d", role, i) }

func manifests(pairs int) string {
	var b strings.Builder
	for i := range pairs {
		for _, role := range []string{"client", "server"} {
			fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: bench, labels: {app: %s-%d}}\nspec: {containers: [{name: c, image: none}]}\n",
				role, i, role, i)
		}
	}
	return b.String()
}
