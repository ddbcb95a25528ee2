package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// benchAdds times libcni's ADD of one pod through bridge and host-local alone, and with the plugin
// and its daemon last in the chain, in turns. Wall time, for that is what a pod waits.
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
	fmt.Printf("\nADD: bridge and host-local alone %.1f ms, with Bulkhead %.1f ms (medians of %d, in turns); ratio %v\n",
		median(times[0]), median(times[1]), n, compare(times[0], times[1]))
	return nil
}
