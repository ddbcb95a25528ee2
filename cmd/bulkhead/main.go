// Command bulkhead is how a person asks the daemon: what runs, who talks to whom, which policy
// says so, and what to change. It holds no state and touches no kernel; all but the commands that
// work on files goes through the daemon's unix socket.
//
// Exit codes: 0 done, 1 an error, 2 wrong usage, 3 refused or denied.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
