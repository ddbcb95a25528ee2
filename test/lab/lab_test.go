package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// town is a small cluster with everything that addresses can be: two nodes whose pods' addresses
// lie mixed in one block, IPv6 only, hostNetwork, a Service of both families.
const town = `
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {app: a}}, spec: {nodeName: n1, containers: [{ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}, status: {podIPs: [{ip: 10.9.0.5}, {ip: "fd00:9::5"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: shop, labels: {app: b}}, spec: {nodeName: n1, containers: [{ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}, status: {podIPs: [{ip: 10.9.3.7}, {ip: "fd00:9::7"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: shop, labels: {app: c}}, spec: {nodeName: n2, containers: [{ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}, status: {podIPs: [{ip: 10.9.0.6}, {ip: "fd00:9::6"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: six, namespace: shop, labels: {app: six}}, spec: {nodeName: n2, containers: [{ports: [{containerPort: 80}]}]}, status: {podIP: "fd77::6"}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: shop, labels: {app: agent}}, spec: {nodeName: n2, hostNetwork: true, containers: [{ports: [{containerPort: 9100}]}]}, status: {podIP: 172.18.0.3}}
---
{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}, spec: {clusterIPs: [10.96.0.7, "fd00:96::7"], externalIPs: [192.0.2.80], selector: {app: b}, ports: [{name: web, port: 80, targetPort: http}, {port: 53, protocol: UDP}]}}
`

