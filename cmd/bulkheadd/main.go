// Command bulkheadd is the daemon: it holds the rules of every workload on its node in force. See
// package daemon.
package main

import (
	"os"

	"github.com/bulkhead-firewall/bulkhead/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) }
