package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bulkhead-firewall/bulkhead/api/server"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bulkhead": main})
}

// Each file of testdata is one command and case: what the daemon knows, what the user types, what
// comes out. `daemon DIR` serves the real API from the JSON files of DIR and writes what it was
// asked to change to requests; `code N COMMAND...` wants that exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BULKHEAD_SOCKET", e.WorkDir+"/api.sock")
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"daemon": startDaemon, "code": wantCode},
	})
}

// ago is how a fixture writes a time relative to now: AGO(72h).
var ago = regexp.MustCompile(`AGO\((-?\w+)\)`)

func startDaemon(ts *testscript.TestScript, _ bool, args []string) {
	b := &files{dir: ts.MkAbs(args[0]), log: ts.MkAbs("requests")}
	ts.Check(os.WriteFile(b.log, nil, 0o644))
	entries, err := os.ReadDir(b.dir)
	ts.Check(err)
	for _, e := range entries {
		name := b.dir + "/" + e.Name()
		data, err := os.ReadFile(name)
		ts.Check(err)
		data = ago.ReplaceAllFunc(data, func(m []byte) []byte {
			d, err := time.ParseDuration(string(ago.FindSubmatch(m)[1]))
			ts.Check(err)
			return []byte(time.Now().Add(-d - 500*time.Millisecond).Format(time.RFC3339Nano))
		})
		ts.Check(os.WriteFile(name, data, 0o644))
	}
	s, err := server.Open(server.Config{Socket: ts.Getenv("BULKHEAD_SOCKET")}, b)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with ctx, waited for below
	ts.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			ts.Logf("api server: %v", err)
		}
		_ = s.Close() // Run's error is the one that tells
	})
}

func wantCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}
