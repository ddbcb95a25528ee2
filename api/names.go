package api

import (
	"context"
	"time"
)

// PathNames lists what workloads learned from DNS answers.
const PathNames = "/v1/names"

// Name is a DNS name that a workload looked up, with one address.
type Name struct {
	Workload string    `json:"workload"` // namespace/name
	Name     string    `json:"name"`
	IP       string    `json:"ip"`
	Until    time.Time `json:"until"` // from then on only while a connection uses the address
	InUse    bool      `json:"inUse"` // a connection used it when it was last looked at
	Opens    []string  `json:"opens"` // what policy allows with the address because of the name: "TCP/443"
}

// Names lists names of local workloads, by workload, name and address.
func (c *Client) Names(ctx context.Context) ([]Name, error) {
	return get[[]Name](ctx, c, PathNames, nil)
}
