package flow

import (
	"strconv"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// PortName gives "TCP/443", "ICMP/8", or "protocol 47" where there are no ports.
func PortName(p identity.Protocol, port uint16) string {
	if p.HasPorts() || p.IsICMP() {
		return p.String() + "/" + strconv.Itoa(int(port))
	}
	return "protocol " + p.String()
}
