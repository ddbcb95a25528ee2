package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// ratio is what the baseline costs over what another costs: the ratio of their medians over the rounds,
// and the interval in which it lies with 95 % confidence. Below 1 means that the other costs more.
type ratio struct {
	value, low, high float64
	n                int
}

func (r ratio) String() string {
	if r.n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f (%.3f–%.3f)", r.value, r.low, r.high)
}

// resamples is how often the rounds are drawn anew for the interval: a bootstrap by percentiles.
const resamples = 2000

// compare gives the ratio of two lists of the same rounds. A round is drawn as a whole, since what
// disturbs one of its figures disturbs the other. The draws are seeded: the same figures give the same
// interval.
func compare(base, other []float64) ratio {
	n := len(base)
	if n == 0 || len(other) != n {
		return ratio{}
	}
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	drawn := make([]float64, resamples)
	b, o := make([]float64, n), make([]float64, n)
	for i := range drawn {
		for j := range n {
			k := rng.IntN(n)
			b[j], o[j] = base[k], other[k]
		}
		drawn[i] = median(b) / median(o)
	}
	slices.Sort(drawn)
	return ratio{value: median(base) / median(other), low: quantile(drawn, 0.025), high: quantile(drawn, 0.975), n: n}
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
