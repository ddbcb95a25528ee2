package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func pending(id, ifName, network string) Pending {
	return Pending{Time: time.Unix(1700000000, 0).UTC(), Cause: "dial: connection refused",
		Request: api.CNIRequest{Command: "ADD", ContainerID: id, IfName: ifName, Network: network, NetNS: "/run/netns/" + id}}
}

func TestJournal(t *testing.T) {
	j := Journal{Dir: filepath.Join(t.TempDir(), "pending")}
	if list, err := j.List(); err != nil || len(list) > 0 {
		t.Fatal(list, err)
	}
	a, b, c := pending("a", "eth0", "pods"), pending("a", "eth1", "storage"), pending("b", "eth0", "pods")
	for _, p := range []Pending{c, a, b, a} {
		if err := j.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	list, err := j.List()
	if diff := cmp.Diff([]Pending{a, b, c}, list); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if fi, _ := os.Stat(j.Dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v", fi.Mode())
	}

	// GC speaks of its own network only.
	if err := j.Keep("pods", []api.CNIAttachment{{ContainerID: "b", IfName: "eth0"}}); err != nil {
		t.Error(err)
	}
	if list, _ := j.List(); cmp.Diff([]Pending{b, c}, list) != "" {
		t.Errorf("after GC: %+v", list)
	}
	for range 2 {
		if err := j.Remove("a", "eth1"); err != nil {
			t.Error(err)
		}
	}
	if list, _ := j.List(); cmp.Diff([]Pending{c}, list) != "" {
		t.Errorf("after DEL: %+v", list)
	}
}

func TestJournalNames(t *testing.T) {
	j := Journal{Dir: t.TempDir()}
	for _, n := range [][2]string{
		{"../../etc/passwd", "eth0"}, {"a/b", "eth0"}, {"", "eth0"}, {".", "eth0"}, {"a@b", "eth0"}, {"a\x00", "eth0"},
		{"a", ""}, {"a", "../x"}, {"a", ".."}, {"a", "this-is-too-long"}, {strings.Repeat("x", 201), "eth0"},
	} {
		if err := j.Add(pending(n[0], n[1], "pods")); err == nil {
			t.Errorf("%q %q was journalled", n[0], n[1])
		}
		if err := j.Remove(n[0], n[1]); err == nil {
			t.Errorf("%q %q was removed", n[0], n[1])
		}
	}
	if err := j.Add(pending(strings.Repeat("x", 200), "eth0", "pods")); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(j.Dir); len(files) != 1 {
		t.Errorf("the directory holds %v", files)
	}
}

func TestJournalIsBounded(t *testing.T) {
	j := Journal{Dir: t.TempDir()}
	for i := range maxPending {
		if err := os.WriteFile(filepath.Join(j.Dir, fmt.Sprintf("c%d@eth0.json", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := j.Add(pending("one-more", "eth0", "pods"))
	if want := "journal " + j.Dir + ": full, 1024 attachments; start the daemon, which adopts them"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	big := pending("big", "eth0", "pods")
	big.Request.RuntimeConfig = []byte(`"` + strings.Repeat("x", maxPendingFile) + `"`)
	if err := j.Add(big); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("got %v", err)
	}
}

// TestJournalIsDamaged: one bad file does not hide the others, and is named.
func TestJournalIsDamaged(t *testing.T) {
	j := Journal{Dir: t.TempDir()}
	a := pending("a", "eth0", "pods")
	if err := j.Add(a); err != nil {
		t.Fatal(err)
	}
	write := func(name, data string) { os.WriteFile(filepath.Join(j.Dir, name), []byte(data), 0o600) }
	write("half@eth0.json", `{"time":`)
	write("x@eth0.json", `{"request":{"containerID":"y","ifName":"eth0"}}`)
	write("z@eth0.json", `{"request":{"containerID":"../z","ifName":"eth0"}}`)
	write(".new-1", `{`)
	os.Symlink("/etc/passwd", filepath.Join(j.Dir, "s@eth0.json"))
	list, err := j.List()
	if diff := cmp.Diff([]Pending{a}, list); diff != "" {
		t.Error(diff)
	}
	want := strings.ReplaceAll(`D/half@eth0.json: unexpected end of JSON input
D/s@eth0.json: not a file of at most 1048576 bytes
D/x@eth0.json: holds the attachment of y@eth0.json
D/z@eth0.json: invalid characters in containerID; ../z`, "D/", j.Dir+"/")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
