package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
)

// wantedKinds are the alerts that the attacks must raise.
var wantedKinds = []alert.Kind{alert.DeniedBy, alert.PortScan, alert.RawSocket, alert.Spoof, alert.Tamper}

// actAlerts waits for an alert of each kind that names the attacker, and prints them.
func actAlerts(ctx context.Context, s *stage, t *teller) error {
	attacker, err := s.graph.PodOf(attackerService)
	if err != nil {
		return err
	}
	var all []alert.Alert
	kinds := map[alert.Kind]bool{}
	for deadline := time.Now().Add(alertsTime); time.Now().Before(deadline) && len(kinds) < len(wantedKinds); {
		if all, err = s.alerts(ctx); err != nil {
			return err
		}
		for _, a := range all {
			if a.Client.Workload == podName(attacker) && slices.Contains(wantedKinds, a.Kind) {
				kinds[a.Kind] = true
			}
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	t.command("bulkhead alerts")
	innocent := 0
	for _, a := range all {
		if a.Client.Workload != podName(attacker) {
			innocent++
		}
		for _, line := range describe(a) {
			t.say("%s", line)
		}
	}
	var missing []string
	for _, k := range wantedKinds {
		if !kinds[k] {
			missing = append(missing, string(k))
		}
	}
	t.promise(len(missing) == 0, "alerts about the attacker", "%d of %d kinds; missing: %s", len(kinds), len(wantedKinds), orNone(missing))
	t.promise(innocent == 0, "alerts about anybody else", "%d", innocent)
	return nil
}

func (s *stage) alerts(ctx context.Context) ([]alert.Alert, error) {
	raw, err := s.client.Alerts(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	all := make([]alert.Alert, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &all[i]); err != nil {
			return nil, fmt.Errorf("alert %s: %w", r, err)
		}
	}
	return all, nil
}

// describe tells an alert in lines: who did what, how often and what became of it; why it is odd.
func describe(a alert.Alert) []string {
	who := a.Client.Service
	if a.Client.Addr.IsValid() {
		who += " (" + a.Client.Addr.String() + ")"
	}
	what := ""
	if a.Server.Service != "" || a.Server.Addr.IsValid() {
		what = " → " + a.Server.Service
		if a.Server.Addr.IsValid() {
			what += " (" + a.Server.Addr.String() + ")"
		}
	}
	if a.Kind == alert.PortScan {
		what += fmt.Sprintf(", %d ports", a.Ports)
	} else if a.Protocol != 0 {
		what += fmt.Sprintf(" %s/%d", a.Protocol, a.Port)
	}
	lines := []string{fmt.Sprintf("%-8s %-10s %s%s  %s x%d", a.Severity, a.Kind, who, what, a.Verdict, a.Count), "         why: " + a.Reason}
	if a.Breaks != "" {
		lines[1] += " (breaks " + a.Breaks + ")"
	}
	return lines
}

func orNone(items []string) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Join(items, ", ")
}
