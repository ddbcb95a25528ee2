package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// allServices is what a request says instead of one service.
const allServices = "*"

// maxModes bounds the services that have a mode of their own.
const maxModes = 100_000

// modes says how far each service has come. It never changes: a change makes another.
type modes struct {
	own      map[identity.Service]policy.Mode
	standard policy.Mode // of every service that is not in own
	set      bool        // standard was set by a call; else it is the configuration's
}

// ownOf is the mode that a service was given, or nil.
func (m *modes) ownOf(s identity.Service) *policy.Mode {
	if mode, set := m.own[s]; set {
		return &mode
	}
	return nil
}

// standardOf is the standard that a call has set, or nil.
func (m *modes) standardOf() *policy.Mode {
	if !m.set {
		return nil
	}
	standard := m.standard
	return &standard
}

func (m *modes) of(s identity.Service) policy.Mode {
	if mode, set := m.own[s]; set {
		return mode
	}
	return m.standard
}

// with is m with the services in a mode; nil services means all, and the standard.
func (m *modes) with(services []identity.Service, mode policy.Mode) *modes {
	if services == nil {
		return &modes{standard: mode, set: true}
	}
	next := &modes{own: map[identity.Service]policy.Mode{}, standard: m.standard, set: m.set}
	maps.Copy(next.own, m.own)
	for _, s := range services {
		next.own[s] = mode
	}
	return next
}

// modeOf is the mode of a peer's service.
func (m *modes) modeOf(p identity.Peer) policy.Mode { return m.modeOfEnd(flow.EndOf(p)) }

// modeOfEnd is the mode of an end of an edge. What is no workload has none and lets everything pass.
func (m *modes) modeOfEnd(e flow.End) policy.Mode {
	if e.Kind != identity.Pod {
		return policy.Learn
	}
	return m.of(e.Service)
}

// Modes lists the standard, and every service that runs or has a mode of its own.
func (d *Daemon) Modes(context.Context) ([]api.ServiceMode, error) {
	m, view, set := d.modes.Load(), d.index.View(), d.rules.Load().set
	count := map[identity.Service]int{}
	isolated := map[identity.Service]map[string]bool{}
	about := map[identity.Service]bool{} // some policy has a say
	for _, w := range view.Workloads {
		count[w.Service]++
		for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
			all := set.About(w, dir)
			about[w.Service] = about[w.Service] || len(all) > 0
			if slices.ContainsFunc(all, func(p *policy.Policy) bool { return p.Isolates(dir) }) {
				if isolated[w.Service] == nil {
					isolated[w.Service] = map[string]bool{}
				}
				isolated[w.Service][dir.String()] = true
			}
		}
	}
	for s := range m.own {
		count[s] += 0
	}
	out := []api.ServiceMode{{Service: allServices, Mode: m.standard.String()}}
	for _, s := range sortedServices(count) {
		row := api.ServiceMode{Service: s.String(), Mode: m.of(s).String(), Workloads: count[s], Isolated: slices.Sorted(maps.Keys(isolated[s]))}
		if m.of(s) != policy.Learn && !about[s] {
			row.Warnings = append(row.Warnings, "no policy selects it: everything passes")
		}
		out = append(out, row)
	}
	return out, nil
}

func sortedServices[V any](m map[identity.Service]V) []identity.Service {
	return slices.SortedFunc(maps.Keys(m), func(a, b identity.Service) int {
		return cmpService(a, b)
	})
}

func cmpService(a, b identity.Service) int {
	switch {
	case a.String() < b.String():
		return -1
	case a.String() > b.String():
		return 1
	}
	return 0
}

// SetMode sets a service's mode, or with "*" the standard and every service's. It returns when the
// workloads of this node hold it.
func (d *Daemon) SetMode(ctx context.Context, want api.ServiceMode) (api.ServiceMode, error) {
	if _, err := policy.ParseMode(want.Mode); err != nil {
		return api.ServiceMode{}, api.Errorf(api.BadRequest, "%v", err)
	}
	d.change.Lock()
	defer d.change.Unlock()
	p, err := d.planRequest(api.ApplyRequest{Mode: want.Mode, Services: []string{want.Service}})
	if err != nil {
		return api.ServiceMode{}, err
	}
	breaks := d.compare(p).Breaks
	held, err := d.enact(ctx, p)
	if err != nil {
		return api.ServiceMode{}, err
	}
	is := api.ServiceMode{Service: want.Service, Mode: want.Mode, Workloads: held}
	if want.Service != allServices {
		rows, err := d.Modes(ctx)
		if err != nil {
			return is, err
		}
		for _, row := range rows {
			if row.Service == want.Service {
				is = row
			}
		}
	}
	for _, b := range breaks {
		is.Warnings = append(is.Warnings, fmt.Sprintf("%s → %s %s/%d was seen and is denied now: %s", b.Client, b.Server, b.Protocol, b.Port, b.Reason))
	}
	return is, nil
}

// parseServices reads the services of a request; nil is all of them. A service that nobody runs may
// be named: it may come later.
func parseServices(names []string) ([]identity.Service, error) {
	if slices.Contains(names, allServices) {
		return nil, nil
	}
	out := make([]identity.Service, 0, len(names))
	for _, name := range names {
		s, err := parseService(name)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// lockBaselines ends learning for the services that left mode learn, and opens it for those that
// returned.
func (d *Daemon) lockBaselines() {
	m := d.modes.Load()
	services := map[identity.Service]bool{}
	for _, w := range d.index.View().Workloads {
		services[w.Service] = true
	}
	for s := range m.own {
		services[s] = true
	}
	for s := range services {
		d.lockBaseline(m, s)
	}
}

func (d *Daemon) lockBaseline(m *modes, s identity.Service) {
	if m.of(s) == policy.Learn {
		d.baseline.Open(s)
	} else {
		d.baseline.Lock(s, d.now())
	}
}
