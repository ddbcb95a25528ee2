package attack

import (
	"testing"

	"github.com/bulkhead-firewall/bulkhead/alert"
)

// TestThreat3: whoever has CAP_NET_RAW, the default of most runtimes, sends frames of its own. They
// are dropped before they reach the host's bridge or any other workload.
func TestThreat3(t *testing.T) {
	var tricks []trick
	for _, how := range []string{byPacket, byBypass, byXDP} {
		tricks = append(tricks, trick{name: "af_" + how, counter: "raw", alert: alert.RawSocket, run: func(a *attempt) error {
			return a.frames(how, a.udp(false, a.victim, 53, a.token), a.udp(true, a.victim, 53, a.token))
		}})
	}
	tricks = append(tricks, trick{name: "raw_ip", alert: alert.DeniedBy, run: func(a *attempt) error {
		return a.frames(byRaw, a.udp(false, a.victim, 53, a.token), a.udp(true, a.victim, 53, a.token))
	}})
	threat(t, 3, tricks)
}
