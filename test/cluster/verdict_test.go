package cluster

import (
	"context"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// allowed waits until a pod can connect: a change may be on its way.
func allowed(ctx context.Context, town *Town, from string, to netip.AddrPort) error {
	return Until(ctx, from+" may connect to "+to.String(), func(context.Context) (string, error) {
		return "", town.Call(from, to, call)
	})
}

// denied waits until a pod cannot connect, by the lab's own judgement: silence counts only where a
// packet that nothing forbids came through meanwhile.
func denied(ctx context.Context, town *Town, from string, to netip.AddrPort) error {
	return Until(ctx, from+" may not connect to "+to.String(), func(ctx context.Context) (string, error) {
		if town.Call(from, to, call/5) == nil {
			return "connected", nil
		}
		got, err := town.Probe(ctx, []lab.Probe{{Client: from, Server: to.Addr().String(), Protocol: "TCP", Port: lab.Port{Number: to.Port()}}})
		if err != nil || got[0].Error != "" {
			return got[0].Error, err
		}
		if got[0].Verdict != "deny" {
			return got[0].Verdict, nil
		}
		return "", nil
	})
}
