package firewall

import (
	"sync"
	"weak"
)

// guardShape is all that the chains of one interface's guard depend on.
type guardShape struct {
	shape
	hears     bool
	name      string
	host      string
	hostIndex int
	mac       string
	addrs     string
}

// guardChains are the chains of one interface's guard. A guard is made anew with every change of who may
// talk to whom, and hardly ever differs in these, which cost most of making it.
type guardChains struct{ list []*Chain }

// guards remembers the chains of guards for as long as a ruleset holds them.
var guards struct {
	sync.Mutex
	of      map[guardShape]weak.Pointer[guardChains]
	sweepAt int
}

func (g guard) shape() guardShape {
	out := guardShape{shape: g.spec.shape(), hears: g.hears(), name: g.ifc.Name, host: g.ifc.Host,
		hostIndex: g.ifc.HostIndex, mac: string(g.ifc.MAC)}
	for _, a := range g.ifc.Addrs {
		out.addrs += a.String() + " "
	}
	return out
}

// chains are all chains of the guard, which nobody writes to.
func (g guard) chains() *guardChains {
	s := g.shape()
	guards.Lock()
	defer guards.Unlock()
	if c := guards.of[s].Value(); c != nil {
		return c
	}
	c := &guardChains{g.buildChains()}
	if guards.of == nil {
		guards.of = map[guardShape]weak.Pointer[guardChains]{}
	}
	if len(guards.of) >= guards.sweepAt {
		for k, p := range guards.of {
			if p.Value() == nil {
				delete(guards.of, k)
			}
		}
		guards.sweepAt = 64 + 2*len(guards.of)
	}
	guards.of[s] = weak.Make(c)
	return c
}
