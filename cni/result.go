package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// resultIn is prevResult as the request's version has it. It is passed on as the bytes that came,
// so that fields nobody here knows go through; only a result of another version, which no libcni
// sends, goes through the library's converters.
func resultIn(raw json.RawMessage, version string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, misfit("prevResult", err)
	}
	var have string
	if v := fields["cniVersion"]; !absent(v) {
		if err := json.Unmarshal(v, &have); err != nil {
			return nil, fmt.Errorf("prevResult: cniVersion %s: want a string", short(v))
		}
	}
	switch have {
	case version:
		return raw, nil
	case "":
		fields["cniVersion"], _ = json.Marshal(version)
		return json.Marshal(fields)
	}
	r, err := parse(raw, have)
	if err != nil {
		return nil, err
	}
	if r, err = r.GetAsVersion(version); err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return json.Marshal(r)
}

// parse reads a result of a version. It refuses null among interfaces and addresses, which the
// library's converters (containernetworking/cni v1.3.0) follow into a panic.
func parse(raw json.RawMessage, version string) (types.Result, error) {
	r, err := create.Create(version, raw)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	var null bool
	switch r := r.(type) {
	case *types100.Result:
		null = slices.Contains(r.Interfaces, nil) || slices.Contains(r.IPs, nil)
	case *types040.Result:
		null = slices.Contains(r.Interfaces, nil) || slices.Contains(r.IPs, nil)
	}
	if null {
		return nil, errors.New("prevResult: null among interfaces or ips")
	}
	return r, nil
}

// interfaces finds in a result of resultIn what lies in the container's namespace at netns.
//
// An interface is the container's when it has a sandbox, unless that is another namespace than
// netns; paths are compared by what they lead to, since runtimes spell them differently. Addresses
// without an interface, and all of them where a plugin lists no interface of the container, belong
// to ifName. Host is the nearest interface without a sandbox, those before it first: bridge lists
// bridge, veth, eth0; ptp lists veth, eth0. It is a hint, which the daemon verifies in the kernel.
func interfaces(raw json.RawMessage, version, netns, ifName string) ([]api.CNIInterface, []string, error) {
	r, err := parse(raw, version)
	if err != nil {
		return nil, nil, err
	}
	result, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, nil, fmt.Errorf("prevResult: %w", err)
	}
	var found []api.CNIInterface
	at := map[int]int{} // index in the result → index in found
	for i, f := range result.Interfaces {
		if f.Sandbox == "" || !sameNamespace(f.Sandbox, netns) {
			continue
		}
		at[i] = len(found)
		found = append(found, api.CNIInterface{Name: f.Name, MAC: f.Mac})
	}
	assignHosts(result.Interfaces, at, found)
	if len(found) == 0 {
		found = []api.CNIInterface{{Name: ifName, Host: onlyHost(result.Interfaces)}}
	}
	if err := assignAddrs(result, at, found, ifName); err != nil {
		return nil, nil, err
	}
	return found, result.DNS.Nameservers, nil
}

func assignAddrs(result *types100.Result, at map[int]int, found []api.CNIInterface, ifName string) error {
	for i, ip := range result.IPs {
		if ip.Address.IP == nil {
			return fmt.Errorf("prevResult: ips[%d]: no address", i)
		}
		owner := named(found, ifName)
		if ip.Interface != nil {
			n := *ip.Interface
			if n < 0 || n >= len(result.Interfaces) {
				return fmt.Errorf("prevResult: ips[%d].interface %d: there are %d interfaces", i, n, len(result.Interfaces))
			}
			k, ours := at[n]
			if !ours && len(at) > 0 {
				continue // an address of the host's end
			} else if ours {
				owner = k
			}
		}
		found[owner].Addrs = append(found[owner].Addrs, ip.Address.String())
		if ip.Gateway != nil {
			found[owner].Gateways = append(found[owner].Gateways, ip.Gateway.String())
		}
	}
	return nil
}

// named is the index of an interface, the first when none has the name.
func named(found []api.CNIInterface, name string) int {
	for i, f := range found {
		if f.Name == name {
			return i
		}
	}
	return 0
}

// assignHosts gives each interface of the container the nearest one of the host that no other has.
func assignHosts(all []*types100.Interface, at map[int]int, found []api.CNIInterface) {
	taken := map[int]bool{}
	free := func(i int) bool {
		return i >= 0 && i < len(all) && all[i].Sandbox == "" && !taken[i]
	}
	for i := range all {
		k, ours := at[i]
		if !ours {
			continue
		}
		host := -1
		for d := i - 1; d >= 0 && host < 0; d-- {
			if free(d) {
				host = d
			}
		}
		for d := i + 1; d < len(all) && host < 0; d++ {
			if free(d) {
				host = d
			}
		}
		if host >= 0 {
			taken[host], found[k].Host = true, all[host].Name
		}
	}
}

// onlyHost is the host's end where a plugin lists nothing else, as Calico does.
func onlyHost(all []*types100.Interface) string {
	if len(all) == 1 && all[0].Sandbox == "" {
		return all[0].Name
	}
	return ""
}

// sameNamespace compares two paths by what they lead to. Where one cannot be looked at (a sandbox
// that is no path: a virtual machine's name) the plugin before us is believed.
func sameNamespace(sandbox, netns string) bool {
	if sandbox == netns || netns == "" {
		return true
	}
	a, err := namespaceAt(sandbox)
	b, err2 := namespaceAt(netns)
	return errors.Join(err, err2) != nil || a == b
}