// up makes a lab and takes it down with the test.
func up(t *testing.T, o Options) *Lab {
	t.Helper()
	needRoot(t)
	o.Progress = testWriter{t}
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// asked probes "client server protocol[/port]" lines and gives the verdict, or the error, of each.
func asked(t *testing.T, l *Lab, lines []string) map[string]string {
	t.Helper()
	probes := make([]Probe, len(lines))
	for i, line := range lines {
		f := strings.Fields(line)
		proto, port, _ := strings.Cut(f[2], "/")
		probes[i] = Probe{Client: f[0], Server: f[1], Protocol: proto}
		if port != "" {
			if err := probes[i].Port.UnmarshalJSON([]byte(`"` + port + `"`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	answers, err := l.Probe(t.Context(), probes)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, a := range answers {
		out[lines[i]] = a.Verdict
		if a.Error != "" {
			out[lines[i]] = "error: " + a.Error
		} else if a.Answer != "" {
			out[lines[i]] += " by " + a.Answer
		}
	}
	return out
}

func check(t *testing.T, l *Lab, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, asked(t, l, slices.Sorted(maps.Keys(want)))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestProbesArrive holds that without Bulkhead everybody reaches everybody, and that who answers is
// who was asked.
func TestProbesArrive(t *testing.T) {
	l := up(t, Options{Manifests: town, NoBulkhead: true})
	check(t, l, map[string]string{
		// pods of one node, of two nodes; addresses that look as if they were on one link
		"shop/a shop/b TCP/8080":     "allow by shop/b",
		"shop/a shop/b UDP/53":       "allow by shop/b",
		"shop/a shop/c TCP/http":     "allow by shop/c",
		"shop/a fd00:9::7 TCP/8080":  "allow by shop/b",
		"shop/a fd00:9::6 UDP/53":    "allow by shop/c",
		"shop/c fd00:9::5 TCP/8080":  "allow by shop/a",
		"shop/a shop/six TCP/80":     "allow by shop/six",
		"shop/a shop/a TCP/8080":     "allow by shop/a",
		"10.9.0.5 10.9.3.7 TCP/8080": "allow by shop/b",
		// ports that no container declares
		"shop/six fd00:9::5 TCP/9999": "allow by shop/a",
		"shop/a shop/b UDP/9999":      "allow by shop/b",
		// Services: from a pod beside the backend, from the backend itself, from a node, from outside
		"shop/a 10.96.0.7 TCP/80":       "allow by shop/b",
		"shop/a 10.96.0.7 TCP/web":      "allow by shop/b",
		"shop/a 10.96.0.7 UDP/53":       "allow by shop/b",
		"shop/a fd00:96::7 TCP/80":      "allow by shop/b",
		"shop/c fd00:96::7 UDP/53":      "allow by shop/b",
		"shop/b 10.96.0.7 TCP/80":       "allow by shop/b",
		"shop/b fd00:96::7 TCP/80":      "allow by shop/b",
		"n1 10.96.0.7 TCP/80":           "allow by shop/b",
		"n2 10.96.0.7 UDP/53":           "allow by shop/b",
		"203.0.113.9 192.0.2.80 TCP/80": "allow by shop/b",
		"203.0.113.9 10.96.0.7 UDP/53":  "allow by shop/b",
		"shop/a 10.96.0.7 TCP/81":       "deny", // no port of the Service
		// nodes and hostNetwork
		"n1 shop/a TCP/8080":         "allow by shop/a",
		"n2 shop/a TCP/8080":         "allow by shop/a",
		"n2 fd00:9::5 UDP/53":        "error: client and server have no address family in common", // the inventory tells one address of n2
		"shop/a shop/agent TCP/9100": "allow by shop/agent",
		"shop/agent shop/a UDP/53":   "allow by shop/a",
		"172.18.0.3 shop/a TCP/8080": "allow by shop/a",
		"shop/a 172.18.0.3 UDP/777":  "allow by shop/agent",
		// outside, also where an address looks like a pod's neighbour
		"203.0.113.9 shop/a TCP/8080":   "allow by shop/a",
		"2001:db8::9 shop/six TCP/80":   "allow by shop/six",
		"shop/a 203.0.113.10 TCP/443":   "allow by outside/203.0.113.10",
		"shop/a 203.0.113.10 UDP/443":   "allow by outside/203.0.113.10",
		"shop/six 2001:db8::10 UDP/443": "allow by outside/2001:db8::10",
		"shop/a 169.254.169.254 TCP/80": "allow by outside/169.254.169.254",
		"shop/a 10.9.0.99 UDP/80":       "allow by outside/10.9.0.99",
		"shop/a fd00:9::99 UDP/80":      "allow by outside/fd00:9::99",
		"10.9.0.98 shop/a UDP/53":       "allow by shop/a",
		// echo requests
		"shop/a shop/b ICMP":       "allow by 10.9.3.7",
		"shop/a fd00:9::6 ICMP":    "allow by fd00:9::6",
		"203.0.113.9 shop/c ICMP":  "allow by 10.9.0.6",
		"shop/a 203.0.113.10 ICMP": "allow by 203.0.113.10",
		// what cannot be asked
		"shop/a shop/b TCP/nope":      "error: port nope: shop/b has no TCP port of that name",
		"shop/a shop/zzz TCP/80":      "error: server: shop/zzz: no pod, node or address of this lab",
		"10.96.0.7 shop/a TCP/80":     "error: client: 10.96.0.7: a Service's address opens no connections",
		"203.0.113.9 shop/six TCP/80": "error: client and server have no address family in common",
		"shop/a fe80::1 TCP/80":       "error: server: address fe80::1: link-local; it says nothing without an interface",
	})
	// With the kernel's sockets the listener names itself, with raw ones its address does.
	sctp := asked(t, l, []string{"shop/a shop/b SCTP/3868"})["shop/a shop/b SCTP/3868"]
	if sctp != "allow by shop/b" && sctp != "allow by 10.9.3.7" {
		t.Errorf("SCTP: %s", sctp)
	}
}

// TestPoliciesInForce holds that policies given to Up are enforced when Up returns.
func TestPoliciesInForce(t *testing.T) {
	l := up(t, Options{Manifests: town + `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: all, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b, namespace: shop}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: http}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 8080}]}]}}
`})
	check(t, l, map[string]string{
		"shop/a shop/b TCP/8080":      "allow by shop/b",
		"shop/a fd00:9::7 TCP/8080":   "allow by shop/b",
		"shop/a 10.96.0.7 TCP/80":     "allow by shop/b",
		"n1 shop/a TCP/8080":          "allow by shop/a", // the own node
		"shop/a shop/b UDP/53":        "deny",
		"shop/a shop/c TCP/8080":      "deny",
		"shop/c shop/b TCP/8080":      "deny",
		"shop/c fd00:9::7 TCP/8080":   "deny",
		"n2 shop/a TCP/8080":          "deny",
		"203.0.113.9 shop/b TCP/8080": "deny",
		"shop/a 203.0.113.9 TCP/443":  "deny",
		"shop/a shop/b ICMP":          "deny",
	})
	for _, n := range l.Nodes {
		if l.DaemonPID(n.Name) == 0 {
			t.Errorf("node %s: no daemon", n.Name)
		}
	}
	if got, err := os.Readlink(l.Socket()); err != nil || got != l.Nodes[0].Socket() {
		t.Errorf("api.sock leads to %q, %v", got, err)
	}
	if err := l.StopDaemon("n1"); err != nil || l.DaemonPID("n1") != 0 {
		t.Errorf("StopDaemon: %v, pid %d", err, l.DaemonPID("n1"))
	}
	check(t, l, map[string]string{"shop/a shop/b TCP/8080": "allow by shop/b", "shop/c shop/b TCP/8080": "deny"})
	if err := l.StartDaemon(t.Context(), "n1"); err != nil || l.DaemonPID("n1") == 0 {
		t.Errorf("StartDaemon: %v", err)
	}
}

// TestBadPolicyLeavesNothing holds that a policy the daemons refuse ends Up with its place, and
// that nothing of the lab is left.
func TestBadPolicyLeavesNothing(t *testing.T) {
	needRoot(t)
	name := "bad" + suffix()
	_, err := Up(t.Context(), Options{Name: name, Manifests: town + `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: shop}
spec: {podSelectr: {}}
`})
	if err == nil || !strings.Contains(err.Error(), "podSelectr") || !strings.Contains(err.Error(), ":18:") {
		t.Errorf("error %v, want line 18 and podSelectr", err)
	}
	nothingOf(t, name)
}

// TestExec holds who a program is in a pod, and that its exit code comes back.
func TestExec(t *testing.T) {
	l := up(t, Options{Manifests: town, NoBulkhead: true, Resolvers: addrs("10.96.0.10")})
	const who = "id -u; sed -n 's/^Cap\\(Eff\\|Bnd\\):\\t//p' /proc/self/status; grep nameserver /etc/resolv.conf; ls /sys/class/net"
	for as, want := range map[As]string{
		User:  "65534\n0000000000000000\n0000000000000000\nnameserver 10.96.0.10\neth0\nlo\n",
		Raw:   "0\n0000000000002000\n0000000000002000\nnameserver 10.96.0.10\neth0\nlo\n",
		Admin: "0\n0000000000003000\n0000000000003000\nnameserver 10.96.0.10\neth0\nlo\n",
	} {
		got, err := l.Exec(t.Context(), "shop/a", as, "sh", "-c", who)
		if err != nil || got != want {
			t.Errorf("as %s: %v\n got %q\nwant %q", as, err, got, want)
		}
	}
	_, err := l.Exec(t.Context(), "a", User, "sh", "-c", "exit 7")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit code: %v, want 7", err)
	}
	// A program in a folder of root's alone runs as user too.
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sh, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if sh, err = os.ReadFile("/bin/true"); err != nil {
			t.Fatal(err)
		}
	}
	hidden := filepath.Join(dir, "true")
	if err := os.WriteFile(hidden, sh, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Exec(t.Context(), "shop/a", User, hidden); err != nil {
		t.Errorf("hidden program: %v: %s", err, out)
	}
	for where, want := range map[string]string{"n2": "cni0", "outside": "10.200.0.254"} {
		out, err := l.Exec(t.Context(), where, Admin, "ip", "addr")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("in %s: %v, no %s in %s", where, err, want, out)
		}
	}
	if out, err := l.Exec(t.Context(), "shop/none", User, "true"); err == nil || !strings.Contains(out, "pod shop/none: not in lab") {
		t.Errorf("no such pod: %v %q", err, out)
	}
}

// TestStart holds that a started program runs until it is stopped, and that Down ends what is left,
// children included.
func TestStart(t *testing.T) {
	needRoot(t)
	l := up(t, Options{Manifests: town, NoBulkhead: true})
	var out bytes.Buffer
	p, err := l.Start("shop/a", User, &out, "sh", "-c", "echo here; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if recorded(l.Dir)[p.Process.Pid] == "" {
		t.Error("not recorded")
	}
	sleeps(t, p)
	p.Stop()
	if out.String() != "here\n" {
		t.Errorf("output %q", out.String())
	}
	q, err := l.Start("shop/a", Raw, nil, "sh", "-c", "setsid sleep 1001 & exec sleep 1002")
	if err != nil {
		t.Fatal(err)
	}
	sleeps(t, q)
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	if err := q.Wait(); err == nil {
		t.Error("it ended well before Down")
	}
	nothingOf(t, l.Name)
}

// sleeps waits until a started program has become sleep(1).
func sleeps(t *testing.T, p *Process) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Process.Pid))
		if err == nil && bytes.HasPrefix(b, []byte("sleep\x00")) {
			return
		}
	}
	t.Fatal("the program did not come to sleep")
}

