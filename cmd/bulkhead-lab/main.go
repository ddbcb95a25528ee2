// Command bulkhead-lab makes a cluster on one machine out of Kubernetes manifests: nodes and pods
// as network namespaces, each node with its own bulkheadd. Package test/lab says how.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "interrupted; nothing was left behind")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "bulkhead-lab:", err)
		os.Exit(1)
	}
}
