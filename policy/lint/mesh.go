package lint

import (
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// mesh tells of workloads in an ambient mesh whose tunnel the policy cuts.
func (l *linter) mesh(p *policy.Policy) {
	if l.view == nil || !p.Isolates(policy.Ingress) || len(p.Spec.Ingress) == 0 {
		return
	}
	found, _ := l.matching(subjectOf(p))
	tunnel := ports{protocol: identity.TCP, low: meshPort, high: meshPort}
	for _, w := range found {
		if !inMesh(w) || slices.ContainsFunc(l.rules, func(r *rule) bool {
			return r.dir == policy.Ingress && r.Action == policy.ActionAllow && tunnel.within(r.ports) && r.subject.match(w)
		}) {
			continue
		}
		l.add(p, "spec.ingress", checkMesh, "%s/%s is in an ambient mesh, whose connections arrive on TCP %d, and no rule allows that port", w.Namespace, w.Name, meshPort).
			fix("add an ingress rule for {protocol: TCP, port: %d} from the mesh's members", meshPort)
		return
	}
}

// meshPort is HBONE's, Istio's tunnel between ambient members.
const meshPort = 15008

func inMesh(w *identity.Workload) bool {
	const label = "istio.io/dataplane-mode"
	if own := w.Labels[label]; own != "" {
		return own == "ambient"
	}
	return spaceLabels(w)[label] == "ambient"
}
