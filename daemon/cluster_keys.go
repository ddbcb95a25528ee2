package daemon

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// keysWait bounds how long nodes are waited for.
const keysWait = 10 * time.Second

// ClusterKeys gives an order about the cluster's keys to all nodes. What was refused, or not done by all,
// is in the report, beside how things stand.
func (d *Daemon) ClusterKeys(ctx context.Context, o api.KeyOrder) (api.KeyReport, error) {
	if d.cluster == nil {
		return api.KeyReport{}, api.Errorf(api.BadRequest, "%v", errAlone)
	}
	ctx, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	states, err := d.orderKeys(ctx, o)
	if errors.Is(err, gossip.ErrNotEncrypted) {
		return api.KeyReport{}, api.Errorf(api.Conflict, "%v", err)
	}
	var answer *api.Error
	if errors.As(err, &answer) {
		return api.KeyReport{}, err
	}
	out := api.KeyReport{Nodes: []api.NodeKeys{}}
	for _, s := range states {
		out.Nodes = append(out.Nodes, api.NodeKeys{Node: s.Node, Primary: s.Primary, Keys: append([]string{}, s.Keys...), Error: s.Error})
	}
	if err != nil {
		out.Refused = err.Error()
	}
	return out, nil
}

func (d *Daemon) orderKeys(ctx context.Context, o api.KeyOrder) ([]gossip.KeyState, error) {
	c := d.cluster
	switch o.Do {
	case api.KeysList:
		return c.Keys(ctx)
	case api.KeysInstall:
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(o.Key))
		if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
			return nil, api.Errorf(api.BadRequest, "key: want 16, 24 or 32 bytes in base64, as bulkhead cluster keys generate prints them")
		}
		return c.InstallKey(ctx, key)
	case api.KeysUse, api.KeysRemove:
		name, err := d.keyNamed(ctx, o.Fingerprint)
		if err != nil {
			return nil, err
		}
		if o.Do == api.KeysUse {
			return c.UseKey(ctx, name)
		}
		return c.RemoveKey(ctx, name)
	}
	return nil, api.Errorf(api.BadRequest, "do %q: want %s, %s, %s or %s", o.Do, api.KeysList, api.KeysInstall, api.KeysUse, api.KeysRemove)
}

// keyNamed completes a fingerprint that a person typed the first letters of.
func (d *Daemon) keyNamed(ctx context.Context, typed string) (string, error) {
	if typed == "" {
		return "", api.Errorf(api.BadRequest, "which key? give its fingerprint, see bulkhead cluster keys list")
	}
	states, _ := d.cluster.Keys(ctx) // who cannot be asked is named by the order itself
	var found []string
	for _, s := range states {
		for _, k := range s.Keys {
			if strings.HasPrefix(k, typed) && !slices.Contains(found, k) {
				found = append(found, k)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", api.Errorf(api.NotFound, "key %s: no node has it; install it first", typed)
	case 1:
		return found[0], nil
	}
	return "", api.Errorf(api.BadRequest, "key %s: %s all begin so; give more of it", typed, strings.Join(found, ", "))
}
