package firewall

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// sidecar is what istio-init puts in a pod's namespace, in iptables' words: everything that goes out,
// but for the proxy's own (uid 1337), is redirected to 15001, everything that comes in to 15006.
const sidecar = `*nat
-A PREROUTING -p tcp ! --dport 15006 -j REDIRECT --to-ports 15006
-A OUTPUT -o lo -j RETURN
-A OUTPUT -m owner --uid-owner 1337 -j RETURN
-A OUTPUT -p tcp -j REDIRECT --to-ports 15001
COMMIT
`

const proxyUser = 1337

func testSidecar(t testing.TB, path string) {
	t.Helper()
	cmd := testCommand("nsenter", "--net="+path, "iptables-nft-restore")
	cmd.Stdin = strings.NewReader(sidecar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("iptables-nft-restore: %v\n%s", err, out)
	}
}

// TestSidecar: in a namespace with a sidecar's NAT, loaded before our rules and after, the mesh goes on
// working, and policy holds on the true peer and the true port, at both ends.
func TestSidecar(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before=%v", before), func(t *testing.T) {
			node := newTestNode(t)
			client, server, other := node.workload(t), node.workload(t), node.workload(t)
			server.serve(t, 80, 53)
			server.serve(t, 81, 0)
			meshed := []*testWorkload{client, server}
			if before {
				for _, w := range meshed {
					testSidecar(t, w.path)
				}
			}
			apply := func(out, in []policy.Entry) {
				t.Helper()
				for _, w := range meshed {
					sides := both(egress(out...), ingress())
					if w == server {
						sides = both(egress(), ingress(in...))
					}
					w.redirect(t, policy.Enforce, sides)
				}
				other.apply(t, policy.Enforce, policy.Sides{})
			}
			apply(allows(server), allows(client))
			if !before {
				for _, w := range meshed {
					testSidecar(t, w.path)
				}
				apply(allows(server), allows(client))
			}
			outbound, inbound := sidecarProxy(t, client, 15001), sidecarProxy(t, server, 15006)
			to := netip.AddrPortFrom(server.v4, 80)
			if !client.talks("tcp", to, patience(true)) {
				t.Error("no answer through both sidecars")
			}
			if o, i := outbound(), inbound(); o != to.String() || i != to.String() {
				t.Errorf("the client's sidecar relayed to %q, the server's to %q; want %s", o, i, to)
			}
			if !client.talks("udp", netip.AddrPortFrom(server.v4, 53), patience(true)) {
				t.Error("no answer by UDP, which the sidecar leaves alone")
			}
			if other.talks("tcp", to, patience(false)) || inbound() != "" {
				t.Error("whom policy does not name reaches the sidecar")
			}
			if client.talks("tcp", netip.AddrPortFrom(server.v4, 81), patience(false)) || inbound() != "" {
				t.Error("a port that policy does not name is reached through the sidecar")
			}
			apply(append(allows(server), testEntry(server.v4.String(), 6, 81, 81)), allows(client))
			if client.talks("tcp", netip.AddrPortFrom(server.v4, 81), patience(false)) || inbound() != "" {
				t.Error("a port that the server's end does not name is reached through the sidecars")
			}
			apply(nil, allows(client))
			if client.talks("tcp", to, patience(false)) || inbound() != "" {
				t.Error("the client's sidecar reaches what policy denies")
			}
			for _, w := range meshed {
				if err := w.ns.Check(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// redirect is apply with what the namespace says of redirects.
func (w *testWorkload) redirect(t testing.TB, mode policy.Mode, sides policy.Sides) {
	t.Helper()
	if w.ns == nil {
		w.open(t)
	}
	redirected, err := w.ns.Redirects()
	if err != nil {
		t.Fatal(err)
	}
	spec := w.spec(mode, sides)
	spec.Redirected = redirected
	if _, err := w.ns.Apply(Compile(spec)); err != nil {
		t.Fatal(err)
	}
}

// sidecarProxy relays what is redirected to a port to where it was meant, as user 1337. What it gives
// tells where the latest connection went, once.
func sidecarProxy(t testing.TB, w *testWorkload, port int) func() string {
	t.Helper()
	var l net.Listener
	if err := Enter(w.path, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	meant := make(chan string, 100)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			to, err := originalDestination(in.(*net.TCPConn))
			if err != nil {
				in.Close()
				continue
			}
			meant <- to.String()
			go w.relay(in, to)
		}
	}()
	return func() string {
		select {
		case to := <-meant:
			return to
		default:
			return ""
		}
	}
}

func (w *testWorkload) relay(in net.Conn, to netip.AddrPort) {
	defer in.Close()
	var out net.Conn
	err := Enter(w.path, func() (err error) {
		if err := syscall.Setfsuid(proxyUser); err != nil { // whose the socket is
			return err
		}
		defer func() { _ = syscall.Setfsuid(0) }()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(patience(true)))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			unix.Close(fd)
			return err
		}
		out, err = fileConn(fd)
		return err
	})
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = io.Copy(out, in); out.Close() }()
	_, _ = io.Copy(in, out)
}

// originalDestination is where a redirected connection was meant to go (SO_ORIGINAL_DST).
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var sa unix.RawSockaddrInet4
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(sa))
		const originalDst = 80
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_IP, originalDst, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	port := sa.Port>>8 | sa.Port<<8
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port), err
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "proxy")
	defer f.Close()
	return net.FileConn(f)
}
