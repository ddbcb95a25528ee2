package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ports reads the alerts of a file back, by their ports.
func portsIn(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		return "-"
	}
	var out []string
	for _, l := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		var a Alert
		if err := json.Unmarshal([]byte(l), &a); err != nil {
			t.Errorf("%s: line %q: %v", path, l, err)
		}
		out = append(out, fmt.Sprint(a.Port))
	}
	return strings.Join(out, " ")
}

func send(t *testing.T, s Sink, ports ...uint16) {
	t.Helper()
	for _, p := range ports {
		if err := s.Send(sample("shop/evil", "shop/db", p)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.json")
	line, _ := json.Marshal(sample("shop/evil", "shop/db", 1))
	f, err := OpenFile(path, int64(2*len(line)+3), 2)
	if err != nil {
		t.Fatal(err)
	}
	send(t, f, 1, 2, 3, 4, 5, 6, 7)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := []string{portsIn(t, path), portsIn(t, path+".1"), portsIn(t, path+".2"), portsIn(t, path+".3")}
	if s := strings.Join(got, ", "); s != "7, 5 6, 3 4, -" {
		t.Errorf("files hold %s; want 7, 5 6, 3 4 and no fourth", s)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
}

func TestFileWithoutOldOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.json")
	f, err := OpenFile(path, 10, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	send(t, f, 1, 2, 3)
	if got := portsIn(t, path) + portsIn(t, path+".1"); got != "3-" {
		t.Errorf("files hold %s, want only the last", got)
	}
}

func TestFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.json")
	f, err := OpenFile(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	send(t, f, 1)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	send(t, f, 2)
	if got := portsIn(t, path); got != "2" {
		t.Errorf("after somebody moved the file the new one holds %s, want 2", got)
	}
}

func TestFileEndsALineThatACrashLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.json")
	if err := os.WriteFile(path, []byte(`{"half":`), 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	send(t, f, 1)
	data, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(data), "{\"half\":\n{\"time\"") {
		t.Errorf("file holds %q", data)
	}
}

// smallDisk mounts a disk of 8 KiB that only this test sees: the thread gets a mount namespace of
// its own and dies with the test's goroutine.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("BULKHEAD_REQUIRE_ROOT") != "1" {
		t.Skip("needs root to mount a disk")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFileOnAFullDisk: whole lines or none, and it goes on when there is room again.
func TestFileOnAFullDisk(t *testing.T) {
	dir := smallDisk(t)
	path := filepath.Join(dir, "alerts.json")
	f, err := OpenFile(path, 1<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	sent := uint16(0)
	for err == nil && sent < 1000 {
		sent++
		err = f.Send(sample("shop/evil", "shop/db", sent))
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "alerts go on in memory only") {
		t.Fatalf("after %d alerts: %v; want no space left", sent, err)
	}
	if got := strings.Count(portsIn(t, path), " ") + 1; got != int(sent)-1 {
		t.Errorf("%d whole lines of %d alerts", got, sent-1)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	send(t, f, 77)
	if got := portsIn(t, path); got != "77" {
		t.Errorf("with room again the file holds %s, want 77", got)
	}
}

func TestOpenFileSaysWhy(t *testing.T) {
	_, err := OpenFile(filepath.Join(t.TempDir(), "none", "alerts.json"), 0, 0)
	if err == nil || !strings.Contains(err.Error(), "open alert log: open ") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("err = %v", err)
	}
}

func TestRing(t *testing.T) {
	r := NewRing(3)
	send(t, r, 1, 2)
	last, sub := r.Follow(1, 2)
	if len(last) != 1 || last[0].Port != 2 {
		t.Fatalf("Follow gave %v", last)
	}
	send(t, r, 3, 4, 5)
	var got []uint16
	for _, a := range r.Last(0, nil) {
		got = append(got, a.Port)
	}
	if fmt.Sprint(got) != "[3 4 5]" {
		t.Errorf("ring holds %v, want the last three", got)
	}
	if a := r.Last(1, func(a *Alert) bool { return a.Port < 5 }); len(a) != 1 || a[0].Port != 4 {
		t.Errorf("Last of some = %v, want 4", a)
	}
	if a, b := <-sub.C(), <-sub.C(); a.Port != 3 || b.Port != 4 || sub.Missed() != 1 {
		t.Errorf("follower got %d, %d and missed %d; want 3, 4 and 1", a.Port, b.Port, sub.Missed())
	}
	sub.Close()
	send(t, r, 6)
	select {
	case a := <-sub.C():
		t.Errorf("a closed follower got %d", a.Port)
	default:
	}
	more := sample("shop/evil", "shop/db", 5)
	more.Count = 9
	if err := r.Send(more); err != nil {
		t.Fatal(err)
	}
	if got := r.Last(0, nil); len(got) != 3 || got[1].Count != 9 {
		t.Errorf("an update did not take the place of its alert: %s", short(got))
	}
}

// failing is a sink whose disk is full.
type failing struct {
	mu sync.Mutex
	n  int
}

func (f *failing) Send(Alert) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return unix.ENOSPC
}

// TestDispatcher: cases and alerts come out at every sink, a sink that fails disturbs no other and is
// reported once, and all that was held goes out at the end.
func TestDispatcher(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"] = policy.Enforce
	ring, bad := NewRing(10), &failing{}
	var complaints []error
	d := NewDispatcher(&Judge{Node: "node-a", Hold: time.Hour}, &Folder{}, func(err error) { complaints = append(complaints, err) }, bad, ring)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	_, sub := ring.Follow(0, 10)
	defer sub.Close()
	d.Send(Tampering{Time: morning, What: "a"}.Alert("node-a"))
	d.Send(Tampering{Time: morning, What: "b"}.Alert("node-a"))
	for range 2 {
		select {
		case <-sub.C():
		case <-time.After(5 * time.Second):
			t.Fatal("an alert did not come within 5 s")
		}
	}
	d.Report(s.seen(policy.Ingress, evil, db, identity.TCP, 22, policy.Deny))
	cancel()
	<-done
	if got := short(ring.Last(0, nil)); got != "tamper node ×1\ntamper node ×1\ndenied shop/evil-1 ×1" {
		t.Errorf("ring holds\n%s", got)
	}
	if st := d.Stats(); st.Sent != 3 || st.Unsent != 3 || st.Dropped != 0 || bad.n != 3 || len(complaints) != 1 {
		t.Errorf("stats %+v, %d at the failing sink, %d complaints; want 3, 3 and 1", st, bad.n, len(complaints))
	}
}

func TestDispatcherNeverBlocks(t *testing.T) {
	d := NewDispatcher(&Judge{}, &Folder{}, nil)
	for range queueLen + 100 {
		d.Send(Alert{})
	}
	if got := d.Stats().Dropped; got != 100 {
		t.Errorf("%d dropped with nobody running, want 100", got)
	}
}
