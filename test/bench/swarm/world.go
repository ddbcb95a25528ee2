package main

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// What memberlist and the wire add, in bytes, and how slow the wire is.
const (
	udpHead    = 28       // IPv4 and UDP
	tcpHead    = 40 + 120 // IPv4 and TCP of a segment, and a handshake and its end for each message
	sealed     = 45       // encryption: version, nonce, tag; the cluster's label
	packetRoom = 1400 - 2 - sealed
	latency    = 500 * time.Microsecond
	jitter     = 500 * time.Microsecond
)

// world is a cluster on a clock of its own.
type world struct {
	dice   *rand.Rand
	now    time.Time
	events events
	nodes  []*node
	loss   float64

	bytes, packets int64
}

type node struct {
	index int
	name  string
	key   ed25519.PrivateKey
	state *gossip.State
	queue *gossip.Queue
}

// event is something that happens at a time.
type event struct {
	at time.Time
	do func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

func (w *world) after(d time.Duration, do func()) { heap.Push(&w.events, event{w.now.Add(d), do}) }

// until lets everything happen up to a time.
func (w *world) until(end time.Time) {
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// newWorld makes n nodes. Only the first ones ever write; the others are alike down to their empty books,
// so that each node holds some dozen books and not n.
func newWorld(n, writers int, loss float64, seed uint64) *world {
	w := &world{dice: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_800_000_000, 0), loss: loss}
	for i := range n {
		var s [ed25519.SeedSize]byte
		who := min(i, writers)
		binary.BigEndian.PutUint64(s[:], uint64(who))
		x := &node{index: i, name: fmt.Sprintf("node-%05d", who), key: ed25519.NewKeyFromSeed(s[:])}
		x.queue = gossip.NewQueue(func() int { return n })
		x.state = gossip.NewState(gossip.StateConfig{Node: x.name, Key: x.key, Now: func() time.Time { return w.now },
			Broadcast: func(name string, full, brief []byte) {
				if brief != nil {
					brief = x.frame(brief)
				}
				x.queue.Add(name, x.frame(full), brief)
			}})
		w.nodes = append(w.nodes, x)
		w.after(w.random(gossip.Interval), func() { w.gossip(x) })
		w.after(w.random(gossip.Exchange*3/2), func() { w.exchange(x) })
	}
	for _, from := range w.nodes[:min(n, writers+1)] {
		for _, x := range w.nodes {
			if err := x.state.Pin(from.name, from.key.Public().(ed25519.PublicKey)); err != nil {
				panic(err)
			}
		}
	}
	return w
}

func (w *world) random(d time.Duration) time.Duration { return time.Duration(w.dice.Int64N(int64(d))) }

// frame is the message with its sender's name before it, as it travels.
func (x *node) frame(message []byte) []byte {
	return slices.Concat([]byte{byte(len(x.name))}, []byte(x.name), message)
}

// gossip sends what is queued to some random nodes, again and again, as memberlist does.
func (w *world) gossip(x *node) {
	w.after(gossip.Interval, func() { w.gossip(x) })
	for _, to := range w.others(x, gossip.Fanout) {
		messages := x.queue.Take(2, packetRoom)
		if len(messages) == 0 {
			return
		}
		size := udpHead + sealed + 2
		for _, m := range messages {
			size += 3 + len(m) // length in the compound message, type
		}
		w.packet(size, func(to *node) {
			for _, m := range messages {
				w.receive(x, to, m[1+len(x.name):])
			}
		}, to)
	}
}

// exchange compares with a random node now and then.
func (w *world) exchange(x *node) {
	w.after(gossip.Exchange/2+w.random(gossip.Exchange), func() { w.exchange(x) })
	m := x.state.Summary()
	w.packet(udpHead+sealed+1+len(x.name)+1+len(m), func(to *node) { w.receive(x, to, m) }, w.others(x, 1)[0])
}

// others chooses some, no two the same.
func (w *world) others(x *node, many int) []*node {
	var out []*node
	for many = min(many, len(w.nodes)-1); len(out) < many; {
		if y := w.nodes[w.dice.IntN(len(w.nodes))]; y != x && !slices.Contains(out, y) {
			out = append(out, y)
		}
	}
	return out
}

// packet travels, or is lost.
func (w *world) packet(size int, arrive func(*node), to *node) {
	w.bytes += int64(size)
	w.packets++
	if w.dice.Float64() < w.loss {
		return
	}
	w.after(latency+w.random(jitter), func() { arrive(to) })
}

// receive gives a message to a node and sends what it answers over TCP, where loss costs time only.
func (w *world) receive(from, to *node, message []byte) {
	replies, err := to.state.Receive(from.name, message)
	if err != nil {
		panic(err)
	}
	for _, r := range replies {
		w.bytes += int64(tcpHead + sealed + len(r))
		w.packets += 6
		wait := 2*latency + w.random(jitter)
		if w.dice.Float64() < 1-(1-w.loss)*(1-w.loss)*(1-w.loss) {
			wait += 200 * time.Millisecond // RFC 6298 has a second at first, Linux 200 ms at least
		}
		w.after(wait, func() { w.receive(to, from, r) })
	}
}
