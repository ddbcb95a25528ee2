package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

var alertKinds = []string{string(alert.NewEdge), string(alert.DeniedBy), string(alert.PortScan), string(alert.Spoof),
	string(alert.RawSocket), string(alert.Tamper), string(alert.Shadow), string(alert.Expired),
	string(alert.Bound), string(alert.Cluster)}

func (a *app) alerts() *cobra.Command {
	var kind string
	var limit int
	var follow bool
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "What was odd: who, what, why",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind != "" && !slices.Contains(alertKinds, kind) {
				return usage(cmd, "kind %q: want %s", kind, strings.Join(alertKinds, ", "))
			}
			if follow {
				return a.followAlerts(cmd, kind, limit)
			}
			raw, err := a.client().Alerts(cmd.Context(), kind, limit)
			if err != nil {
				return err
			}
			all := []alert.Alert{}
			for _, r := range raw {
				al, err := readAlert(r)
				if err != nil {
					return err
				}
				all = append(all, al)
			}
			return a.print(all, func() error { return a.printAlerts(all) })
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	f.StringVar(&kind, "kind", "", "only this kind: "+strings.Join(alertKinds, ", "))
	f.IntVar(&limit, "limit", 0, "at most this many, the newest (0: all that the daemon keeps)")
	complete(cmd, "kind", alertKinds...)
	return cmd
}

func (a *app) followAlerts(cmd *cobra.Command, kind string, limit int) error {
	return a.client().FollowAlerts(cmd.Context(), kind, limit, func(raw json.RawMessage) error {
		al, err := readAlert(raw)
		if err != nil {
			return err
		}
		return a.printNext(al, func() string {
			who := nameParty(al.Client)
			if server := nameParty(al.Server); server != "" {
				who += " → " + server + " " + alertPort(al)
			}
			return fmt.Sprintf("%s  %s  %s  %s: %s x%d: %s", clock(al.Time), a.word(string(al.Severity)), al.Kind, who,
				a.word(al.Verdict.String()), al.Count, al.Reason)
		})
	})
}

// readAlert decodes one alert. The API hands them over as they are, so that the plugin, which links
// the API, need not know what an alert is.
func readAlert(raw json.RawMessage) (alert.Alert, error) {
	var al alert.Alert
	if err := json.Unmarshal(raw, &al); err != nil {
		return al, fmt.Errorf("read an alert of the daemon: %w", err)
	}
	return al, nil
}

func (a *app) printAlerts(all []alert.Alert) error {
	var rows [][]string
	for _, al := range all {
		rows = append(rows, []string{clock(al.Last), string(al.Severity), string(al.Kind), nameParty(al.Client), nameParty(al.Server),
			alertPort(al), al.Verdict.String(), strconv.FormatUint(al.Count, 10), al.Reason})
	}
	return a.table("LAST SEVERITY KIND CLIENT SERVER PORT VERDICT COUNT WHY", rows)
}

// nameParty names an end by its workload where there is one: that is what to look into.
func nameParty(p alert.Party) string {
	switch {
	case p.Workload != "":
		return p.Workload
	case p.Service != "" && p.Addr.IsValid() && p.Service != p.Addr.String():
		return p.Service + " " + p.Addr.String()
	case p.Service != "":
		return p.Service
	case p.Addr.IsValid():
		return p.Addr.String()
	}
	return ""
}

func alertPort(al alert.Alert) string {
	switch {
	case al.Kind == alert.PortScan && al.Ports > 0:
		return plural(al.Ports, "port", "ports")
	case al.Protocol == identity.AnyProtocol:
		return ""
	}
	return portOf(al.Protocol.String(), al.Port)
}
