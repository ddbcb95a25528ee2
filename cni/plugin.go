package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Versions are the protocol versions that the plugin speaks.
var Versions = version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Funcs are the plugin's verbs for skel.
func Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: Add, Check: Check, Del: Del, GC: GC, Status: Status}
}

// Add returns when the container's rules are in force, and prints prevResult as it came.
//
// Errors: code 7 for a wrong configuration or no prevResult, 8 for what is no container's
// namespace, 11 when the daemon is away or not ready (with failurePolicy open the attachment is
// journalled instead and ADD succeeds), 100 when the daemon refuses, 999 when it could not.
func Add(args *skel.CmdArgs) error {
	c, req, e := attachment("ADD", args)
	if e != nil {
		return e
	}
	result, err := resultIn(c.PrevResult, c.Version)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, err, "network %q: prevResult cannot be passed on", c.Network)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	err = call(ctx, c, req)
	if c.Open && away(err) {
		err = letThrough(ctx, c, req, err)
	}
	if err != nil {
		var e *types.Error
		if errors.As(err, &e) {
			return e
		}
		return daemonError("ADD", err, c)
	}
	_, err = os.Stdout.Write(append(result, '\n'))
	return err
}

// letThrough journals an attachment that the daemon could not take. The daemon reads the journal
// after it listens; so that it cannot miss what is written in that moment, it is asked once more
// afterwards.
func letThrough(ctx context.Context, c *Config, req api.CNIRequest, cause error) error {
	j := Journal{Dir: c.PendingDir}
	if err := j.Add(Pending{Time: time.Now().UTC(), Cause: cause.Error(), Request: req}); err != nil {
		return fail(types.ErrTryAgainLater, fmt.Errorf("%w; %w", cause, err),
			"%s, and failurePolicy open could not journal the container; try again later", awaySentence(cause, c.Timeout))
	}
	err := call(ctx, c, req)
	if away(err) {
		fmt.Fprintf(os.Stderr, "bulkhead-cni: %s/%s runs without rules until bulkheadd adopts it: %v\n", req.ContainerID, req.IfName, cause)
		return nil
	}
	return errors.Join(err, j.Remove(req.ContainerID, req.IfName))
}

// Check compares the kernel with what should be there; the daemon does it. Errors: 3 when the
// daemon does not know the container, 101 with what differs, else as Add.
func Check(args *skel.CmdArgs) error {
	c, req, e := attachment("CHECK", args)
	if e != nil {
		return e
	}
	if err := ask(c, req); err != nil {
		return daemonError("CHECK", err, c)
	}
	return nil
}

// Del tells the daemon that the attachment is gone. It never fails: the runtime would not run the
// plugins before us, and the address would leak. What it could not say now, the daemon's own sweep
// for dead namespaces finds.
func Del(args *skel.CmdArgs) error {
	note := func(err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "bulkhead-cni: DEL %s/%s: %v\n", args.ContainerID, args.IfName, err)
		}
	}
	c, e := ParseConfig(args.StdinData)
	if e != nil {
		note(e)
	}
	if c == nil {
		return nil
	}
	if id, err := namespaceAt(args.Netns); err == nil && isHost(id) {
		// A runtime may tear down a pod that shares the host's namespace. The path goes no
		// further; the skeleton, which would fail the call for it afterwards, is told to let be.
		args.Netns, args.NetnsOverride = "", "1"
	}
	req := request("DEL", args, c)
	note(describe(&req, args, c))
	note(Journal{Dir: c.PendingDir}.Remove(args.ContainerID, args.IfName))
	note(ask(c, req))
	return nil
}

