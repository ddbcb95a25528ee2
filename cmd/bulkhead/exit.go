package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// What the process ends with. Scripts rely on them: they are part of the interface.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitRefused = 3 // the daemon or the person said no, or the verdict asked for is deny
)

// codeError is an error that decides the exit code. A nil cause means that all was said already.
type codeError struct {
	code  int
	cause error
}

func (e *codeError) Error() string {
	if e.cause == nil {
		return ""
	}
	return e.cause.Error()
}

func (e *codeError) Unwrap() error { return e.cause }

// usage makes an error of a wrong command line. cmd, where there is one, lets it say where help is.
func usage(cmd *cobra.Command, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if cmd != nil {
		err = fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())
	}
	return &codeError{exitUsage, err}
}

// refused makes an error of something that was possible but not wanted.
func refused(format string, args ...any) error {
	return &codeError{exitRefused, fmt.Errorf(format, args...)}
}

// exit prints err as one sentence and gives the process's exit code.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitOK // Ctrl-C ends `-f`: that is how it is meant to end
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(a.err, "bulkhead: "+text)
	}
	var coded *codeError
	if errors.As(err, &coded) {
		return coded.code
	}
	var answer *api.Error
	if errors.As(err, &answer) && (answer.Code == "denied" || answer.Code == "conflict") {
		return exitRefused
	}
	return exitError
}

// noArgs, exactly and atMost are cobra's checks with our exit code and words.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usage(cmd, "%s: unknown command %q", cmd.CommandPath(), args[0])
	}
	return usage(cmd, "%s: unexpected argument %q", cmd.CommandPath(), args[0])
}

func exactly(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return usage(cmd, "%s: %d arguments given, want %s", cmd.CommandPath(), len(args), names)
	}
}

func atMost(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return usage(cmd, "%s: %d arguments given, want at most %s", cmd.CommandPath(), len(args), names)
	}
}
