package kube

import (
	"fmt"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	inv, err := ParseManifests("in.yaml", []byte(`
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: Hostname, address: n1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: n1, hostNetwork: true}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {nodeName: n2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c}, status: {podIP: 10.244.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d}, status: {podIP: 10.244.0.3, phase: Succeeded}}
---
{apiVersion: v1, kind: Pod, metadata: {name: e}, spec: {nodeName: n3, hostNetwork: true}, status: {podIP: 10.200.0.9}}
---
{apiVersion: v1, kind: Pod, metadata: {name: f}, spec: {nodeName: n2, hostNetwork: true}}
---
{apiVersion: v1, kind: Pod, metadata: {name: g}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := inv.Complete(); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, w := range inv.Workloads {
		fmt.Fprintf(&got, "%s on %s %v\n", w.Name, w.Node, w.Addrs)
	}
	for _, n := range []string{"n1", "n2", "n3", "node1"} {
		fmt.Fprintf(&got, "%s %v\n", n, inv.Nodes[n].Addrs)
	}
	want := `a on n1 [172.18.0.2]
b on n2 [10.244.2.2 fd00:244::2]
c on node1 [10.244.0.3]
d on node1 []
e on n3 [10.200.0.9]
f on n2 [10.200.1.2 fd00:200::2]
g on node1 [10.244.4.2 fd00:244:0:1::2]
n1 [172.18.0.2]
n2 [10.200.1.2 fd00:200::2]
n3 [10.200.0.9]
node1 [10.200.1.4 fd00:200::4]
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
}

func TestCompleteRefusesOneAddressTwice(t *testing.T) {
	inv, err := ParseManifests("in.yaml", []byte(`
{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b}, status: {podIP: 10.0.0.1}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := "pod default/b: address 10.0.0.1: pod default/a has it too; a pod that has ended must say so in status.phase"
	if err := inv.Complete(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
