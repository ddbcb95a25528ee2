package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Without any rule every attack arrives and the ear hears it. Only that makes "the victim heard
// nothing" worth something once there are rules.
//
//	attacker eth0 10.77.0.1 ──veth── 10.77.0.2 eth0 victim
func TestAttacksArriveWithoutRules(t *testing.T) {
	needRoot(t)
	shop := filepath.Join(t.TempDir(), "shop")
	command(t, "go", "build", "-o", shop, ".")
	attacker, victim := namespace(t), namespace(t)
	command(t, "ip", "link", "add", "eth0", "netns", attacker, "type", "veth", "peer", "name", "eth0", "netns", victim)
	for ns, addr := range map[string]string{attacker: "10.77.0.1/24", victim: "10.77.0.2/24"} {
		inside(t, ns, "ip", "link", "set", "lo", "up")
		inside(t, ns, "ip", "addr", "add", addr, "dev", "eth0")
		inside(t, ns, "ip", "link", "set", "eth0", "up")
	}
	background(t, "nsenter", "--net=/proc/"+victim+"/ns/net", shop, "play", "redis-cart")
	ear := filepath.Join(t.TempDir(), "ear")
	background(t, "nsenter", "--net=/proc/"+victim+"/ns/net", shop, "hear", "-from", "10.77.0.1", "-report", ear)
	if h := waitFor(t, ear, func(heard) bool { return true }); h.From+h.Marked != 0 {
		t.Fatalf("before the first attack: %+v", h)
	}
	for _, tt := range []struct {
		args    string
		sent    int
		opened  int
		arrived func(before, after heard) bool
	}{
		{"connect -to 10.77.0.2:6379", 1, 1, func(b, a heard) bool { return a.From > b.From }},
		{"connect -to 10.77.0.2:81", 1, 0, func(b, a heard) bool { return a.From > b.From }},
		{"scan -to 10.77.0.2:200", 200, 0, func(b, a heard) bool { return a.From-b.From >= 200 }},
		{"raw -to 10.77.0.2:6379", 2, 0, func(b, a heard) bool { return a.Marked-b.Marked == 2 }},
		{"spoof -as 10.77.0.3 -to 10.77.0.2:6379", 2, 0, func(b, a heard) bool { return a.Marked-b.Marked == 2 }},
	} {
		before := waitFor(t, ear, func(heard) bool { return true })
		out := inside(t, attacker, append([]string{shop, "attack"}, strings.Fields(tt.args)...)...)
		var a tried
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatalf("%s: %v in %q", tt.args, err, out)
		}
		if a.Sent != tt.sent || a.Succeeded != tt.opened {
			t.Errorf("%s: %+v, want %d sent and %d opened", tt.args, a, tt.sent, tt.opened)
		}
		waitFor(t, ear, func(h heard) bool { return tt.arrived(before, h) })
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1 wants every test to run")
	}
	t.Skip("needs root for network namespaces")
}

// namespace makes a network namespace that lives as long as a process in it, and gives its pid.
func namespace(t *testing.T) string {
	t.Helper()
	pid := background(t, "unshare", "-n", "sleep", "120")
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ns, err := os.Readlink("/proc/" + pid + "/ns/net"); err == nil && ns != own {
			return pid
		}
	}
	t.Fatal("unshare made no namespace within 5 s")
	return ""
}

func inside(t *testing.T, pid string, argv ...string) string {
	t.Helper()
	return command(t, "nsenter", append([]string{"--net=/proc/" + pid + "/ns/net"}, argv...)...)
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func background(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed: that is how it is to end
	})
	return strconv.Itoa(cmd.Process.Pid)
}

func waitFor(t *testing.T, ear string, enough func(heard) bool) heard {
	t.Helper()
	last := "nothing yet"
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(ear)
		if err != nil {
			continue // the ear is not open yet
		}
		var h heard
		if err := json.Unmarshal(data, &h); err != nil {
			t.Fatal(err)
		}
		if enough(h) {
			return h
		}
		last = fmt.Sprintf("%+v", h)
	}
	t.Fatalf("the ear heard %s after 10 s", last)
	return heard{}
}