// TestDetach holds that a pod can go and come back.
func TestDetach(t *testing.T) {
	l := up(t, Options{Manifests: town, NoBulkhead: true, NoListen: true})
	if err := l.Detach(t.Context(), "shop/b"); err != nil {
		t.Fatal(err)
	}
	if p, _ := l.Pod("shop/b"); mounted(p.Path()) {
		t.Error("its namespace is still there")
	}
	if err := l.Attach(t.Context(), "shop/b"); err != nil {
		t.Fatal(err)
	}
	check(t, l, map[string]string{"shop/a shop/b TCP/8080": "allow by shop/b"})
}

func suffix() string { return fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()%1e6) }

// nothingOf holds that no trace of a lab is left: no namespace, process or file.
func nothingOf(t *testing.T, name string) {
	t.Helper()
	entries, err := os.ReadDir(nsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "bh"+name+"-") {
			t.Errorf("namespace %s is left", e.Name())
		}
	}
	if _, err := os.Lstat(filepath.Join(root, name)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", filepath.Join(root, name), err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err == nil && bytes.Contains(b, []byte(filepath.Join(root, name))) {
			t.Errorf("process %s is left: %q", p, b)
		}
	}
}

// world is what of the machine a lab could leave behind.
func world(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, argv := range map[string][]string{
		"links":  {"ip", "-o", "link"},
		"routes": {"ip", "route", "show", "table", "all"},
		"rules":  {"nft", "list", "ruleset"},
	} {
		b, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", argv, err, b)
		}
		out[name] = string(b)
	}
	return out
}

