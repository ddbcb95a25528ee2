package attack

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// onlyStays lets one of two clients call the server, as the server's policy and as the client's.
const (
	onlyStays = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: stays}}}]}]
`
	goesMayNothing = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: goes, namespace: shop}
spec: {podSelector: {matchLabels: {app: goes}}, policyTypes: [Ingress, Egress]}
`
	goesMayCallNobody = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: goes, namespace: shop}
spec: {podSelector: {matchLabels: {app: goes}}, policyTypes: [Egress]}
`
)

// TestThreat5: somebody keeps connections open from before the policy. They are dead within a second
// of the change, in both directions, whoever speaks next; the others lose nothing.
func TestThreat5(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		killed       bool // the daemon, in the middle of it
		calls        bool // the server may still call the client, so that only TCP can be told apart
	}{
		{"policy_at_server", onlyStays, false, false},
		{"policy_at_client", goesMayNothing, false, false},
		{"client_may_be_called", goesMayCallNobody, false, true},
		{"daemon_killed_meanwhile", onlyStays, true, false},
	} {
		t.Run(c.name, func(t *testing.T) { streamsEnd(t, c.policy, c.killed, c.calls) })
	}
}

// streamsEnd lays streams of every kind, takes the right of half of them, and looks.
func streamsEnd(t *testing.T, text string, killed, calls bool) {
	y := newYard(t, "learn")
	server := y.pod("server", 2, map[string]string{"app": "server"})
	stays := y.pod("stays", 3, map[string]string{"app": "stays"})
	goes := y.pod("goes", 4, map[string]string{"app": "goes"})
	var lost, kept []*stream
	port := 1000
	for _, c := range []*plot{goes, stays} {
		for _, v6 := range []bool{false, true} {
			for _, k := range []struct {
				name string
				who  talkers
			}{{"the client speaks", clientTalks}, {"the server speaks", serverTalks}, {"both speak", clientTalks | serverTalks}} {
				port += 3
				name := fmt.Sprintf("%s, v6=%v, %s", c.name, v6, k.name)
				more := []*stream{tcp(t, "TCP of "+name, c.path(), server, v6, port, k.who)}
				if !calls {
					more = append(more, udp(t, "UDP of "+name, c, server, v6, port, k.who))
				}
				if k.who != clientTalks|serverTalks {
					more = append(more, tcp(t, "half closed TCP of "+name, c.path(), server, v6, port+1, k.who|othersClose))
				}
				if c == goes {
					lost = append(lost, more...)
				} else {
					kept = append(kept, more...)
				}
			}
		}
	}
	child := childNamespace(t, goes)
	behind := tcp(t, "TCP of a namespace behind goes", child, server, false, 999, clientTalks|serverTalks)
	backlog := fillBacklog(t, goes, server, 998)

	began := time.Now()
	if killed {
		done := make(chan error, 1)
		go func() { done <- y.apply(text, "enforce") }()
		time.Sleep(10 * time.Millisecond) // somewhere in the middle
		y.end(syscall.SIGKILL)
		<-done
		y.start()
	}
	must(t, y.apply(text, "enforce"))
	t.Logf("in force after %v", time.Since(began).Round(time.Millisecond))
	deaf(t, lost, time.Second)
	alive(t, kept)
	// Its socket is out of reach. What the server has in flight may still come, a window at most, since
	// nothing of it is acknowledged any more.
	if told := behind.toServer.Load(); !eventually(func() bool {
		before := behind.heard()
		time.Sleep(500 * time.Millisecond)
		return behind.heard() == before
	}) || behind.toServer.Load() != told {
		t.Errorf("%s goes on: %v bytes", behind.name, behind.heard())
	}
	for _, st := range lost {
		if st.client.LocalAddr().Network() != "tcp" {
			continue
		}
		select {
		case <-st.told:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: no end was told", st.name)
		}
	}
	backlog(t)
}

// fillBacklog connects to a listener that accepts nobody yet. What it gives accepts, and fails when
// there is a byte that was sent after the call.
func fillBacklog(t *testing.T, client, server *plot, port int) func(testing.TB) {
	l := server.listen(t, port)
	c, err := dial(client.path(), "tcp", netip.AddrPortFrom(server.v4, uint16(port)), 0)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.Write([]byte("before"))
	must(t, err)
	return func(t testing.TB) {
		_, _ = c.Write([]byte("after"))
		must(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second)))
		s, err := l.Accept()
		if err != nil {
			return // it died in the queue
		}
		defer s.Close()
		must(t, s.SetDeadline(time.Now().Add(time.Second)))
		buf := make([]byte, 64)
		n := 0
		for err == nil && n < len(buf) {
			var k int
			k, err = s.Read(buf[n:])
			n += k
		}
		if n > len("before") {
			t.Errorf("a connection that waited to be accepted brought %q", buf[:n])
		}
	}
}

// childNamespace makes a namespace behind a workload's own, which a process with CAP_NET_ADMIN there
// may: its packets leave with the workload's address.
func childNamespace(t *testing.T, p *plot) string {
	t.Helper()
	name := p.netns + "-child"
	must(t, makeNetns(name))
	t.Cleanup(func() { must(t, dropNetns(name)) })
	script := `set -e
ip link add child type veth peer name eth0 netns ` + name + `
ip addr add 192.168.7.1/24 dev child; ip link set child up
ip -n ` + name + ` addr add 192.168.7.2/24 dev eth0; ip -n ` + name + ` link set eth0 up; ip -n ` + name + ` link set lo up
ip -n ` + name + ` route add default via 192.168.7.1
echo 1 > /proc/sys/net/ipv4/ip_forward
nft 'table ip behind { chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }
}'`
	must(t, firewall.Enter(p.path(), func() error {
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	return filepath.Join("/run/netns", name)
}