// GC removes what belongs to no attachment of the list. A call without the list proves nothing
// about what lives and is an error.
func GC(args *skel.CmdArgs) error {
	c, e := ParseConfig(args.StdinData)
	if e != nil {
		return e
	}
	if !c.ValidSet {
		return fail(types.ErrInvalidNetworkConfig, nil,
			"network %q: no cni.dev/valid-attachments; nothing was cleaned, for only a list that is there and empty says that nothing is valid", c.Network)
	}
	req := request("GC", args, c)
	req.Valid = make([]api.CNIAttachment, len(c.Valid))
	for i, a := range c.Valid {
		req.Valid[i] = api.CNIAttachment{ContainerID: a.ContainerID, IfName: a.IfName}
	}
	if err := (Journal{Dir: c.PendingDir}).Keep(c.Network, req.Valid); err != nil {
		return fail(types.ErrIOFailure, err, "clean the journal in %s", c.PendingDir)
	}
	if err := ask(c, req); err != nil {
		return daemonError("GC", err, c)
	}
	return nil
}

// Status says whether an ADD would succeed: code 50 when the daemon cannot take one. With
// failurePolicy open it need not, as long as the journal has room.
func Status(args *skel.CmdArgs) error {
	c, e := ParseConfig(args.StdinData)
	if e != nil {
		return e
	}
	err := ask(c, request("STATUS", args, c))
	if c.Open && away(err) {
		if full := (Journal{Dir: c.PendingDir}).Room(); full != nil {
			return fail(codeUnavailable, fmt.Errorf("%w; %w", err, full), "%s, and its journal takes no more", awaySentence(err, c.Timeout))
		}
		return nil
	}
	if err != nil {
		return daemonError("STATUS", err, c)
	}
	return nil
}

// attachment is what ADD and CHECK need: a right configuration, a container's namespace, and the
// whole request.
func attachment(command string, args *skel.CmdArgs) (*Config, api.CNIRequest, *types.Error) {
	c, e := ParseConfig(args.StdinData)
	if e != nil {
		return nil, api.CNIRequest{}, e
	}
	if c.PrevResult == nil {
		return nil, api.CNIRequest{}, fail(types.ErrInvalidNetworkConfig, nil, "network %q: %v", c.Network, errNoPrevResult)
	}
	if e := checkNetNS(args.Netns); e != nil {
		return nil, api.CNIRequest{}, e
	}
	req := request(command, args, c)
	if _, err := ParseArgs(args.Args); err != nil {
		return nil, req, fail(types.ErrInvalidEnvironmentVariables, nil, "%v", err)
	}
	if err := describe(&req, args, c); err != nil {
		return nil, req, fail(types.ErrInvalidNetworkConfig, nil, "network %q: %v", c.Network, err)
	}
	return c, req, nil
}

// request carries what needs no result of an earlier plugin.
func request(command string, args *skel.CmdArgs, c *Config) api.CNIRequest {
	cniArgs, _ := ParseArgs(args.Args) // attachment refuses what does not parse; DEL goes on without
	return api.CNIRequest{
		Command: command, ContainerID: args.ContainerID, NetNS: args.Netns, IfName: args.IfName,
		Args: cniArgs, Network: c.Network, RuntimeConfig: c.RuntimeConfig, Labels: c.Labels, Resolvers: c.Resolvers,
	}
}

// describe adds what prevResult says; a DEL may come without.
func describe(req *api.CNIRequest, args *skel.CmdArgs, c *Config) error {
	if c.PrevResult == nil {
		return nil
	}
	raw, err := resultIn(c.PrevResult, c.Version)
	if err != nil {
		return err
	}
	ifs, resolvers, err := interfaces(raw, c.Version, args.Netns, args.IfName)
	if err != nil {
		return err
	}
	req.Interfaces = ifs
	for _, r := range resolvers {
		if !slices.Contains(req.Resolvers, r) {
			req.Resolvers = append(req.Resolvers, r)
		}
	}
	return nil
}

func ask(c *Config, req api.CNIRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	return call(ctx, c, req)
}

func call(ctx context.Context, c *Config, req api.CNIRequest) error {
	client := api.NewClient(c.Socket)
	defer client.Close()
	return client.CNI(ctx, req)
}
