package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/bulkhead-firewall/bulkhead/holder"
)

// DefaultConfigFile is read where no --config is given. It need not be there.
const DefaultConfigFile = "/etc/bulkhead/bulkheadd.yaml"

// Main is the program: it reads flags and configuration and runs a Daemon until SIGTERM or SIGINT.
// It returns the exit code: 0 done, 1 an error, 2 wrong usage.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "holder" {
		return mainHolder(args[1:], stderr)
	}
	flags := flag.NewFlagSet("bulkheadd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", DefaultConfigFile, "YAML `file`; without the flag the default one may be missing")
	check := flags.Bool("check-config", false, "only check the configuration; 0 when it is good")
	level := flags.String("log-level", "", "debug, info, warn or error; overrides the configuration's logLevel")
	version := flags.Bool("version", false, "print the version")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "bulkheadd: %s: unexpected; it takes flags only\n", flags.Arg(0))
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, "bulkheadd", Version())
		return 0
	}
	cfg, err := configOf(flags, *file, *level)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if *check {
		fmt.Fprintln(stdout, "configuration is good")
		return 0
	}
	l, _ := ParseLevel(cfg.LogLevel) // was checked
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: l}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := New(cfg, log).Run(ctx); err != nil {
		fmt.Fprintln(stderr, "bulkheadd:", err)
		return 1
	}
	return 0
}

// mainHolder is "bulkheadd holder".
func mainHolder(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("bulkheadd holder", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", DefaultConfig().Holder, "unix `socket` to answer on")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "bulkheadd holder: %s: unexpected; it takes flags only\n", flags.Arg(0))
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	h, err := holder.Listen(*socket, log)
	if err != nil {
		fmt.Fprintln(stderr, "bulkheadd:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.Info("holding", "socket", *socket)
	if err := h.Run(ctx); err != nil {
		fmt.Fprintln(stderr, "bulkheadd:", err)
		return 1
	}
	return 0
}

// configOf reads the configuration. The default file may be missing; one that was named may not.
func configOf(flags *flag.FlagSet, file, level string) (Config, error) {
	named := false
	flags.Visit(func(f *flag.Flag) { named = named || f.Name == "config" })
	cfg, err := LoadConfig(file)
	if !named && errors.Is(err, fs.ErrNotExist) {
		cfg, err = ParseConfig(file, nil)
	}
	if err == nil && level != "" {
		cfg.LogLevel = level
		_, err = ParseLevel(level)
	}
	return cfg, err
}
