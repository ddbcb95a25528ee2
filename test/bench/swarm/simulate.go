package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// plan says what to simulate.
type plan struct {
	Nodes   int     // of the cluster
	Loss    int     // of packets, per cent
	Changes int     // how many are looked at
	Rate    float64 // changes a second, of the whole cluster
	Seed    uint64
}

// result is what came out. Times are from a node's write to others holding it.
type result struct {
	plan
	Node50, Node99 time.Duration // over all nodes and changes
	Last50, Last99 time.Duration // until the last node has it, over all changes
	Bytes, Packets float64       // sent by a node in a second
	PerChange      float64       // bytes sent by a node for a change, without what is sent when nothing changes
	CPU            time.Duration // of a node for a change: this process's, divided
}

// endpoint is about what a workload is told with: names, labels, addresses.
var endpoint = []byte("shop\x00checkout-6f8d9c5b7-x2x9q\x00app.kubernetes.io/name=checkout\x00app.kubernetes.io/part-of=shop\x00pod-template-hash=6f8d9c5b7\x00http=8080\x00grpc=9090\x0010.244.")

func simulate(p plan) result {
	writers := min(p.Nodes, p.Changes)
	w := newWorld(p.Nodes, writers, float64(p.Loss)/100, p.Seed)
	gap := time.Duration(float64(time.Second) / p.Rate)
	w.agree()
	idle := w.rates(func() { w.until(w.now.Add(10 * time.Second)) })
	var arrived []time.Duration
	var last []time.Duration
	started := cpu()
	total := w.rates(func() {
		for i := range p.Changes {
			wrote, from := w.now, w.nodes[i%writers]
			w.write(from, i)
			pending := slices.DeleteFunc(slices.Clone(w.nodes), func(x *node) bool { return x == from })
			w.watch(from, from.state.Version(from.name, gossip.Endpoints), pending, func(x *node) {
				arrived = append(arrived, w.now.Sub(wrote))
			}, func() { last = append(last, w.now.Sub(wrote)) })
			w.until(w.now.Add(gap))
		}
		w.settle(&last, p.Changes)
	})
	r := result{plan: p, Bytes: total.bytes / total.seconds / float64(p.Nodes), Packets: total.packets / total.seconds / float64(p.Nodes)}
	r.PerChange = (total.bytes - idle.bytes/idle.seconds*total.seconds) / float64(p.Nodes) / float64(p.Changes)
	r.CPU = ((cpu() - started) / time.Duration(p.Nodes*p.Changes)).Round(100 * time.Nanosecond)
	r.Node50, r.Node99 = quantile(arrived, 0.5), quantile(arrived, 0.99)
	r.Last50, r.Last99 = quantile(last, 0.5), quantile(last, 0.99)
	return r
}

// write changes one workload of a node.
func (w *world) write(x *node, i int) {
	value := append(slices.Clone(endpoint), fmt.Sprint(i)...)
	if _, err := x.state.Write(gossip.Endpoints, gossip.Entry{Key: fmt.Sprintf("%064x", i), Value: value}); err != nil {
		panic(err)
	}
}

// watch looks every few milliseconds who has got a version of a node's book.
func (w *world) watch(of *node, version gossip.Version, pending []*node, at func(*node), all func()) {
	const look = 5 * time.Millisecond
	pending = slices.DeleteFunc(pending, func(x *node) bool {
		if x.state.Version(of.name, gossip.Endpoints).Before(version) {
			return false
		}
		at(x)
		return true
	})
	if len(pending) == 0 {
		all()
		return
	}
	w.after(look, func() { w.watch(of, version, pending, at, all) })
}

// settle waits until all changes are everywhere.
func (w *world) settle(last *[]time.Duration, changes int) {
	for end := w.now.Add(10 * time.Minute); len(*last) < changes; {
		if w.now.After(end) {
			panic("changes did not reach every node in 10 minutes")
		}
		w.until(w.now.Add(100 * time.Millisecond))
	}
}

// agree waits until all nodes hold the same.
func (w *world) agree() {
	for end := w.now.Add(10 * time.Minute); ; w.until(w.now.Add(time.Second)) {
		first := w.nodes[0].state.Summary()
		if !slices.ContainsFunc(w.nodes, func(x *node) bool { return !bytes.Equal(x.state.Summary(), first) }) {
			return
		}
		if w.now.After(end) {
			panic("no agreement in 10 minutes")
		}
	}
}

// rates measures what is sent while something happens.
type rates struct{ bytes, packets, seconds float64 }

func (w *world) rates(what func()) rates {
	bytes, packets, start := w.bytes, w.packets, w.now
	what()
	return rates{float64(w.bytes - bytes), float64(w.packets - packets), w.now.Sub(start).Seconds()}
}

func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func quantile(list []time.Duration, q float64) time.Duration {
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))].Round(time.Millisecond)
}
