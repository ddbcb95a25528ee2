package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Options say what lab to make. The zero value of each field is its default.
type Options struct {
	Name       string         // of the lab; default a random one. Lower case letters, digits, dashes; at most 32
	Dir        string         // of its state; default /run/bulkhead-lab/NAME. Must not exist
	Files      []string       // manifests, and directories of manifests
	Manifests  string         // more manifests, as text
	Mode       string         // defaultMode of the daemons; default enforce with policies, learn without
	Bin        string         // folder of the programs; default see FindBin
	NoBulkhead bool           // bridge alone: neither plugin nor daemon
	Alone      bool           // each daemon is told of all pods and hears of no other; default: several nodes are a cluster
	Over6      bool           // the cluster's daemons reach each other over IPv6
	NoListen   bool           // nobody listens on container ports but what the caller starts
	AllowDNS   bool           // pods may always ask their resolvers; default no, as upstream: a policy must allow it
	Resolvers  []netip.Addr   // in the pods' resolv.conf; default the addresses of kube-system/kube-dns
	Config     map[string]any // more keys of the daemons' configuration
	Parallel   int            // ADDs at a time; default 4
	Progress   io.Writer      // a line per step; default none
}

// Lab is one running lab.
type Lab struct {
	*State
	agent *agentClient
	wg    sync.WaitGroup // one reaper per process that this process started
	edit  sync.Mutex     // State after Up
}

var nameOK = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Up makes a lab: nodes, Services, daemons, pods, listeners; then waits until policies are in
// force. Where it cannot, or ctx ends, it leaves nothing behind.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab needs root: it makes network namespaces; run it with sudo")
	}
	s, inv, notes, err := o.plan()
	if err != nil {
		return nil, err
	}
	progress := func(format string, args ...any) {
		if o.Progress != nil {
			fmt.Fprintf(o.Progress, format+"\n", args...)
		}
	}
	for _, n := range notes {
		progress("note: %s", n)
	}
	if err := s.claim(); err != nil {
		return nil, err
	}
	l := &Lab{State: s, agent: newAgentClient(s.Dir)}
	if err := l.make(ctx, inv, o, progress); err != nil {
		// The clean-up must happen also when ctx is what ended us.
		return nil, errors.Join(fmt.Errorf("lab %s: %w", s.Name, err), l.Down())
	}
	return l, nil
}

// plan reads the manifests and decides everything that is to be made.
func (o Options) plan() (*State, *kube.Inventory, []string, error) {
	inv, err := o.read()
	if err != nil {
		return nil, nil, nil, err
	}
	s := &State{
		Name: o.Name, Dir: o.Dir, Created: time.Now(), Mode: o.Mode, Bulkhead: !o.NoBulkhead, Listen: !o.NoListen, AllowDNS: o.AllowDNS,
		Policies: len(inv.Policies), Resolvers: o.Resolvers,
	}
	if s.Name == "" {
		var b [4]byte
		rand.Read(b[:]) // never fails since Go 1.24
		s.Name = "t" + hex.EncodeToString(b[:])
	}
	if !nameOK.MatchString(s.Name) {
		return nil, nil, nil, fmt.Errorf("lab name %q: want lower case letters, digits and dashes, at most 32", s.Name)
	}
	if s.Dir == "" {
		s.Dir = filepath.Join(root, s.Name)
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return nil, nil, nil, err
	}
	if len(s.Dir) > 90 { // agent.sock and n1/api.sock must fit into sun_path (unix(7))
		return nil, nil, nil, fmt.Errorf("folder %s: %d bytes; the sockets in it allow 90", s.Dir, len(s.Dir))
	}
	if s.Mode == "" {
		s.Mode = policy.Learn.String()
		if s.Policies > 0 {
			s.Mode = policy.Enforce.String()
		}
	}
	if _, err := policy.ParseMode(s.Mode); err != nil {
		return nil, nil, nil, err
	}
	if s.Bin, err = FindBin(o.Bin); err != nil {
		return nil, nil, nil, err
	}
	notes, err := plan(s, inv)
	s.Joined, s.Over6 = !o.Alone && s.Bulkhead && len(s.Nodes) > 1, o.Over6
	return s, inv, append(inv.Notes, notes...), err
}

// read takes files and text as one inventory.
func (o Options) read() (*kube.Inventory, error) {
	if o.Manifests == "" {
		return kube.ReadFiles(o.Files...)
	}
	if len(o.Files) == 0 {
		return kube.ParseManifests("manifests", []byte(o.Manifests))
	}
	dir, err := os.MkdirTemp("", "bulkhead-lab-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "manifests.yaml")
	if err := os.WriteFile(file, []byte(o.Manifests), 0o600); err != nil {
		return nil, err
	}
	return kube.ReadFiles(append(o.Files, file)...)
}

// FindBin finds the folder of the programs: the one given, BULKHEAD_BIN, the folder of the running
// program, or bin/ of the checkout around the working directory.
func FindBin(given string) (string, error) {
	candidates := []string{given, os.Getenv("BULKHEAD_BIN")}
	if exe, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Dir(exe))
	}
	if dir, err := checkout(); err == nil {
		candidates = append(candidates, filepath.Join(dir, "bin"))
	}
	for _, dir := range candidates {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "bulkhead-lab")); err == nil {
			return filepath.Abs(dir)
		}
		if dir == given || dir == os.Getenv("BULKHEAD_BIN") {
			return "", fmt.Errorf("%s: no bulkhead-lab in it; build it with: make tools", dir)
		}
	}
	return "", errors.New("bulkhead-lab and the plugins: not found; build them with: make tools, or set BULKHEAD_BIN")
}

