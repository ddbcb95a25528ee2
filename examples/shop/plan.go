package shop

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// Addresses of the shop. Pods and Services count up from these in the graph's order, with the same
// last number in both families.
var (
	podBase     = [2]netip.Addr{netip.MustParseAddr("10.88.0.10"), netip.MustParseAddr("fd00:88::10")}
	serviceBase = [2]netip.Addr{netip.MustParseAddr("10.96.0.20"), netip.MustParseAddr("fd00:96::20")}

	// DNS is where every cluster has kube-dns.
	DNS = [2]netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")}

	// LoadBalancer is the address by which the world reaches the shop (TEST-NET-1, RFC 5737).
	LoadBalancer = netip.MustParseAddr("192.0.2.80")

	// Shopper is a client in the outside world (TEST-NET-3, RFC 5737).
	Shopper = netip.MustParseAddr("203.0.113.9")
)

// Pod is one replica of a service.
type Pod struct {
	Service *Service
	Name    string
	Addrs   [2]netip.Addr // IPv4, IPv6
}

// Object is one Kubernetes Service object.
type Object struct {
	Service  *Service
	Name     string
	Type     string // ClusterIP or LoadBalancer
	Addrs    [2]netip.Addr
	External netip.Addr // of a LoadBalancer
	Ports    []VIP
}

// Pods gives every replica with name and addresses.
func (g *Graph) Pods() []Pod {
	var pods []Pod
	addrs := podBase
	for i := range g.Services {
		s := &g.Services[i]
		for r := range s.Replicas {
			addrs = [2]netip.Addr{addrs[0].Next(), addrs[1].Next()}
			pods = append(pods, Pod{Service: s, Name: podName(s, r), Addrs: addrs})
		}
	}
	return pods
}

// PodOf gives the first replica of a service.
func (g *Graph) PodOf(service string) (Pod, error) {
	for _, p := range g.Pods() {
		if p.Service.Name == service {
			return p, nil
		}
	}
	return Pod{}, fmt.Errorf("service %s: no pod in the graph", service)
}

// Objects gives the Service objects, in the graph's order.
func (g *Graph) Objects() []Object {
	var objects []Object
	addrs := serviceBase
	at := map[string]int{}
	for i := range g.Services {
		s := &g.Services[i]
		for _, v := range s.VIPs {
			key := s.Namespace + "/" + v.Name
			n, ok := at[key]
			if !ok {
				n = len(objects)
				at[key] = n
				addrs = [2]netip.Addr{addrs[0].Next(), addrs[1].Next()}
				o := Object{Service: s, Name: v.Name, Type: "ClusterIP", Addrs: addrs}
				if v.Name == "kube-dns" {
					o.Addrs = DNS
				}
				if v.Type == "LoadBalancer" {
					o.Type, o.External = v.Type, LoadBalancer
				}
				objects = append(objects, o)
			}
			objects[n].Ports = append(objects[n].Ports, v)
		}
	}
	return objects
}

// letters are those of Kubernetes' random names: no vowels, nothing that looks like another.
const letters = "bcdfghjklmnpqrstvwxz2456789"

// podName names a replica as its controller would, but the same every time.
func podName(s *Service, replica int) string {
	if s.Kind == "StatefulSet" {
		return fmt.Sprintf("%s-%d", s.Name, replica)
	}
	return fmt.Sprintf("%s-%s-%s", s.Name, templateHash(s), scramble(fmt.Sprintf("%s/%d", s.Name, replica), 5))
}

// templateHash is what a Deployment's pods carry as label pod-template-hash.
func templateHash(s *Service) string { return scramble(s.Namespace+"/"+s.Name, 9) }

func scramble(seed string, n int) string {
	sum := sha256.Sum256([]byte(seed))
	out := make([]byte, n)
	for i := range out {
		out[i] = letters[int(sum[i])%len(letters)]
	}
	return string(out)
}
