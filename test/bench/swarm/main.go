// Command swarm spreads changes through many nodes in one process, on a clock of its own: the real replicated
// state (package gossip) over memberlist's real queue, with a network that delays and loses. It prints
// how long a change takes to reach every node, and what that costs, as a table or as JSON lines.
//
//	go run ./test/bench/swarm -nodes 100,1000,10000 -endpoints 10 -churn 1 -loss 0,5,20
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "swarm:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("swarm", flag.ContinueOnError)
	nodes := f.String("nodes", "10,100,1000", "sizes of the cluster")
	loss := f.String("loss", "0,5,20", "packets lost, per cent")
	endpoints := f.Int("endpoints", 10, "workloads of each node")
	churn := f.Float64("churn", 1, "workloads that come or go in a minute, per cent of all")
	changes := f.Int("changes", 60, "how many changes are looked at")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "of the dice")
	picture := f.String("plot", "", "file for a picture of it, SVG")
	asJSON := f.Bool("json", false, "a JSON object for each row")
	if err := f.Parse(args); err != nil {
		return err
	}
	sizes, err := numbers(*nodes)
	if err != nil {
		return err
	}
	losses, err := numbers(*loss)
	if err != nil {
		return err
	}
	rows := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !*asJSON {
		fmt.Fprintf(out, "seed %d; %d workloads a node, %g %% come or go in a minute\n", *seed, *endpoints, *churn)
		fmt.Fprintln(rows, "nodes\tloss\tchanges/s\tat a node p50\tp99\tat the last p50\tp99\tbytes/s a node\tfor a change\tpackets/s\tCPU a change\t")
	}
	var all []result
	for _, n := range sizes {
		for _, l := range losses {
			r := simulate(plan{Nodes: n, Loss: l, Changes: *changes, Seed: *seed, Rate: float64(n*(*endpoints)) * *churn / 100 / 60})
			all = append(all, r)
			if *asJSON {
				if err := json.NewEncoder(out).Encode(r); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(rows, "%d\t%d %%\t%.2f\t%v\t%v\t%v\t%v\t%.0f\t%.0f\t%.1f\t%v\t\n", n, l, r.Rate, r.Node50, r.Node99, r.Last50, r.Last99,
				r.Bytes, r.PerChange, r.Packets, r.CPU)
		}
	}
	if *picture != "" {
		if err := os.WriteFile(*picture, draw(all), 0o644); err != nil {
			return err
		}
	}
	return rows.Flush()
}

func numbers(list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q: want numbers and commas, such as 10,100", list)
		}
		out = append(out, n)
	}
	return out, nil
}
