// Command measure tells how fast things spread among full daemons: nodes of a lab on this machine, real
// UDP and TCP. `make bench-cluster` runs it, beside the simulation of large clusters.
//
// Times are taken from the daemons' own clocks, which are one: when a policy was handed to a daemon, when
// the last kernel took the rules that it asks for; when a container was a node's own, when the last of
// the others knew it. Nothing is polled in between but for the connection, which is tried every few
// milliseconds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-firewall/bulkhead/test/cluster"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var nodes, losses list
	flag.Var(&nodes, "nodes", "how many nodes, several with commas (default 3,5,10)")
	flag.Var(&losses, "loss", "per cent of gossip lost, several with commas (default 0,5,20)")
	samples := flag.Int("samples", 40, "of each kind")
	flag.Parse()
	if err := run(ctx, os.Stdout, nodes.or(3, 5, 10), losses.or(0, 5, 20), *samples); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

// list is a flag of several numbers.
type list []int

func (l *list) String() string { return fmt.Sprint(*l) }

func (l *list) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		*l = append(*l, n)
	}
	return nil
}

func (l list) or(standard ...int) []int {
	if len(l) > 0 {
		return l
	}
	return standard
}

func run(ctx context.Context, out io.Writer, nodes, losses []int, samples int) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "nodes\tgossip lost\tpolicy in the last kernel\tcontainer known everywhere\tpolicy to first connection\t")
	fmt.Fprintln(t, "\t%\tp50/p99 ms\tp50/p99 ms\tp50/p99 ms\t")
	for _, n := range nodes {
		if err := measure(ctx, t, n, losses, samples); err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
	}
	return t.Flush()
}

func measure(ctx context.Context, out io.Writer, nodes int, losses []int, samples int) (err error) {
	town, err := cluster.Up(ctx, nodes, lab.Options{Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer func() {
		if down := town.Down(); err == nil {
			err = down
		}
	}()
	sample := 0 // counts on from one loss to the next, so that no policy is written that is there already
	for _, loss := range losses {
		if err := town.Lose(lab.Gossip, loss, town.Names()...); err != nil {
			return err
		}
		fmt.Fprintf(out, "%d\t%d\t", nodes, loss)
		for _, kind := range []func(context.Context, *cluster.Town, int) (time.Duration, error){policy, container, connection} {
			var got []time.Duration
			for range samples {
				took, err := kind(ctx, town, sample)
				if err != nil {
					return err
				}
				sample++
				got = append(got, took)
			}
			fmt.Fprintf(out, "%s\t", percentiles(got))
		}
		fmt.Fprintln(out)
	}
	return nil
}

// percentiles gives the median and the 99th, of few samples the worst, in milliseconds.
func percentiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(p int) int64 { return all[min(len(all)*p/100, len(all)-1)].Milliseconds() }
	return fmt.Sprintf("%d / %d", at(50), at(99))
}

// longest bounds what one sample may take.
const longest = time.Minute

// policy changes what every container of a service lets in, on one node after the other, and tells when
// the last kernel had it.
func policy(ctx context.Context, town *cluster.Town, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	from := []string{"a"}
	if i%2 == 1 {
		from = append(from, "c")
	}
	node := town.Names()[i%len(town.Nodes)]
	begin := time.Now()
	if err := town.Apply(ctx, node, cluster.Only("measured", "b", from...)); err != nil {
		return 0, err
	}
	for {
		last, late, err := town.Applied(ctx, "b", begin)
		if err != nil {
			return 0, err
		}
		if late == "" {
			return last.Sub(begin), nil
		}
		select {
		case <-ctx.Done():
			// What they disagree about, if they do, tells more than that time is up.
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return 0, fmt.Errorf("policy %d, written on %s: not in force on %s after %v: %w", i, node, late, longest, errors.Join(ctx.Err(), town.OneMind(ctx)))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// container starts one anew and tells when the last other node knew it.
func container(ctx context.Context, town *cluster.Town, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	pod := fmt.Sprintf("shop/c%d", i%len(town.Nodes)+1)
	if err := town.Detach(ctx, pod); err != nil {
		return 0, err
	}
	if err := town.Knows(ctx, pod, false, town.Others(pod)...); err != nil {
		return 0, err
	}
	if err := town.Attach(ctx, pod); err != nil {
		return 0, err
	}
	if err := town.Knows(ctx, pod, true, town.Others(pod)...); err != nil {
		return 0, err
	}
	late, err := town.Spread(ctx, pod)
	var worst time.Duration
	for _, d := range late {
		worst = max(worst, d)
	}
	return worst, err
}

// connection writes the policy that admits a client, and tells when it first got through.
func connection(ctx context.Context, town *cluster.Town, i int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	names := town.Names()
	last := names[len(names)-1]
	if err := town.Apply(ctx, names[0], cluster.Only("closed", "a", "b")); err != nil {
		return 0, err
	}
	if err := town.Holds(ctx, "closed", true, names...); err != nil {
		return 0, err
	}
	client, server := "shop/c"+names[0][1:], town.Addr("shop/a"+last[1:], i%2 == 0)
	for town.Call(client, server, 20*time.Millisecond) == nil && ctx.Err() == nil {
	}
	begin := time.Now()
	done := make(chan time.Time, 1)
	go func() { // ends with ctx, or when it got through
		for ctx.Err() == nil && town.Call(client, server, 20*time.Millisecond) != nil {
		}
		done <- time.Now()
	}()
	writer := names[1%len(names)]
	err = town.Apply(ctx, writer, cluster.Only("opened", "a", "c"))
	took = (<-done).Sub(begin)
	if err == nil {
		err = town.Delete(ctx, writer, "opened")
	}
	if err == nil {
		err = town.Holds(ctx, "opened", false, names...)
	}
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("%s does not reach %s: %w", client, server, ctx.Err())
	}
	return took, err
}
