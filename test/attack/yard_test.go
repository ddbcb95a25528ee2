package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/daemon"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// yard is a node whose workloads come and go as the test says: any address, any order of events,
// hundreds a second. The CNI chain of the lab would give no address twice, and no event late.
//
//	yard ── br0 10.77.0.1/16 fd77::1/64 ── veth ── pods 10.77.x.y, fd77::x:y
//	        bulkheadd (this test program), bulkheadd holder
type yard struct {
	*testing.T
	name, dir string
	program   string // the daemon's: this test program, that can be asked for its goroutines, or the real one
	nl        *netlink.Handle
	bridge    netlink.Link
	client    *api.Client
	out       *said

	cmd  *exec.Cmd // the daemon; nil while it is down
	done chan error

	mu   sync.Mutex
	next int // number of the next pod
	pods map[*plot]bool
}

// plot is one workload of a yard: a namespace with a veth to the bridge.
type plot struct {
	y        *yard
	id, name string // container id; pod name
	labels   map[string]string
	netns    string
	host     string // the host's end of its veth
	v4, v6   netip.Addr
}

// daemonEnv makes this test binary the daemon: it names the configuration.
const daemonEnv = "BULKHEAD_ATTACK_DAEMON"

// runDaemon is what cmd/bulkheadd does; on SIGUSR1 it says how many goroutines it has.
func runDaemon(file string) int {
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, unix.SIGUSR1)
	go func() { // ends with the process
		for range ask {
			fmt.Printf("goroutines=%d\n", runtime.NumGoroutine())
		}
	}()
	return daemon.Main([]string{"--config", file}, os.Stdout, os.Stderr)
}

// said keeps the last of what a program says.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf.Len() > 1<<20 {
		s.buf.Reset()
	}
	return s.buf.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// newYard makes a yard whose daemon begins in a mode; it ends with the test.
func newYard(t *testing.T, mode string) *yard {
	t.Helper()
	needRoot(t)
	self, err := os.Executable()
	must(t, err)
	y := &yard{T: t, name: fmt.Sprintf("bhyard%d-%d", os.Getpid(), tokens.Add(1)), dir: t.TempDir(), program: self, out: &said{}, pods: map[*plot]bool{}}
	must(t, os.MkdirAll("/run/netns", 0o755))
	must(t, makeNetns(y.name))
	t.Cleanup(func() { must(t, dropNetns(y.name)) })
	must(t, firewall.Enter(netnsPath(y.name), func() (err error) {
		y.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	t.Cleanup(y.nl.Close)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	must(t, y.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	y.bridge, err = y.nl.LinkByName("br0")
	must(t, err)
	must(t, addresses(y.nl, y.bridge, "10.77.0.1/16", "fd77::1/64"))
	for _, d := range []string{"policies", "inventory"} {
		must(t, os.Mkdir(filepath.Join(y.dir, d), 0o755))
	}
	y.client = api.NewClient(filepath.Join(y.dir, "api.sock"))
	t.Cleanup(y.client.Close)
	config := fmt.Sprintf("socket: %[1]s/api.sock\nnode: %[2]s\nstateDir: %[1]s/state\npolicyDir: %[1]s/policies\n"+
		"inventoryDir: %[1]s/inventory\nalertLog: %[1]s/alerts.jsonl\nholder: %[1]s/holder.sock\ndefaultMode: %[3]s\n", y.dir, y.name, mode)
	must(t, os.WriteFile(filepath.Join(y.dir, "config.yaml"), []byte(config), 0o600))
	y.holder()
	y.start()
	t.Cleanup(func() {
		y.end(syscall.SIGTERM)
		y.mu.Lock()
		defer y.mu.Unlock()
		for p := range y.pods {
			must(t, dropNetns(p.netns))
		}
		if t.Failed() {
			t.Logf("the daemon said:\n%s", y.out)
		}
	})
	return y
}

// holder starts what keeps the tables' owners while the daemon is away.
func (y *yard) holder() {
	cmd := exec.Command(filepath.Join(os.Getenv("BULKHEAD_BIN"), "bulkheadd"), "holder", "--socket", filepath.Join(y.dir, "holder.sock"))
	cmd.Stdout, cmd.Stderr = y.out, y.out
	must(y, firewall.Enter(netnsPath(y.name), cmd.Start))
	y.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if !eventually(func() bool { _, err := os.Stat(filepath.Join(y.dir, "holder.sock")); return err == nil }) {
		y.Fatalf("the holder does not listen:\n%s", y.out)
	}
}

// start starts the daemon and waits until it answers.
func (y *yard) start() {
	y.Helper()
	y.cmd, y.done = exec.Command(y.program, "--config", filepath.Join(y.dir, "config.yaml")), make(chan error, 1)
	y.cmd.Env = append(os.Environ(), daemonEnv+"="+filepath.Join(y.dir, "config.yaml"))
	y.cmd.Stdout, y.cmd.Stderr = y.out, y.out
	must(y, firewall.Enter(netnsPath(y.name), y.cmd.Start))
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(y.cmd, y.done)
	if !eventually(func() bool { _, err := y.client.Status(y.Context()); return err == nil }) {
		y.Fatalf("the daemon does not answer:\n%s", y.out)
	}
}

// end ends the daemon by a signal and waits for it.
func (y *yard) end(sig syscall.Signal) {
	if y.cmd == nil {
		return
	}
	if err := y.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		y.Error(err)
	}
	select {
	case <-y.done:
	case <-time.After(ready):
		y.Errorf("the daemon does not end by %v", sig)
		_ = y.cmd.Process.Kill()
		<-y.done
	}
	y.cmd = nil
}

// plot makes a namespace with the addresses of a number, which the daemon is not told of yet.
func (y *yard) plot(name string, number int, labels map[string]string) *plot {
	y.Helper()
	y.mu.Lock()
	y.next++
	n := y.next
	y.mu.Unlock()
	p := &plot{y: y, id: fmt.Sprintf("%s-%d", name, n), name: name, labels: labels, netns: fmt.Sprintf("%s-%d", y.name, n), host: fmt.Sprintf("v%d", n)}
	p.v4 = netip.AddrFrom4([4]byte{10, 77, byte(number >> 8), byte(number)})
	p.v6 = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 14: byte(number >> 8), 15: byte(number)})
	must(y, makeNetns(p.netns))
	y.mu.Lock()
	y.pods[p] = true
	y.mu.Unlock()
	must(y, p.wire())
	return p
}

func (p *plot) path() string { return netnsPath(p.netns) }

// wire gives it its interface.
func (p *plot) wire() error {
	ns, err := os.Open(p.path())
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = p.host, p.y.bridge.Attrs().Index, 1 // up
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := p.y.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", p.host, err)
	}
	host, err := p.y.nl.LinkByName(p.host)
	if err == nil {
		err = errors.Join(p.y.nl.LinkSetMaster(host, p.y.bridge), p.y.nl.LinkSetUp(host))
	}
	if err != nil {
		return err
	}
	return firewall.Enter(p.path(), func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		lo, err := h.LinkByName("lo")
		return errors.Join(err, h.LinkSetUp(lo), addresses(h, eth, p.v4.String()+"/16", p.v6.String()+"/64"))
	})
}

