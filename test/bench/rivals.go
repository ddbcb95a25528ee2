package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// benchRivals measures every way with every number of pairs against no rules. What is not installed, or
// not loaded, is said and left out.
func benchRivals(ctx context.Context, o options) error {
	kinds := []rules{{name: noRules}}
	for _, w := range ways() {
		if err := w.missing(); err != nil {
			fmt.Println("left out:", err)
			continue
		}
		for _, n := range o.sizes {
			w.pairs = n
			kinds = append(kinds, w)
		}
	}
	pairs, figures, err := bench(ctx, o, kinds)
	if err != nil {
		return err
	}
	names := []string{}
	for _, p := range pairs[1:] {
		if !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	var panels [][]curve
	var titles []string
	for i, ld := range loads {
		if len(figures[i][0].cpu) == 0 {
			continue
		}
		fmt.Printf("\n%s, CPU time against no rules (%.1f µs), %d rounds: ratio of medians (95 %% interval)\n\n", ld.name, median(figures[i][0].cpu), o.rounds)
		header := []string{"rules"}
		for _, n := range o.sizes {
			header = append(header, strconv.Itoa(n)+" pairs")
		}
		row(header)
		rule(len(header))
		var curves []curve
		for _, name := range names {
			c := curve{name: name, points: map[int]ratio{}}
			cells := []string{name}
			for _, n := range o.sizes {
				j := slices.IndexFunc(pairs, func(p pair) bool { return p.name == name && p.pairs == n })
				r := ratio{}
				if j >= 0 {
					r = compare(figures[i][0].cpu, figures[i][j].cpu)
					c.points[n] = r
				}
				cells = append(cells, r.String())
			}
			row(cells)
			curves = append(curves, c)
		}
		if ld.name == loads[0].name || ld.name == loads[1].name {
			panels, titles = append(panels, curves), append(titles, ld.name)
		}
	}
	if o.plot == "" || len(panels) == 0 {
		return nil
	}
	return plot(o.plot, o.sizes, titles, panels)
}
