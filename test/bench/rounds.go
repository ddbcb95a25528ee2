package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// figure is what one kind of traffic cost over one pair: µs of CPU per operation, round by round, and
// the samples taken meanwhile.
type figure struct {
	cpu        []float64
	all, hooks int
}

// hookShare says what sampling makes of the ratio: the part of the CPU time that was not in hooks.
func (f figure) hookShare() string {
	if f.all == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f", 1-float64(f.hooks)/float64(f.all))
}

// bench lays rules on a pair each and measures all loads over all of them: [load][pair].
func bench(ctx context.Context, o options, kinds []rules) (pairs []pair, out [][]figure, err error) {
	kinds = slices.DeleteFunc(slices.Clone(kinds), func(r rules) bool { return r.lay != nil && !strings.Contains(r.String(), o.kinds) })
	l, err := lab.Up(ctx, lab.Options{Manifests: manifests(len(kinds)), NoBulkhead: true, NoListen: true})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if err := pin(o.core); err != nil {
		return nil, nil, err
	}
	for i, k := range kinds {
		p, undo, err := lay(l, i, k)
		defer undo()
		if err != nil && k.lay != nil && k.name != ours {
			fmt.Printf("left out: %s: %v\n", k, err)
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", k, err)
		}
		pairs = append(pairs, p)
	}
	prof, err := openProfile(o.core)
	if err != nil {
		fmt.Println("no samples of the time in hooks:", err)
	} else {
		defer prof.close()
	}
	fmt.Fprintln(os.Stderr, "measuring", len(pairs), "pairs of workloads")
	out, err = measure(ctx, pairs, prof, o)
	return pairs, out, err
}

func measure(ctx context.Context, pairs []pair, prof *profile, o options) ([][]figure, error) {
	out := make([][]figure, len(loads))
	for i := range out {
		out[i] = make([]figure, len(pairs))
	}
	for round := -1; round < o.rounds; round++ { // round -1 warms up
		for i, ld := range loads {
			if !strings.Contains(ld.name, o.loads) {
				continue
			}
			for k := range pairs {
				j := (k + max(round, 0)) % len(pairs)
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				f := &out[i][j]
				if round < 0 {
					f = &figure{}
				}
				if err := f.turn(pairs[j], ld, prof); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", pairs[j], ld.name, err)
				}
			}
		}
	}
	return out, nil
}

// turn runs a load once over a pair.
func (f *figure) turn(p pair, ld load, prof *profile) error {
	return firewall.Enter(p.client, func() error {
		before, err := cpu()
		if err != nil {
			return err
		}
		if prof != nil {
			if err := prof.start(); err != nil {
				return err
			}
		}
		if err := ld.run(p.server, ld.n); err != nil {
			return err
		}
		after, err := cpu()
		if err != nil {
			return err
		}
		f.cpu = append(f.cpu, float64((after-before).Nanoseconds())/1000/float64(ld.n))
		if prof == nil {
			return nil
		}
		all, hooks, err := prof.stop()
		f.all, f.hooks = f.all+all, f.hooks+hooks
		return err
	})
}
