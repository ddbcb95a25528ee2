package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Version is what the program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			version = s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Status is the daemon at a glance.
func (d *Daemon) Status(context.Context) (api.Status, error) {
	rb, view, m := d.rules.Load(), d.index.View(), d.modes.Load()
	services := map[identity.Service]bool{}
	for _, w := range view.Workloads {
		services[w.Service] = true
	}
	s := api.Status{
		Version: Version(), Node: d.cfg.Node, PID: os.Getpid(), Started: d.started, Kernel: kernel(),
		Workloads: len(d.local()), Services: len(services), Policies: rb.set.Len(),
		Edges: d.graph.Stats().Edges, Modes: map[string]int{}, Counters: d.countersNow(),
		Generation: d.generation.Load(), Pending: d.pendingRow(), Shadows: len(rb.full.Shadows()), Expiring: d.expiring(rb), Cluster: d.cluster.summary(),
	}
	for service := range services {
		s.Modes[m.of(service).String()]++
	}
	d.mu.Lock()
	for _, about := range slices.Sorted(maps.Keys(d.warnings)) {
		s.Warnings = append(s.Warnings, d.warnings[about])
	}
	for _, about := range slices.Sorted(maps.Keys(d.complaints)) {
		s.PolicyErrors = append(s.PolicyErrors, d.complaints[about]...)
	}
	d.mu.Unlock()
	s.Warnings = append(s.Warnings, d.losses(s.Counters)...)
	return s, nil
}

// countersNow adds what open readers count to what closed ones did.
func (d *Daemon) countersNow() api.Counters {
	out := api.Counters{
		Records: d.counters.records.Load(), Lost: d.counters.lost.Load(), Malformed: d.counters.malformed.Load(),
		Forged: d.counters.forged.Load(), Overflow: d.counters.overflow.Load(),
		Denied: d.counters.denied.Load(), WouldDeny: d.counters.wouldDeny.Load(),
		Alerts: d.alerts.Stats().Sent, Transactions: d.counters.transactions.Load(),
	}
	add := func(r *firewall.Reader) {
		if r == nil {
			return
		}
		s := r.Stats()
		out.Records += s.Records
		out.Lost += s.Lost + s.Doubtful
		out.Malformed += s.Malformed
		out.Forged += s.Forged
	}
	for _, w := range d.local() {
		w.mu.Lock()
		add(w.reader)
		w.mu.Unlock()
	}
	d.mu.Lock()
	add(d.guards)
	d.mu.Unlock()
	return out
}

// losses says what was seen and could not be kept.
func (d *Daemon) losses(c api.Counters) []string {
	var out []string
	say := func(n uint64, format string) {
		if n > 0 {
			out = append(out, fmt.Sprintf(format, n))
		}
	}
	g, a := d.graph.Stats(), d.alerts.Stats()
	if c.Lost > 0 {
		out = append(out, fmt.Sprintf("%d flow log messages were lost: the kernel's buffer was full%s", c.Lost, d.whoLost()))
	}
	say(c.Forged, "%d flow log messages were forged and not believed")
	say(c.Overflow, "%d births found a workload's set of seen peers full")
	say(g.Refused, "%d records found the service graph full")
	say(d.baseline.Refused(), "%d records found the baseline full")
	say(d.index.Refused(), "%d workloads, addresses or services were left out: a bound was reached")
	say(a.Dropped, "%d cases for the alerts were dropped: the queue was full")
	say(a.Unsent, "%d alerts could not be written to the alert log")
	return out
}

// Workloads lists what the daemon knows: those of this node with what is in force in them.
func (d *Daemon) Workloads(context.Context) ([]api.Workload, error) {
	rb, view, m := d.rules.Load(), d.index.View(), d.modes.Load()
	local := map[string]*workload{}
	for _, w := range d.local() {
		local[w.id] = w
	}
	out := make([]api.Workload, 0, len(view.Workloads))
	for _, w := range view.Workloads {
		row := api.Workload{
			ID: w.ID, Namespace: w.Namespace, Name: w.Name, Service: w.Service.String(), Node: w.Node, Local: w.Local,
			Mode: m.of(w.Service).String(), Labels: w.Labels, Since: w.Since, Addrs: []string{}, Isolated: []string{},
			NamespaceLabels: w.NamespaceLabels, HostNetwork: w.HostNetwork,
		}
		for _, p := range w.Ports {
			row.Ports = append(row.Ports, strings.TrimPrefix(fmt.Sprintf("%s=%s/%d", p.Name, p.Protocol, p.Port), "="))
		}
		for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
			if len(rb.set.Selecting(w, dir)) > 0 {
				row.Isolated = append(row.Isolated, dir.String())
			}
		}
		for _, a := range w.Addrs {
			row.Addrs = append(row.Addrs, a.String())
		}
		if mine := local[w.ID]; mine != nil {
			mine.describe(&row)
		}
		out = append(out, row)
	}
	slices.SortStableFunc(out, func(a, b api.Workload) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	})
	return out, nil
}

// describe adds what is in force.
func (w *workload) describe(row *api.Workload) {
	r, held := w.stored(), w.inForce()
	row.NetNS, row.StartSeen, row.Applied = r.NetNS, r.StartSeen, held.applied
	row.Start = w.began().row()
	row.Guarded = len(r.Interfaces) > 0
	for _, ifc := range r.Interfaces {
		row.Guarded = row.Guarded && ifc.HostIndex != 0
	}
	sides := held.spec.Sides
	row.Entries = len(sides.Ingress.Entries) + len(sides.Egress.Entries)
	row.Denied = len(sides.Ingress.Denied) + len(sides.Egress.Denied)
	if held.err != nil {
		row.Error = held.err.Error()
	} else if !held.valid {
		row.Error = "not in force yet"
	}
}
