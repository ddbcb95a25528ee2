package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// labFolder is where labs of test/lab keep their sockets: N/api.sock.
const labFolder = "/run/bulkhead-lab"

// app is what every command works with: the streams it was started with and the global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	color    bool // out is a terminal and NO_COLOR is not set
	askable  bool // in is a terminal, so a question can be answered

	socket string
	lab    string
	output string // table, json or yaml
}

// run executes one command line and returns the exit code. It is main without the process, so that
// deferred clean-up happens.
func run(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	a := &app{in: in, out: out, err: err, color: colorful(out), askable: terminal(in)}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	return a.exit(ctx, root.ExecuteContext(ctx))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bulkhead",
		Short: "Ask and direct the Bulkhead daemon of this machine",
		Long: `Ask and direct the Bulkhead daemon of this machine: what runs, who talks to whom, which policy
says so, and what to change.

Exit codes: 0 done, 1 an error, 2 wrong usage, 3 refused or denied.`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkGlobals(cmd) },
	}
	root.SetVersionTemplate("bulkhead {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%v", err) })
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", "", "the daemon's socket (environment BULKHEAD_SOCKET; default "+api.DefaultSocket+")")
	f.StringVar(&a.lab, "lab", "", "talk to the daemon of this lab ("+labFolder+"/LAB/api.sock)")
	f.StringVarP(&a.output, "output", "o", "table", "table, json or yaml")
	complete(root, "output", "table", "json", "yaml")
	root.AddCommand(a.status(), a.workloads(), a.flows(), a.graph(), a.policy(), a.mode(), a.alerts(),
		a.explain(), a.rules(), a.trace(), a.names(), a.cluster())
	return root
}

// alsoPrints says that a command knows another value of --output.
func alsoPrints(cmd *cobra.Command, format string) {
	cmd.Annotations = map[string]string{"output": format}
}

func (a *app) checkGlobals(cmd *cobra.Command) error {
	formats, known := []string{"table", "json", "yaml"}, "table, json or yaml"
	if also := cmd.Annotations["output"]; also != "" {
		formats, known = append(formats, also), "table, json, yaml or "+also
	}
	if !slices.Contains(formats, a.output) {
		return usage(nil, "output %q: want %s", a.output, known)
	}
	if a.lab != "" && a.socket != "" {
		return usage(nil, "--lab and --socket both name a daemon; give one of them")
	}
	if a.lab != "" && (strings.ContainsRune(a.lab, '/') || a.lab == "." || a.lab == "..") {
		return usage(nil, "lab %q: want the lab's name, not a path", a.lab)
	}
	return nil
}

// client gives the daemon that the global flags and the environment name. Nothing is dialled yet.
func (a *app) client() *api.Client {
	return api.NewClient(a.socketPath())
}

func (a *app) socketPath() string {
	switch {
	case a.lab != "":
		return filepath.Join(labFolder, a.lab, "api.sock")
	case a.socket != "":
		return a.socket
	case os.Getenv("BULKHEAD_SOCKET") != "":
		return os.Getenv("BULKHEAD_SOCKET")
	}
	return api.DefaultSocket
}

// version tells module version, commit and Go release as the linker stamped them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, commit, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ", modified"
		}
	}
	if v == "" {
		v = "(devel)"
	}
	if commit == "" {
		return fmt.Sprintf("%s (%s)", v, info.GoVersion)
	}
	return fmt.Sprintf("%s (commit %s%s, %s)", v, commit, dirty, info.GoVersion)
}
