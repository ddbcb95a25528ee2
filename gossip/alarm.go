package gossip

import (
	"errors"
	"sync"
	"time"
)

// Alarm tells that a member, or somebody who holds the cluster's key, did what no honest one does. What
// it tried had no effect.
type Alarm struct {
	Node string // who sent it, by its own word
	Kind AlarmKind
	What string
	More int // how many like it since the last one that was told
}

// AlarmKind is what an Alarm is about.
type AlarmKind string

const (
	AlarmForged    AlarmKind = "forged"     // something in another node's name, not in its hand
	AlarmImpostor  AlarmKind = "impostor"   // a node under a known name shows another key
	AlarmNameClash AlarmKind = "name clash" // two living nodes go by one name
	AlarmRefused   AlarmKind = "refused"    // a write that is not allowed: not signed by whom it must be, or an old one again
	AlarmMalformed AlarmKind = "malformed"  // messages that no version of this program sends
	AlarmFull      AlarmKind = "full"       // more than this node has room for
)

// kindOf sorts the errors of a message; "": it happens among honest nodes.
func kindOf(err error) AlarmKind {
	switch {
	case errors.Is(err, errImpostor):
		return AlarmImpostor
	case errors.Is(err, ErrForged):
		return AlarmForged
	case errors.Is(err, ErrNotAllowed):
		return AlarmRefused
	case errors.Is(err, errFull):
		return AlarmFull
	case errors.Is(err, errMalformed):
		return AlarmMalformed
	}
	return ""
}

// How often the same is told.
const (
	alarmEvery = time.Minute
	maxAlarms  = 1024 // of nodes and kinds that are remembered
)

// alarms folds repeats: a liar must not flood whoever listens.
type alarms struct {
	mu   sync.Mutex
	told map[Alarm]*repeats // by Node and Kind
}

type repeats struct {
	at   time.Time
	more int
}

// due says whether it is time to tell of it, and how many there were since.
func (a *alarms) due(node string, kind AlarmKind, now time.Time) (more int, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := Alarm{Node: node, Kind: kind}
	r := a.told[key]
	if r == nil {
		if len(a.told) >= maxAlarms {
			for k, old := range a.told {
				if now.Sub(old.at) >= alarmEvery {
					delete(a.told, k)
				}
			}
		}
		if len(a.told) >= maxAlarms {
			key.Node = "" // too many names: they are one
			if r = a.told[key]; r == nil {
				r = &repeats{}
				a.told[key] = r
			}
		} else {
			r = &repeats{}
			a.told[key] = r
		}
	}
	if !r.at.IsZero() && now.Sub(r.at) < alarmEvery {
		r.more++
		return 0, false
	}
	more, r.more, r.at = r.more, 0, now
	return more, true
}

// refuse counts what was refused, and tells of it where it is hostile.
func (g *Cluster) refuse(from string, err error) {
	g.counts.Refused.Add(1)
	kind := kindOf(err)
	if kind == "" {
		g.log.Debug("refused a message of the cluster", "node", from, "err", err)
		return
	}
	g.alarm(from, kind, err.Error())
}

func (g *Cluster) alarm(node string, kind AlarmKind, what string) {
	more, due := g.alarms.due(node, kind, g.config.Now())
	if !due {
		return
	}
	g.log.Warn("a member of the cluster was refused", "node", node, "reason", kind, "err", what, "count", more+1)
	if g.config.Alarm != nil {
		g.config.Alarm(Alarm{Node: node, Kind: kind, What: what, More: more})
	}
}
