package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// The tests' world: a namespace that plays the node, with a bridge; pods are namespaces with a veth
// to that bridge; the daemon is a process of its own in the node's namespace, so that it can be
// killed like one.
//
//	machine ── (untouched)
//	node    ── br0 10.88.0.1/24 fd00:88::1/64 ── veth ── pod (10.88.0.N, fd00:88::N)
//	           bulkheadd

// daemonEnv tells the test program to be the daemon: it names the configuration file.
const daemonEnv = "BULKHEAD_TEST_DAEMON"

func TestMain(m *testing.M) {
	if file := os.Getenv(daemonEnv); file != "" {
		beDaemon(file)
	}
	os.Exit(m.Run())
}

// beDaemon is what cmd/bulkheadd does, and tells its goroutines and descriptors on SIGUSR1.
func beDaemon(file string) {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, unix.SIGUSR1)
	go func() {
		for range usr1 {
			fds, err := os.ReadDir("/proc/self/fd")
			fmt.Printf("goroutines=%d fds=%d err=%v\n", runtime.NumGoroutine(), len(fds), err)
			if os.Getenv("BULKHEAD_TEST_STACKS") != "" {
				buf := make([]byte, 1<<20)
				fmt.Printf("%s\n", buf[:runtime.Stack(buf, true)])
			}
		}
	}()
	code := Main([]string{"--config", file}, os.Stdout, os.Stderr)
	signal.Stop(usr1)
	close(usr1)
	// A probe of memberlist's that waits for its answer ends after Shutdown, when its time is over: up to
	// nine seconds where members had died.
	if err := goleak.Find(goleak.IgnoreAnyFunction("os/signal.loop"), goleak.IgnoreAnyFunction("os/signal.signal_recv"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode")); err != nil {
		fmt.Println("leak:", err)
		code = 3
	}
	os.Exit(code)
}

// needRoot skips a test that needs root, or fails it where root is promised.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1")
	}
	t.Skip("needs root")
}

// node is a namespace that plays the node.
type node struct {
	t     *testing.T
	name  string
	dir   string
	ns    netns.NsHandle
	nl    *netlink.Handle
	mu    sync.Mutex
	count int
	block byte // its pods are 10.88.BLOCK.N and fd00:88:0:BLOCK::N
}

var nodes struct {
	sync.Mutex
	n int
}

func newNode(t *testing.T) *node { return newNodeAt(t, 0) }

// newNodeAt makes one of several nodes, with pods of its own block.
func newNodeAt(t *testing.T, block byte) *node {
	t.Helper()
	needRoot(t)
	nodes.Lock()
	nodes.n++
	name := fmt.Sprintf("bhd%d-%d", os.Getpid(), nodes.n)
	nodes.Unlock()
	n := &node{t: t, name: name, dir: t.TempDir(), block: block}
	n.ns = n.namespace(name)
	var err error
	if n.nl, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.nl.Close)
	n.up("lo")
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "br0"
	n.must(n.nl.LinkAdd(bridge))
	n.addr("br0", n.v4(1).String()+"/24")
	n.addr("br0", n.v6(1).String()+"/64")
	n.up("br0")
	for _, d := range []string{"policies", "inventory"} {
		n.must(os.Mkdir(filepath.Join(n.dir, d), 0o755))
	}
	return n
}

// namespace makes a named namespace that ends with the test.
func (n *node) namespace(name string) netns.NsHandle {
	n.t.Helper()
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		n.t.Fatalf("ip netns add %s: %v %s", name, err, out)
	}
	h, err := netns.GetFromName(name)
	n.must(err)
	n.t.Cleanup(func() {
		h.Close()
		// Gone already where the test took it away.
		_ = exec.Command("ip", "netns", "del", name).Run()
	})
	return h
}

func (n *node) v4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 88, n.block, byte(i)}) }

func (n *node) v6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x88, 7: n.block, 15: byte(i)})
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) up(link string) { upIn(n.t, n.nl, link) }

func (n *node) addr(link, addr string) { addrIn(n.t, n.nl, link, addr) }