// check tells which program is missing before anything is made.
func (s *State) check() error {
	want := []string{"cni/bridge", "cni/host-local"}
	if s.Bulkhead {
		want = append(want, "bulkheadd", "bulkhead-cni")
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(s.Bin, name)); err != nil {
			return fmt.Errorf("%s: not there; build it with: make tools", filepath.Join(s.Bin, name))
		}
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return fmt.Errorf("nft: %w; install it with: apt-get install nftables", err)
	}
	return nil
}

// claim takes the lab's folder and writes its state there.
func (s *State) claim() error {
	if err := s.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	link := filepath.Join(root, s.Name)
	if _, err := os.Lstat(link); err == nil {
		return fmt.Errorf("lab %s: is there already; take it down with: bulkhead-lab down --name %s", s.Name, s.Name)
	}
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return fmt.Errorf("lab %s: %w; a lab wants a folder of its own", s.Name, err)
	}
	if s.Dir != link {
		if err := os.Symlink(s.Dir, link); err != nil {
			return errors.Join(err, os.Remove(s.Dir))
		}
	}
	if err := s.write(); err != nil {
		return errors.Join(err, os.RemoveAll(s.Dir), os.RemoveAll(link))
	}
	return nil
}

// Open finds a lab by name or by folder.
func Open(name string) (*Lab, error) {
	dir := name
	if nameOK.MatchString(name) {
		dir = filepath.Join(root, name)
	}
	s, err := readState(dir)
	if err != nil {
		return nil, err
	}
	return &Lab{State: s, agent: newAgentClient(s.Dir)}, nil
}

// List names the labs of this machine.
func List() ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if nameOK.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// Pod is one pod of the lab, by namespace/name or by a name that only one has.
func (l *Lab) Pod(name string) (*Pod, error) {
	p := l.State.pod(name)
	if p == nil {
		return nil, fmt.Errorf("pod %s: not in lab %s", name, l.Name)
	}
	return p, nil
}

// Node is one node of the lab by its name; nil when there is none.
func (l *Lab) Node(name string) *Node { return l.node(name) }

// Socket is where the first node's daemon listens.
func (l *Lab) Socket() string { return filepath.Join(l.Dir, "api.sock") }

// Probe sends real packets and answers each question. The error is about the lab; what one probe
// cannot do is in its Error.
func (l *Lab) Probe(ctx context.Context, probes []Probe) ([]Probe, error) {
	return l.probe(ctx, pathProbe, probes)
}

// Glance is Probe in less than half of the time, and with less certainty about denials: whoever is
// surprised by one asks again with Probe.
func (l *Lab) Glance(ctx context.Context, probes []Probe) ([]Probe, error) {
	return l.probe(ctx, pathGlance, probes)
}

func (l *Lab) probe(ctx context.Context, path string, probes []Probe) ([]Probe, error) {
	var answers []answer
	if err := l.agent.call(ctx, path, probes, &answers); err != nil {
		return nil, err
	}
	if len(answers) != len(probes) {
		return nil, fmt.Errorf("the lab's agent: %d answers to %d probes", len(answers), len(probes))
	}
	out := append([]Probe(nil), probes...)
	for i, a := range answers {
		out[i].Verdict, out[i].Error, out[i].Answer, out[i].LatencyMS = a.Verdict, a.Error, a.Answer, a.LatencyMS
	}
	return out, nil
}

// Inside runs f on a thread in a pod's, a node's or the "outside" network: sockets that f opens stay
// there, programs that it starts begin there.
func (l *Lab) Inside(where string, f func() error) error {
	netns, _, err := l.where(where)
	if err != nil {
		return err
	}
	return within(nsPath(netns), f)
}

// AddOutside makes addresses hosts of the outside network, so that programs started in
// [State.Outside] may use them. Probe does so by itself.
func (l *Lab) AddOutside(ctx context.Context, addrs ...netip.Addr) error {
	return l.agent.call(ctx, pathOutside, addrs, &struct{}{})
}

// Attach runs CNI ADD for a pod that was detached, in a new namespace of the same name, as a new container. Who
// listened in the former one does so again.
func (l *Lab) Attach(ctx context.Context, pod string) error {
	p, err := l.Pod(pod)
	if err != nil {
		return err
	}
	if err := l.change(func() { p.ContainerID, p.Detached = containerID(), false }); err != nil {
		return err
	}
	err = l.attach(ctx, p)
	if err == nil && l.Listen {
		err = l.agent.call(ctx, pathAgain, p.String(), &struct{}{})
	}
	return err
}

// Detach runs CNI DEL for a pod and removes its namespace, as a runtime does. Its listeners in the
// agent keep the namespace itself alive until Attach, with nothing in it that leads out.
func (l *Lab) Detach(ctx context.Context, pod string) error {
	p, err := l.Pod(pod)
	if err != nil {
		return err
	}
	return errors.Join(l.detach(ctx, p), l.change(func() { p.Detached = true }))
}

// change changes the state, in its file too: several pods may come and go at a time.
func (l *Lab) change(f func()) error {
	l.edit.Lock()
	defer l.edit.Unlock()
	f()
	return l.write()
}
