package netpol

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dice makes random clusters, policies and probes from small vocabularies, so that things often meet.
type dice struct{ *rand.Rand }

func newDice(t *testing.T) dice {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BULKHEAD_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("BULKHEAD_SEED: %v", err)
		}
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	return dice{rand.New(rand.NewPCG(seed, 11))}
}

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

var (
	spaces    = []string{"a", "b", "c"}
	values    = []string{"x", "y", "z"}
	keys      = []string{"app", "tier", "role"}
	portNames = []string{"http", "dns", "admin"}
	numbers   = []uint16{1, 53, 80, 81, 443, 8080, 8081, 65535}
)

func (d dice) labels() map[string]string {
	l := map[string]string{}
	for _, k := range keys {
		if d.chance(60) {
			l[k] = pick(d, values...)
		}
	}
	return l
}

// world is a random cluster: what it says of itself, and what can be asked about it.
type world struct {
	inventory string // as JSON
	spaces    []*corev1.Namespace
	pods      []*corev1.Pod
	nodes     []*corev1.Node
	services  []*corev1.Service
	outside   []netip.Addr // some of the world, and addresses near pods that nobody has
}

// world makes 2 or 3 nodes, 8 to 13 pods and some Services. Pods that a Service selects carry a label
// of their own for it, which no policy asks for.
func (d dice) world() *world {
	w := &world{}
	for _, n := range spaces {
		w.spaces = append(w.spaces, &corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: n, Labels: d.labels()},
		})
	}
	for i := range 2 + d.IntN(2) {
		n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i+1), Labels: d.labels()}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.7.0.%d", i+1)}, {Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00:7::%d", i+1)}}
		w.nodes = append(w.nodes, n)
	}
	for i := range 8 + d.IntN(6) {
		w.pods = append(w.pods, d.pod(i, len(w.nodes)))
	}
	for i := range 1 + d.IntN(4) {
		w.services = append(w.services, d.service(i))
	}
	if d.chance(60) {
		s := d.service(9)
		s.Namespace, s.Name = "kube-system", "kube-dns"
		s.Spec.Ports = []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)}}
		w.services = append(w.services, s)
	}
	w.write()
	for _, a := range []string{
		"203.0.113.1", "203.0.113.2", "198.51.100.1", "169.254.169.254", "10.8.1.77", "10.8.2.66", "10.96.0.200",
		"2001:db8::1", "2001:db8:1::2", "fd00:8:1::77", "fd00:aaaa::1",
	} {
		w.outside = append(w.outside, netip.MustParseAddr(a))
	}
	return w
}

// write brings the inventory up to date.
func (w *world) write() {
	var items []any
	for _, n := range w.spaces {
		items = append(items, n)
	}
	for _, n := range w.nodes {
		items = append(items, n)
	}
	for _, p := range w.pods {
		items = append(items, p)
	}
	for _, s := range w.services {
		items = append(items, s)
	}
	text, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, "", " ")
	if err != nil {
		panic(err) // made of plain structs
	}
	w.inventory = string(text)
}

// relabel changes who is who: labels of some pods, namespaces and nodes, and ports of pods that no
// Service leads to. Addresses, nodes and what Services select stay.
func (d dice) relabel(w *world) {
	for _, p := range w.pods {
		if !d.chance(40) {
			continue
		}
		old := p.Labels
		p.Labels = d.labels()
		for k, v := range old {
			if strings.HasPrefix(k, "service") {
				p.Labels[k] = v
			}
		}
		if len(p.Labels) == 0 || !strings.Contains(fmt.Sprint(p.Labels), "service") {
			p.Spec.Containers = d.containers()
		}
	}
	if d.chance(50) {
		pick(d, w.spaces...).Labels = d.labels()
	}
	if d.chance(50) {
		pick(d, w.nodes...).Labels = d.labels()
	}
	w.write()
}

func (d dice) pod(i, nodes int) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	node := 1 + d.IntN(nodes)
	p.Namespace, p.Name, p.Labels = pick(d, spaces...), fmt.Sprintf("p%d", i), d.labels()
	p.Spec.NodeName = fmt.Sprintf("n%d", node)
	four, six := fmt.Sprintf("10.8.%d.%d", 1+d.IntN(2), 10+i), fmt.Sprintf("fd00:8:%d::%d", 1+d.IntN(2), 10+i)
	switch n := d.IntN(10); {
	case n == 0:
		p.Status.PodIPs = []corev1.PodIP{{IP: four}}
	case n == 1:
		p.Status.PodIPs = []corev1.PodIP{{IP: six}}
	case n == 2 && i > 3:
		p.Spec.HostNetwork = true
		p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.7.0.%d", node)}, {IP: fmt.Sprintf("fd00:7::%d", node)}}
	default:
		p.Status.PodIPs = []corev1.PodIP{{IP: four}, {IP: six}}
	}
	p.Spec.Containers = d.containers()
	for i := range 3 {
		if d.chance(30) {
			p.Labels[fmt.Sprintf("service%d", i)] = "yes"
		}
	}
	return p
}