func addresses(h *netlink.Handle, link netlink.Link, addrs ...string) error {
	for _, s := range addrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := h.AddrAdd(link, a); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return h.LinkSetUp(link)
}

// event tells the daemon what a plugin would.
func (p *plot) event(command string) error {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	return p.y.client.CNI(ctx, api.CNIRequest{
		Command: command, ContainerID: p.id, NetNS: p.path(), IfName: "eth0", Network: "pods",
		Args: map[string]string{"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": p.name},
		Interfaces: []api.CNIInterface{{Name: "eth0", Host: p.host, Addrs: []string{p.v4.String() + "/16", p.v6.String() + "/64"},
			Gateways: []string{"10.77.0.1", "fd77::1"}}},
		Labels: p.labels,
	})
}

// pod is a plot that the daemon has taken over.
func (y *yard) pod(name string, number int, labels map[string]string) *plot {
	y.Helper()
	p := y.plot(name, number, labels)
	must(y, p.event("ADD"))
	return p
}

// unplug takes the interface away, as the end of its container does; no event tells of it.
func (p *plot) unplug() error {
	link, err := p.y.nl.LinkByName(p.host)
	if err != nil {
		return err
	}
	return p.y.nl.LinkDel(link)
}

// gone removes the namespace.
func (p *plot) gone() error {
	p.y.mu.Lock()
	delete(p.y.pods, p)
	p.y.mu.Unlock()
	return dropNetns(p.netns)
}

// apply puts policies in force, with a mode for all that they select.
func (y *yard) apply(text, mode string) error {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	_, err := y.client.Apply(ctx, api.ApplyRequest{Do: api.DoApply, Files: []api.File{{Name: "yard.yaml", Data: text}}, Mode: mode})
	return err
}

var goroutines = regexp.MustCompile(`goroutines=(\d+)`)

// holds says how many goroutines and descriptors the daemon has.
func (y *yard) holds() (routines, files int) {
	y.Helper()
	count := func() int { return len(goroutines.FindAllString(y.out.String(), -1)) }
	before := count()
	must(y, y.cmd.Process.Signal(unix.SIGUSR1))
	if !eventually(func() bool { return count() != before }) {
		y.Fatal("the daemon does not say how many goroutines it has")
	}
	all := goroutines.FindAllStringSubmatch(y.out.String(), -1)
	routines, err := strconv.Atoi(all[len(all)-1][1])
	must(y, err)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", y.cmd.Process.Pid))
	must(y, err)
	return routines, len(fds)
}

func netnsPath(name string) string { return "/run/netns/" + name }

// makeNetns makes a named namespace, as `ip netns add` does.
func makeNetns(name string) error {
	f, err := os.OpenFile(netnsPath(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", netnsPath(name), "none", unix.MS_BIND, "")
		}
		done <- err
	}()
	return <-done
}

func dropNetns(name string) error {
	if err := unix.Unmount(netnsPath(name), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	if err := os.Remove(netnsPath(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