// TestDownLeavesNothing takes labs down in every state that they may be in.
func TestDownLeavesNothing(t *testing.T) {
	needRoot(t)
	before := world(t)
	for name, harm := range map[string]func(t *testing.T, l *Lab){
		"whole": func(*testing.T, *Lab) {},
		"agent killed": func(t *testing.T, l *Lab) {
			for pid, what := range recorded(l.Dir) {
				if what == "agent" {
					kill(t, pid)
				}
			}
		},
		"a node's name gone": func(t *testing.T, l *Lab) {
			if err := removeNamespace(l.Nodes[0].NetNS); err != nil {
				t.Fatal(err)
			}
		},
		"state gone": func(t *testing.T, l *Lab) {
			if err := os.Remove(l.file()); err != nil {
				t.Fatal(err)
			}
		},
		"pids gone": func(t *testing.T, l *Lab) {
			// What is in the lab's namespaces is found without notes; the agent is not in one.
			p, err := l.Start("shop/a", User, nil, "sleep", "1003")
			if err != nil {
				t.Fatal(err)
			}
			sleeps(t, p)
			for pid, what := range recorded(l.Dir) {
				if what != "agent" {
					l.forget(pid)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := up(t, Options{Manifests: town, NoBulkhead: true})
			harm(t, l)
			for range 2 {
				if err := Down(l.Name); err != nil {
					t.Error(err)
				}
			}
			nothingOf(t, l.Name)
		})
	}
	if d := cmp.Diff(before, world(t)); d != "" {
		t.Errorf("the machine's own namespace (-before +after):\n%s", d)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestAgentEndsWithItsFolder holds that the agent, which is in none of the lab's namespaces, goes when
// somebody removes the lab's files by hand.
func TestAgentEndsWithItsFolder(t *testing.T) {
	needRoot(t)
	l := up(t, Options{Manifests: town, NoBulkhead: true})
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { l.wg.Wait(); close(ended) }() // ends with the agent
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the agent goes on without its folder")
	}
	if err := Down(l.Name); err != nil {
		t.Error(err)
	}
	nothingOf(t, l.Name)
}

// TestInterruptedUp holds that an Up whose context ends at any moment leaves nothing.
func TestInterruptedUp(t *testing.T) {
	needRoot(t)
	for _, after := range []time.Duration{0, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		name := "int" + suffix()
		l, err := Up(ctx, Options{Name: name, Manifests: town, NoBulkhead: true})
		cancel()
		if err == nil {
			if err := l.Down(); err != nil { // it was faster
				t.Error(err)
			}
		}
		nothingOf(t, name)
	}
}

// TestKilledUp holds that `bulkhead-lab down` clears up after an `up` that was killed.
func TestKilledUp(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "town.yaml")
	if err := os.WriteFile(file, []byte(town), 0o644); err != nil {
		t.Fatal(err)
	}
	bin, err := FindBin("")
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond} {
		name := "kill" + suffix()
		cmd := exec.Command(filepath.Join(bin, "bulkhead-lab"), "up", "-f", file, "--name", name, "--no-bulkhead")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill() // it may have been faster
		_ = cmd.Wait()
		out, err := exec.Command(filepath.Join(bin, "bulkhead-lab"), "down", "--name", name).CombinedOutput()
		if err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
		nothingOf(t, name)
	}
}

