package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
)

// spread is a ratio over many paired rounds: median, and the quartiles that show how far to trust it.
type spread struct {
	median, low, high float64
	n                 int
}

func (s spread) String() string {
	return fmt.Sprintf("%.3f (%.3f–%.3f, n=%d)", s.median, s.low, s.high, s.n)
}

// ratios gives base/other round by round: below 1 means that other costs more than the baseline.
func ratios(base, other []float64) spread {
	r := make([]float64, len(base))
	for i := range base {
		r[i] = base[i] / other[i]
	}
	slices.Sort(r)
	return spread{median: quantile(r, 0.5), low: quantile(r, 0.25), high: quantile(r, 0.75), n: len(r)}
}

// median of a list that is not empty.
func median(list []float64) float64 {
	s := slices.Clone(list)
	slices.Sort(s)
	return quantile(s, 0.5)
}

// quantile of a sorted, non-empty list, linear between neighbours.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func eachThread(do func(tid int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := do(tid); err != nil {
			return fmt.Errorf("pin thread %d: %w", tid, err)
		}
	}
	return nil
}
