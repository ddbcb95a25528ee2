package attack

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

const (
	// floodMemory is how much the daemon may grow by a flood, in bytes: twice what the bounds of graph,
	// baseline and alerts add up to (firewall.SeenSize elements are the kernel's).
	floodMemory = 160 << 20
	// floodStart and floodShare are what CPU time the daemon may take: for what each of the two logs may
	// bring at once (firewall's readersBurst, at some 20 µs each), doubled twice for slow machines and for
	// the test's own questions; and then a share of a core for as long as the flood goes on.
	floodStart = 4 * time.Second
	floodShare = 0.3
)

// TestThreat7: one workload floods. The daemon's memory is bounded and its share of a core, the honest
// edges of others are learned all the while, and what was not learned is told. BULKHEAD_FLOWS sets how
// many flows each flood has (1000000 for the whole of it).
func TestThreat7(t *testing.T) {
	flows := number(t, "BULKHEAD_FLOWS", 70000)
	y := newYard(t, "learn")
	y.end(syscall.SIGTERM)
	y.program = filepath.Join(os.Getenv("BULKHEAD_BIN"), "bulkheadd") // the one whose memory counts
	y.start()
	server := y.pod("server", 2, map[string]string{"app": "server"})
	honest := y.pod("honest", 3, map[string]string{"app": "honest"})
	flooder := y.pod("flooder", 4, map[string]string{"app": "flooder"})
	must(t, flooder.routeOut())
	port := 20000
	for _, f := range []struct {
		name string
		send func(i int) (from uint16, to netip.AddrPort)
	}{
		{"port scan", func(i int) (uint16, netip.AddrPort) { return 0, netip.AddrPortFrom(server.v4, uint16(1+i%65535)) }},
		{"random destinations", func(int) (uint16, netip.AddrPort) {
			return 0, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(rand.N(2)), byte(rand.N(256)), byte(rand.N(256))}), uint16(1+rand.N(65535)))
		}},
		{"DNS from every source port", func(i int) (uint16, netip.AddrPort) {
			return uint16(1 + i%65535), netip.AddrPortFrom(server.v4, 53)
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			memory, cpu, began := y.memory(), y.cpu(), time.Now()
			var wg sync.WaitGroup
			wg.Add(1)
			go func() { // ends with its flows
				defer wg.Done()
				if err := flooder.datagrams(flows, f.send); err != nil {
					t.Error(err)
				}
			}()
			for range 5 { // meanwhile
				port++
				l := server.listen(t, port)
				go greet(l)
				if !eventually(func() bool { return honest.reaches(netip.AddrPortFrom(server.v4, uint16(port)), time.Second) }) {
					t.Errorf("the honest workload cannot call port %d", port)
				}
				if !eventually(func() bool { return y.knows("shop/honest", "shop/server", port) }) {
					t.Errorf("the honest edge to port %d was not learned", port)
				}
			}
			wg.Wait()
			took := time.Since(began)
			used := y.cpu() - cpu
			grown := y.memory() - memory
			status, err := y.client.Status(t.Context())
			must(t, err)
			t.Logf("%d flows in %v: %.0f %% of a core, %d MiB more; %d edges, %+v\n%s", flows, took.Round(time.Millisecond),
				used.Seconds()/took.Seconds()*100, grown>>20, status.Edges, status.Counters, strings.Join(status.Warnings, "\n"))
			if grown > floodMemory {
				t.Errorf("the daemon grew by %d MiB", grown>>20)
			}
			if limit := floodStart + time.Duration(floodShare*float64(took)); used > limit {
				t.Errorf("the daemon used %v of CPU in %v, bound %v", used, took, limit)
			}
			if limit := 3 * 4096; status.Edges > limit { // flow.Limits.PerClient, of each workload
				t.Errorf("%d edges, bound %d", status.Edges, limit)
			}
		})
	}
	status, err := y.client.Status(t.Context())
	must(t, err)
	if told := strings.Join(status.Warnings, "\n"); !strings.Contains(told, "full") {
		t.Errorf("status does not tell that anything was left out: %q", told)
	}
	for _, e := range y.edges() {
		if e.Client == "shop/honest" && e.Server != "shop/server" {
			t.Errorf("an edge that never was: %+v", e)
		}
	}
}

// routeOut lets a workload send to everywhere.
func (p *plot) routeOut() error {
	return firewall.Enter(p.path(), func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.RouteAdd(&netlink.Route{Gw: net.ParseIP("10.77.0.1")})
	})
}

// datagrams sends n of them, each from the source port that it is given; 0 for any.
func (p *plot) datagrams(n int, send func(int) (uint16, netip.AddrPort)) error {
	return firewall.Enter(p.path(), func() error {
		any, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(any)
		for i := range n {
			from, to := send(i)
			fd := any
			if from != 0 {
				if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				_ = unix.Bind(fd, &unix.SockaddrInet4{Port: int(from)})
			}
			// Errors are those of datagrams before: refused ports, unknown neighbours.
			_ = unix.Sendto(fd, []byte("flood"), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
			if from != 0 {
				unix.Close(fd)
			}
		}
		return nil
	})
}

func (y *yard) edges() []edgeSeen {
	g, err := y.client.Graph(y.Context())
	must(y, err)
	var out []edgeSeen
	for _, e := range g.Edges {
		out = append(out, edgeSeen{e.Client, e.Server, int(e.Port)})
	}
	return out
}

type edgeSeen struct {
	Client, Server string
	Port           int
}

// knows says whether the daemon has learned an edge.
func (y *yard) knows(client, server string, port int) bool {
	for _, e := range y.edges() {
		if e == (edgeSeen{client, server, port}) {
			return true
		}
	}
	return false
}

// memory is what the daemon holds in memory, in bytes.
func (y *yard) memory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", y.cmd.Process.Pid))
	must(y, err)
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	must(y, err)
	return n << 10
}

// cpu is what the daemon has used so far, to a hundredth of a second (proc_pid_stat(5)).
func (y *yard) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", y.cmd.Process.Pid))
	must(y, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err := strconv.ParseInt(f[11], 10, 64)
	must(y, err)
	system, err := strconv.ParseInt(f[12], 10, 64)
	must(y, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