func upIn(t *testing.T, h *netlink.Handle, name string) {
	t.Helper()
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("%s up: %v", name, err)
	}
}

func addrIn(t *testing.T, h *netlink.Handle, name, addr string) {
	t.Helper()
	l, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	a.Flags = unix.IFA_F_NODAD
	if err := h.AddrAdd(l, a); err != nil {
		t.Fatalf("%s %s: %v", name, addr, err)
	}
}

// pod is a namespace with a veth to the node's bridge.
type pod struct {
	n        *node
	id, name string // container id; pod name
	ns       netns.NsHandle
	nsName   string
	host     string
	v4, v6   netip.Addr
}

func (n *node) pod(name string) *pod {
	n.t.Helper()
	n.mu.Lock()
	n.count++
	i := n.count
	n.mu.Unlock()
	p := &pod{n: n, name: name, id: fmt.Sprintf("%s-%d", name, i), nsName: fmt.Sprintf("%s-%d", n.name, i), host: fmt.Sprintf("veth%d", i)}
	p.ns = n.namespace(p.nsName)
	p.v4, p.v6 = n.v4(1+i), n.v6(1+i)
	p.wire("eth0", p.host, p.v4, p.v6)
	h := p.handle()
	defer h.Close()
	upIn(n.t, h, "lo")
	return p
}

func (p *pod) handle() *netlink.Handle {
	h, err := netlink.NewHandleAt(p.ns, unix.NETLINK_ROUTE)
	p.n.must(err)
	return h
}

// wire adds an interface to the pod with its other end on the bridge.
func (p *pod) wire(name, host string, v4, v6 netip.Addr) {
	p.n.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = host
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(p.ns)}
	p.n.must(p.n.nl.LinkAdd(veth))
	l, err := p.n.nl.LinkByName(host)
	p.n.must(err)
	br, err := p.n.nl.LinkByName("br0")
	p.n.must(err)
	p.n.must(p.n.nl.LinkSetMaster(l, br))
	p.n.up(host)
	h := p.handle()
	defer h.Close()
	addrIn(p.n.t, h, name, v4.String()+"/24")
	addrIn(p.n.t, h, name, v6.String()+"/64")
	upIn(p.n.t, h, name)
}

func (p *pod) path() string { return "/run/netns/" + p.nsName }

// request is the ADD that the plugin would send.
func (p *pod) request(command string) api.CNIRequest {
	return api.CNIRequest{
		Command: command, ContainerID: p.id, NetNS: p.path(), IfName: "eth0", Network: "pods",
		Args: map[string]string{"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": p.name},
		Interfaces: []api.CNIInterface{{Name: "eth0", Host: p.host, Addrs: []string{p.v4.String() + "/24", p.v6.String() + "/64"},
			Gateways: []string{p.n.v4(1).String(), p.n.v6(1).String()}}},
		Labels: map[string]string{"app": strings.TrimRight(p.name, "-0123456789")},
	}
}

// in runs f in a namespace, on a thread of its own; sockets that f opens stay there.
func in(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine instead of going back to the pool.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// serve answers every TCP connection and UDP datagram on port with the pod's name, until the test ends.
func (p *pod) serve(port int) {
	p.n.t.Helper()
	var l net.Listener
	var u net.PacketConn
	p.n.must(in(p.ns, func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			u, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		}
		return err
	}))
	p.n.t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, p.name)
				_, _ = io.Copy(c, c) // an echo, for connections that stay
			}()
		}
	}()
	go func() {
		buf := make([]byte, 2048)
		for {
			k, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:k], from)
		}
	}()
}

// dial opens a TCP connection from the pod and reads the greeting.
func (p *pod) dial(to netip.Addr, port int, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := in(p.ns, func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, uint16(port)).String(), wait)
		return err
	})
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 256)
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if _, err := c.Read(buf); err != nil {
		c.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// reaches says whether a TCP connection works.
func (p *pod) reaches(to netip.Addr, port int) error {
	c, err := p.dial(to, port, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// asks sends a datagram and wants it back.
func (p *pod) asks(to netip.Addr, port int) error {
	return in(p.ns, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(to, uint16(port)).String())
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 16))
		return err
	})
}

