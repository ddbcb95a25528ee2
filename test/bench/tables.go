package main

import (
	"context"
	"fmt"
	"strings"
)

// benchTraffic measures our rules against none, and against the least that connection tracking needs.
func benchTraffic(ctx context.Context, o options) error {
	kinds := []rules{{name: noRules}}
	for _, w := range ways() {
		for _, n := range []int{10, 10_000, 100_000} {
			if w.name == ours || (w.name == unguarded || w.name == ctSet) && n == 10 {
				w.pairs = n
				if err := w.missing(); err != nil {
					fmt.Println("left out:", err)
					continue
				}
				kinds = append(kinds, w)
			}
		}
	}
	pairs, figures, err := bench(ctx, o, kinds)
	if err != nil {
		return err
	}
	fmt.Printf("\nCPU time against no rules, %d rounds, core %d: ratio of medians (95 %% interval) · the same by samples in hooks\n\n", o.rounds, o.core)
	header := []string{"traffic", "no rules, µs each"}
	for _, p := range pairs[1:] {
		header = append(header, p.String())
	}
	row(header)
	rule(len(header))
	for i, ld := range loads {
		if len(figures[i][0].cpu) == 0 {
			continue
		}
		cells := []string{ld.name, fmt.Sprintf("%.1f", median(figures[i][0].cpu))}
		for j := range pairs[1:] {
			f := figures[i][j+1]
			cells = append(cells, fmt.Sprintf("%v · %s", compare(figures[i][0].cpu, f.cpu), f.hookShare()))
		}
		row(cells)
	}
	fmt.Println()
	find := func(name string, n int) int {
		for j, p := range pairs {
			if p.name == name && p.pairs == n {
				return j
			}
		}
		return -1
	}
	for _, c := range []struct {
		what string
		a, b int
	}{
		{"100,000 pairs against 10", find(ours, 10), find(ours, 100_000)},
		{"connection tracking and a set, against Bulkhead (above 1: Bulkhead is cheaper)", find(ctSet, 10), find(ours, 10)},
	} {
		if c.a < 0 || c.b < 0 {
			continue
		}
		fmt.Printf("%s:", c.what)
		for i, ld := range loads {
			if len(figures[i][c.a].cpu) == 0 {
				continue
			}
			fmt.Printf(" %s %v;", ld.name, compare(figures[i][c.a].cpu, figures[i][c.b].cpu))
		}
		fmt.Println()
	}
	return nil
}

func row(cells []string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

func rule(n int) { fmt.Println("|" + strings.Repeat("---|", n)) }
