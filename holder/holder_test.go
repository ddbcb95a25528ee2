package holder

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a holder for a test.
func start(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "holder.sock")
	h, err := Listen(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What one client hands over another gets back, open, though the first has closed everything.
func TestKeep(t *testing.T) {
	path := start(t)
	first := dial(t, path)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := first.Keep("a", w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := dial(t, path)
	items, err := second.List()
	if err != nil || len(items) != 1 {
		t.Fatal(items, err)
	}
	if _, err := items["a"].WriteString("still here"); err != nil {
		t.Fatal(err)
	}
	if err := items["a"].Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Drop("a"); err != nil {
		t.Fatal(err)
	}
	// The holder's copy was the last one: the pipe ends.
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "still here" {
		t.Errorf("%q %v", text, err)
	}
	if items, err := second.List(); err != nil || len(items) != 0 {
		t.Error(items, err)
	}
}

func TestRefused(t *testing.T) {
	path := start(t)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	c := dial(t, path)
	for request, want := range map[string]string{
		"keep a":   "without a descriptor",
		"":         "answer",
		"nonsense": "is no request",
	} {
		if request == "" {
			continue
		}
		if _, err := c.call(request, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", request, err)
		}
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Keep(strings.Repeat("x", maxName+1), f); err == nil {
		t.Error("a name without bound is taken")
	}
	for i := range 100 {
		if err := c.Keep(fmt.Sprint(i), f); err != nil {
			t.Fatal(err)
		}
	}
	items, err := c.List()
	if err != nil || len(items) != 100 {
		t.Errorf("%d %v", len(items), err)
	}
	for _, f := range items {
		_ = f.Close()
	}
	if _, err := Listen(path, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a second holder took the socket of the first")
	}
}
