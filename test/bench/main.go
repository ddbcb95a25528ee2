// Command bench measures what Bulkhead costs, as ratios against the same traffic without rules in
// the same run. `make bench` runs it; docs/performance.md says how to read it.
//
// Method: one lab with a bridge holds pairs of workloads, one kind of rules on each. This process is
// both ends of all of them, pinned to one core, and takes turns: a round is every kind of traffic over
// every pair, one after another, the first pair rotating. A turn's figure is the CPU time (user and
// system) of the process per operation, which holds the kernel's work, since packets over a veth are
// processed in their sender's context. A ratio is that of the medians over the rounds, with the interval
// that bootstrapping gives it. Beside it stands what sampling the kernel says of the time in hooks.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// options say what is measured and how long.
type options struct {
	rounds, adds, core int
	only               []string
	plot               string
	kinds, loads       string // parts of their names; empty: all
	sizes              []int
}

func main() {
	o := options{}
	only := flag.String("only", "adds,changes,traffic,rivals", "what to measure, of: adds, changes, traffic, rivals")
	flag.IntVar(&o.rounds, "rounds", 40, "interleaved rounds")
	flag.IntVar(&o.adds, "adds", 15, "ADDs with and without the plugin")
	flag.IntVar(&o.core, "core", runtime.NumCPU()-1, "the core to stay on")
	sizes := flag.String("sizes", "10,100,1000,10000,100000", "numbers of pairs for the rivals")
	flag.StringVar(&o.plot, "plot", "", "PNG of the rivals' curves")
	flag.StringVar(&o.kinds, "kinds", "", "only the rules whose name and number of pairs contain this")
	flag.StringVar(&o.loads, "loads", "", "only the traffic whose name contains this")
	flag.Parse()
	o.only = strings.Split(*only, ",")
	for _, w := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(w)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: -sizes:", err)
			os.Exit(2)
		}
		o.sizes = append(o.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	// ADDs first: they need both cores and programs of their own.
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"adds", func() error { return benchAdds(ctx, o.adds) }},
		{"changes", func() error { return benchChanges(ctx, o) }},
		{"traffic", func() error { return benchTraffic(ctx, o) }},
		{"rivals", func() error { return benchRivals(ctx, o) }},
	} {
		if !slices.Contains(o.only, part.name) {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}