// process is a running daemon.
type process struct {
	n      *node
	cmd    *exec.Cmd
	client *api.Client
	out    *output
	done   chan error
}

// output keeps what the daemon says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// config writes a configuration with the lines given over the tests' own.
func (n *node) config(lines ...string) string {
	n.t.Helper()
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "holder:") }) {
		lines = append(lines, `holder: ""`)
	}
	text := fmt.Sprintf("socket: %[1]s/api.sock\nnode: %[2]s\nstateDir: %[1]s/state\npolicyDir: %[1]s/policies\n"+
		"inventoryDir: %[1]s/inventory\nalertLog: %[1]s/alerts.jsonl\nlogLevel: debug\n", n.dir, n.name) + strings.Join(lines, "\n") + "\n"
	file := filepath.Join(n.dir, "bulkheadd.yaml")
	n.must(os.WriteFile(file, []byte(text), 0o600))
	return file
}

// start runs the daemon and waits until it answers.
func (n *node) start(lines ...string) *process {
	n.t.Helper()
	p := n.spawn(n.config(lines...))
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := p.client.Status(ctx)
		cancel()
		if err == nil {
			return p
		}
		select {
		case err := <-p.done:
			n.t.Fatalf("the daemon ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the daemon does not answer: %v", err)
		}
	}
}

func (n *node) spawn(config string) *process {
	n.t.Helper()
	self, err := os.Executable()
	n.must(err)
	p := &process{n: n, out: &output{}, done: make(chan error, 1), client: api.NewClient(filepath.Join(n.dir, "api.sock"))}
	p.cmd = exec.Command("nsenter", "--net=/run/netns/"+n.name, self)
	p.cmd.Env = append(os.Environ(), daemonEnv+"="+config)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	n.must(p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	n.t.Cleanup(func() {
		p.client.Close()
		_ = p.cmd.Process.Kill()
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
		}
		if n.t.Failed() {
			n.t.Logf("the daemon said:\n%s", p.out)
		}
	})
	return p
}

// kill ends the daemon as a crash would.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop ends it as an init system would.
func (p *process) stop() { p.end(syscall.SIGTERM) }

func (p *process) end(sig syscall.Signal) {
	p.n.t.Helper()
	p.n.must(p.cmd.Process.Signal(sig))
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(10 * time.Second):
		p.n.t.Fatalf("the daemon does not end after %v", sig)
	}
}

// add sends the ADD of a pod.
func (p *process) add(pods ...*pod) {
	p.n.t.Helper()
	for _, x := range pods {
		p.cni(x.request("ADD"))
	}
}

func (p *process) cni(req api.CNIRequest) {
	p.n.t.Helper()
	if err := p.try(req); err != nil {
		p.n.t.Fatalf("%s %s: %v", req.Command, req.ContainerID, err)
	}
}

func (p *process) try(req api.CNIRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p.client.CNI(ctx, req)
}

// eventually waits until f is content.
func eventually(t *testing.T, wait time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var errNot = errors.New("not so")

// reachFrom connects from the namespace of the calling thread, as a probe does.
func reachFrom(p *pod) error {
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(p.v4, 8080).String(), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

var mustAddr = netip.MustParseAddr

// route makes the node's bridge a pod's way to everywhere.
func route(t *testing.T, h *netlink.Handle, via string) {
	t.Helper()
	if err := h.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)}); err != nil {
		t.Fatal(err)
	}
}

// nat makes the node translate a Service's address, as kube-proxy would.
func (n *node) nat(family, vip string, port int, to string, toPort int) {
	n.t.Helper()
	rules := fmt.Sprintf("table %s nat { chain pre { type nat hook prerouting priority dstnat; %s daddr %s tcp dport %d dnat to %s:%d; }\n}", family, family, vip, port, to, toPort)
	cmd := exec.Command("nsenter", "--net=/run/netns/"+n.name, "sh", "-c",
		// The answer goes from pod to pod over the bridge, and must meet the translation all the same.
		"echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; nft -f -")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("nat: %v %s", err, out)
	}
}
