package daemon

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

const cartOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
`

// TestKill: whenever the daemon dies, the rules stay, traffic goes on, and the next daemon comes to
// the same verdicts.
func TestKill(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, cart, bad := n.pod("web-1"), n.pod("cart-1"), n.pod("bad-1")
	d.add(web, cart, bad)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})

	// One connection lives through it all, and new ones are made all the time.
	long, err := web.dial(cart.v4, 8080, time.Second)
	n.must(err)
	defer long.Close()
	var tries, failures, leaks atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			tries.Add(1)
			if web.reaches(cart.v4, 8080) != nil {
				failures.Add(1)
			}
			if c, err := bad.dial(cart.v4, 8080, 20*time.Millisecond); err == nil {
				c.Close()
				leaks.Add(1)
			}
		}
	}()
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		// Something is always under way: modes and policies change while the daemon is killed.
		go func() {
			_, _ = d.client.SetMode(ctx, api.ServiceMode{Service: "shop/other", Mode: "alert"})
			_, _ = d.client.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "cart.yaml", Data: cartOnly}}})
		}()
		time.Sleep(time.Duration(random.IntN(120)) * time.Millisecond)
		d.kill()
		for range 3 { // the store is readable after each
			s, err := OpenStore(filepath.Join(n.dir, "state"))
			n.must(err)
			list, err := s.Workloads()
			if err != nil || len(list) != 3 {
				t.Fatalf("stored %+v, %v", list, err)
			}
			n.must(s.Close())
		}
		d = n.start("defaultMode: enforce")
	}
	close(stop)
	<-done
	if _, err := fmt.Fprintln(long, "still here"); err != nil {
		t.Errorf("the long connection: %v", err)
	}
	n.must(long.SetDeadline(time.Now().Add(time.Second)))
	if _, err := long.Read(make([]byte, 16)); err != nil {
		t.Errorf("the long connection: %v", err)
	}
	if failures.Load() > 0 || leaks.Load() > 0 || tries.Load() < 20 {
		t.Errorf("of %d rounds %d allowed connections failed and %d denied ones passed", tries.Load(), failures.Load(), leaks.Load())
	}
	rows, err := d.client.Workloads(ctx)
	n.must(err)
	for _, r := range rows {
		if !r.Local || !r.Guarded || r.Error != "" || r.Mode != "enforce" {
			t.Errorf("adopted %+v", r)
		}
	}
	status, err := d.client.Status(ctx)
	if err != nil || status.Policies != 1 || status.Counters.Transactions != 0 {
		t.Errorf("after an adoption that changes nothing: %+v, %v", status, err)
	}
}

// TestStop: a clean stop leaves the rules in force and ends with 0.
func TestStop(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, cart, bad := n.pod("web-1"), n.pod("cart-1"), n.pod("bad-1")
	d.add(web, cart, bad)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})
	begin := time.Now()
	d.stop()
	if took := time.Since(begin); took > 3*time.Second || d.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("stopped after %v with %v", took, d.cmd.ProcessState)
	}
	n.must(web.reaches(cart.v4, 8080))
	if bad.reaches(cart.v4, 8080) == nil {
		t.Error("the rules went with the daemon")
	}
}

// TestSecondDaemon: on the same socket and on the same state, the second is refused and touches
// nothing.
func TestSecondDaemon(t *testing.T) {
	n := newNode(t)
	n.start()
	second := n.spawn(filepath.Join(n.dir, "bulkheadd.yaml"))
	if err := <-second.done; err == nil || !strings.Contains(second.out.String(), "stop the other daemon") {
		t.Errorf("same socket: %v %s", err, second.out)
	}
	text, err := os.ReadFile(filepath.Join(n.dir, "bulkheadd.yaml"))
	n.must(err)
	other := filepath.Join(n.dir, "other.yaml")
	n.must(os.WriteFile(other, []byte(strings.Replace(string(text), "api.sock", "other.sock", 1)), 0o600))
	third := n.spawn(other)
	if err := <-third.done; err == nil || !strings.Contains(third.out.String(), "held by another daemon") {
		t.Errorf("same state: %v %s", err, third.out)
	}
}

// TestNamespaceGone: the runtime takes the namespace away and says nothing. The workload is
// withdrawn, what it held is freed, and the others are untouched.
func TestNamespaceGone(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	n.must(exec.Command("ip", "netns", "del", cart.nsName).Run())
	cart.ns.Close()
	eventually(t, 10*time.Second, "withdrawn", func() error {
		rows, err := d.client.Workloads(ctx)
		if err == nil && (len(rows) != 1 || rows[0].Name != "web-1") {
			err = fmt.Errorf("%+v", rows)
		}
		return err
	})
	eventually(t, 10*time.Second, "freed", func() error {
		if _, err := n.nl.LinkByName(cart.host); err == nil {
			return fmt.Errorf("%s is still there: something holds the namespace", cart.host)
		}
		out, err := exec.Command("nsenter", "--net=/run/netns/"+n.name, "nft", "list", "tables").CombinedOutput()
		if err != nil || strings.Contains(string(out), cart.host) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	d.cni(cart.request("DEL")) // late, and no error

	// And while the daemon is away: it forgets, and sweeps.
	d.kill()
	n.must(exec.Command("ip", "netns", "del", web.nsName).Run())
	web.ns.Close()
	eventually(t, 10*time.Second, "veth gone", func() error {
		if _, err := n.nl.LinkByName(web.host); err == nil {
			return errNot
		}
		return nil
	})
	d = n.start()
	rows, err := d.client.Workloads(ctx)
	if err != nil || len(rows) != 0 {
		t.Errorf("adopted %+v, %v", rows, err)
	}
	out, err := exec.Command("nsenter", "--net=/run/netns/"+n.name, "nft", "list", "tables").CombinedOutput()
	if err != nil || strings.Contains(string(out), "bulkhead-") {
		t.Errorf("left over: %v %s", err, out)
	}
}

// TestFullDisk: nothing that could not be stored takes force, and the daemon says why. When there is
// room again it goes on.
func TestFullDisk(t *testing.T) {
	n := newNode(t)
	state := filepath.Join(n.dir, "state")
	n.must(os.Mkdir(state, 0o700))
	n.must(unix.Mount("none", state, "tmpfs", 0, "size=512k"))
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	d := n.start("defaultMode: enforce")
	web, cart, late := n.pod("web-1"), n.pod("cart-1"), n.pod("late-1")
	d.add(web, cart)
	cart.serve(8080)
	n.must(web.reaches(cart.v4, 8080))
	filler := filepath.Join(state, "filler")
	f, err := os.Create(filler)
	n.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()

	// bbolt uses pages that it has freed before it wants new ones: a big policy wants new ones.
	big := strings.Repeat("# "+strings.Repeat("x", 100)+"\n", 500) + cartOnly
	big = strings.Replace(big, "app: web", "app: nobody", 1)
	_, err = d.client.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "cart.yaml", Data: big}}})
	if !api.HasCode(err, api.Internal) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Fatalf("apply on a full disk: %v", err)
	}
	n.must(web.reaches(cart.v4, 8080)) // not in force
	if list, err := d.client.Policies(ctx); err != nil || len(list) != 0 {
		t.Errorf("policies %+v, %v", list, err)
	}
	if err := d.try(api.CNIRequest{Command: "STATUS"}); err != nil && !api.HasCode(err, api.NotReady) {
		t.Errorf("STATUS: %v", err)
	}
	n.must(os.Remove(filler))
	d.apply("", api.File{Name: "cart.yaml", Data: big})
	if web.reaches(cart.v4, 8080) == nil {
		t.Error("the policy is not in force after there was room again")
	}
	d.add(late)
}

// TestChurn: what comes and goes leaves nothing behind in the daemon.
func TestChurn(t *testing.T) {
	n := newNode(t)
	d := n.start()
	pods := []*pod{n.pod("a-1"), n.pod("b-1")}
	d.add(pods...) // warm: the first ones open what stays
	for _, p := range pods {
		d.cni(p.request("DEL"))
	}
	goroutines, fds := d.size()
	for range 25 {
		d.add(pods...)
		d.add(pods[0]) // the same again changes nothing
		for _, p := range pods {
			d.cni(p.request("DEL"))
			d.cni(p.request("DEL"))
		}
	}
	eventually(t, 5*time.Second, "back to where it began", func() error {
		g, f := d.size()
		if g > goroutines || f > fds {
			return fmt.Errorf("%d goroutines and %d descriptors, were %d and %d", g, f, goroutines, fds)
		}
		return nil
	})
	for _, p := range pods {
		out, err := exec.Command("nsenter", "--net="+p.path(), "nft", "list", "ruleset").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("left in %s: %v %s", p.name, err, out)
		}
	}
}

// size asks the daemon for its goroutines and descriptors.
func (p *process) size() (goroutines, fds int) {
	p.n.t.Helper()
	p.client.Close() // idle connections are goroutines of the server
	said := strings.Count(p.out.String(), "goroutines=")
	p.n.must(p.cmd.Process.Signal(syscall.SIGUSR1))
	eventually(p.n.t, 5*time.Second, "answer to SIGUSR1", func() error {
		if strings.Count(p.out.String(), "goroutines=") == said {
			return errNot
		}
		return nil
	})
	text := p.out.String()
	if _, err := fmt.Sscanf(text[strings.LastIndex(text, "goroutines="):], "goroutines=%d fds=%d", &goroutines, &fds); err != nil {
		p.n.t.Fatal(err)
	}
	return goroutines, fds
}

// TestAttachments: what a request may say and what not.
func TestAttachments(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web := n.pod("web-1")
	d.add(web)
	d.cni(web.request("CHECK"))

	// A second interface extends the same workload; its DEL leaves the first.
	web.wire("eth1", "veth900", mustAddr("10.88.9.1"), mustAddr("fd00:88::901"))
	second := web.request("ADD")
	second.IfName, second.Network = "eth1", "other"
	second.Interfaces = []api.CNIInterface{{Name: "eth1", Addrs: []string{"10.88.9.1/24"}}}
	d.cni(second)
	d.cni(second)
	row := func() api.Workload {
		t.Helper()
		rows, err := d.client.Workloads(ctx)
		n.must(err)
		if len(rows) != 1 {
			t.Fatalf("workloads %+v", rows)
		}
		return rows[0]
	}
	if r := row(); len(r.Addrs) != 3 || !r.Guarded {
		t.Errorf("two interfaces: %+v", r)
	}
	second.Command = "DEL"
	d.cni(second)
	if r := row(); len(r.Addrs) != 2 {
		t.Errorf("one interface again: %+v", r)
	}

	// A device without an end on the host is taken, and it is said that nothing guards it.
	for _, c := range []struct {
		name string
		edit func(*api.CNIRequest)
		code string
		text string
	}{
		{"the node's own namespace", func(r *api.CNIRequest) { r.NetNS = fmt.Sprintf("/proc/%d/ns/net", d.cmd.Process.Pid) }, api.BadRequest, "the node's own"},
		{"no namespace", func(r *api.CNIRequest) { r.NetNS = "/run/netns/never" }, api.BadRequest, "no such file"},
		{"no interface", func(r *api.CNIRequest) { r.Interfaces[0].Name = "eth7" }, api.BadRequest, "interface eth7"},
		{"a bad address", func(r *api.CNIRequest) { r.Interfaces[0].Addrs = []string{"x"} }, api.BadRequest, `address "x"`},
		{"no id", func(r *api.CNIRequest) { r.ContainerID = "" }, api.BadRequest, "ADD wants containerID"},
		{"unknown command", func(r *api.CNIRequest) { r.Command = "MOVE" }, api.BadRequest, `command "MOVE"`},
		{"CHECK of a stranger", func(r *api.CNIRequest) { r.Command, r.ContainerID = "CHECK", "x" }, api.NotFound, "not known"},
	} {
		req := web.request("ADD")
		c.edit(&req)
		if err := d.try(req); !api.HasCode(err, c.code) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	// GC: of its own network only, and only what is not valid.
	d.cni(api.CNIRequest{Command: "GC", Network: "other"})
	d.cni(api.CNIRequest{Command: "GC", Network: "pods", Valid: []api.CNIAttachment{{ContainerID: web.id, IfName: "eth0"}}})
	row()
	d.cni(api.CNIRequest{Command: "GC", Network: "pods"})
	if rows, err := d.client.Workloads(ctx); err != nil || len(rows) != 0 {
		t.Errorf("after GC: %+v, %v", rows, err)
	}

	// The same id with another namespace, as a restarted container has.
	d.add(web)
	again := n.pod("web-1")
	again.id = web.id
	d.add(again)
	if r := row(); r.NetNS != again.path() {
		t.Errorf("restarted: %+v", r)
	}
	// The same namespace with another id: a DEL that never came.
	again.id = "renamed"
	d.add(again)
	if r := row(); r.ID != "renamed" {
		t.Errorf("renamed: %+v", r)
	}
	// The same namespace under another path, of which one goes away.
	elsewhere := filepath.Join(n.dir, "netns")
	n.must(os.WriteFile(elsewhere, nil, 0o600))
	n.must(unix.Mount(again.path(), elsewhere, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(elsewhere, unix.MNT_DETACH) })
	req := again.request("ADD")
	req.NetNS = elsewhere
	d.cni(req)
	n.must(unix.Unmount(again.path(), unix.MNT_DETACH))
	time.Sleep(2 * presenceEvery) // in which the old path would be missed
	if r := row(); r.NetNS != elsewhere || r.Error != "" {
		t.Errorf("under another path: %+v", r)
	}
}

// TestHostEndIsVerified: a name in a request is a hint only.
func TestHostEndIsVerified(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	req := web.request("ADD")
	req.Interfaces[0].Host = cart.host
	d.cni(req)
	rules, err := d.client.Rules(ctx, "shop/web-1", true)
	if err != nil || !strings.Contains(rules, "bulkhead-"+web.host) || strings.Contains(rules, "bulkhead-"+cart.host) {
		t.Errorf("%v\n%s", err, rules)
	}

	// A veth that does not lead to the node has no guard, and status says so.
	lone := n.pod("lone-1")
	h := lone.handle()
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth5"
	n.must(h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth6"}))
	req = lone.request("ADD")
	req.Interfaces = []api.CNIInterface{{Name: "eth5", Host: web.host, Addrs: []string{"10.88.7.7/24"}}}
	d.cni(req)
	rows, err := d.client.Workloads(ctx)
	n.must(err)
	status, err := d.client.Status(ctx)
	n.must(err)
	if rows[0].Name != "lone-1" || rows[0].Guarded || !strings.Contains(strings.Join(status.Warnings, "\n"), "shop/lone-1: interface eth5 has no end on the host") {
		t.Errorf("%+v, warnings %q", rows[0], status.Warnings)
	}
}