// TestSideBySide holds that two labs of the same manifests do not meet.
func TestSideBySide(t *testing.T) {
	one := up(t, Options{Manifests: town, NoBulkhead: true})
	two := up(t, Options{Manifests: town, NoBulkhead: true, Dir: filepath.Join("/tmp", "bhlab"+suffix())})
	for _, l := range []*Lab{one, two} {
		check(t, l, map[string]string{"shop/a shop/b TCP/8080": "allow by shop/b"})
	}
	again, err := Open(two.Name)
	if err != nil || again.Dir != two.Dir {
		t.Fatalf("Open(%s): %v", two.Name, err)
	}
	again.agent.close()
	if _, err := Up(t.Context(), Options{Name: one.Name, Manifests: town, NoBulkhead: true}); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second lab of one name: %v", err)
	}
	if err := two.Down(); err != nil {
		t.Error(err)
	}
	check(t, one, map[string]string{"shop/a shop/c TCP/8080": "allow by shop/c"})
}

// TestScale prints how long 200 pods and 10,000 probes take.
func TestScale(t *testing.T) {
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: ns%d}, spec: {nodeName: n%d, containers: [{ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}}\n", i, i%10, i%4)
	}
	start := time.Now()
	l := up(t, Options{Manifests: b.String(), NoBulkhead: true})
	t.Logf("200 pods: %.1f s", time.Since(start).Seconds())
	probes := make([]Probe, 10000)
	for i := range probes {
		from, to := i%200, (i*7+i/200+1)%200
		probes[i] = Probe{Client: fmt.Sprintf("ns%d/p%d", from%10, from), Server: fmt.Sprintf("ns%d/p%d", to%10, to), Protocol: "TCP", Port: Port{Number: 80}}
		if i%2 == 1 {
			probes[i].Protocol, probes[i].Port = "UDP", Port{Number: 53}
		}
	}
	start = time.Now()
	answers, err := l.Probe(t.Context(), probes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("10,000 probes: %.1f s", time.Since(start).Seconds())
	for _, a := range answers {
		if a.Verdict != "allow" {
			t.Fatalf("%+v", a)
		}
	}
}