func (d dice) containers() (out []corev1.Container) {
	for range 1 + d.IntN(2) {
		c := corev1.Container{Name: fmt.Sprintf("c%d", len(out))}
		for _, name := range portNames {
			if d.chance(40) {
				c.Ports = append(c.Ports, corev1.ContainerPort{
					Name: name, ContainerPort: int32(pick(d, numbers...)), Protocol: pick(d, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP),
				})
			}
		}
		out = append(out, c)
	}
	return out
}

func (d dice) service(i int) *corev1.Service {
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}}
	s.Namespace, s.Name = pick(d, spaces...), fmt.Sprintf("s%d", i)
	s.Spec.ClusterIPs = []string{fmt.Sprintf("10.96.0.%d", 10+i), fmt.Sprintf("fd00:96::%d", 10+i)}
	if d.chance(90) {
		s.Spec.Selector = map[string]string{fmt.Sprintf("service%d", d.IntN(3)): "yes"}
	}
	used := map[string]bool{}
	for range 1 + d.IntN(3) {
		p := corev1.ServicePort{Protocol: pick(d, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP), Port: int32(pick(d, numbers...)), TargetPort: intstr.FromInt32(int32(pick(d, numbers...)))}
		p.Name = fmt.Sprintf("port%d", len(s.Spec.Ports))
		if d.chance(40) {
			p.TargetPort = intstr.FromString(pick(d, portNames...))
		}
		if key := fmt.Sprint(p.Protocol, p.Port); !used[key] {
			used[key] = true
			s.Spec.Ports = append(s.Spec.Ports, p)
		}
	}
	return s
}

// end is somebody who can be asked about: an address, or a name.
func (d dice) end(w *world, server bool) string {
	switch n := d.IntN(100); {
	case n < 62:
		return pick(d, pick(d, w.pods...).Status.PodIPs...).IP
	case n < 70:
		p := pick(d, w.pods...)
		return p.Namespace + "/" + p.Name
	case n < 75:
		return pick(d, w.nodes...).Name
	case n < 80:
		return pick(d, pick(d, w.nodes...).Status.Addresses...).Address
	case server && n < 92:
		return pick(d, pick(d, w.services...).Spec.ClusterIPs...)
	}
	return pick(d, w.outside...).String()
}

// probes makes questions. Addresses of two families are no question.
func (d dice) probes(w *world, n int) []probe {
	out := make([]probe, 0, n)
	for len(out) < n {
		p := probe{Client: d.end(w, false), Server: d.end(w, true), Protocol: pick(d, "TCP", "TCP", "TCP", "TCP", "UDP", "UDP", "UDP", "SCTP", "ICMP")}
		from, errFrom := netip.ParseAddr(p.Client)
		to, errTo := netip.ParseAddr(p.Server)
		if errFrom == nil && errTo == nil && from.Is4() != to.Is4() {
			continue
		}
		if p.Protocol != "ICMP" {
			p.Port.Number = pick(d, numbers...)
			if d.chance(20) {
				p.Port.Number = uint16(1 + d.IntN(65535))
			}
		}
		d.aim(w, &p)
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// aim makes probes to Services' addresses, and many to pods, hit ports that somebody declared.
func (d dice) aim(w *world, p *probe) {
	for _, s := range w.services {
		if slices.Contains(s.Spec.ClusterIPs, p.Server) {
			port := pick(d, s.Spec.Ports...)
			p.Protocol, p.Port.Number = string(port.Protocol), uint16(port.Port)
			return
		}
	}
	for _, pod := range w.pods {
		is := func(ip corev1.PodIP) bool { return ip.IP == p.Server }
		if !slices.ContainsFunc(pod.Status.PodIPs, is) || !d.chance(50) {
			continue
		}
		if c := pick(d, pod.Spec.Containers...); len(c.Ports) > 0 {
			port := pick(d, c.Ports...)
			p.Protocol, p.Port.Number = string(port.Protocol), uint16(port.ContainerPort)
		}
		return
	}
}
