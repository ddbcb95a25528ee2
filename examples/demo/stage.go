package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/examples/shop"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// stage is the shop in its lab, with the programs that the demo runs.
type stage struct {
	bin     string // folder of our programs
	dir     string // of this demo: manifest, policies, reports
	reports string
	graph   *shop.Graph
	lab     *lab.Lab
	client  *api.Client
	players []player
}

// player is one running process of the shop.
type player struct{ name, report, log string }

// readyTime is how long the shop's processes may take to listen.
const readyTime = 20 * time.Second

// open prepares the folder of a run. Nothing is up yet.
func open() (*stage, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root: it makes network namespaces; try: sudo make demo")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &stage{bin: filepath.Dir(self)}
	for _, name := range []string{"bulkhead", "bulkheadd", "bulkhead-cni", "bulkhead-lab", "shop", "cni/bridge"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			return nil, fmt.Errorf("%w; build it with: make tools", err)
		}
	}
	if s.graph, err = shop.Load(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "bulkhead-demo-"); err != nil {
		return nil, err
	}
	s.reports = filepath.Join(s.dir, "reports")
	// The shop runs as nobody and must reach and write its reports.
	if err := errors.Join(os.Mkdir(s.reports, 0o755), os.Chmod(s.dir, 0o755), os.Chmod(s.reports, 0o777)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// up makes the lab: every pod attached through the CNI chain before the first one starts.
func (s *stage) up(ctx context.Context) error {
	manifests, err := shop.Manifests(s.graph)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "shop.yaml")
	if err := os.WriteFile(file, manifests, 0o644); err != nil {
		return err
	}
	if s.lab, err = lab.Up(ctx, lab.Options{Files: []string{file}, Bin: s.bin, NoListen: true, AllowDNS: true}); err != nil {
		return err
	}
	s.client = api.NewClient(s.lab.Socket())
	outside := []netip.Addr{shop.Shopper}
	for _, x := range s.graph.External {
		addr, err := netip.ParseAddr(x.Address)
		if err != nil {
			return fmt.Errorf("external %s: %w", x.Name, err)
		}
		outside = append(outside, addr)
	}
	return s.lab.AddOutside(ctx, outside...)
}

// down removes the lab with everything that runs in it, and the folder.
func (s *stage) down() error {
	var err error
	if s.lab != nil {
		err = s.lab.Down()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// play starts every part of the shop: a process per pod, the node's probes, the shoppers and the
// hosts outside of the cluster.
func (s *stage) play(ctx context.Context) error {
	for _, x := range s.graph.External {
		if err := s.start("outside", "play", x.Name); err != nil {
			return err
		}
	}
	for _, p := range s.graph.Pods() {
		if err := s.start(podName(p), "play", p.Service.Name); err != nil {
			return err
		}
	}
	if err := s.start("outside", "play", "world", "-from", shop.Shopper.String()); err != nil {
		return err
	}
	if err := s.start(s.lab.Nodes[0].Name, "play", "node"); err != nil {
		return err
	}
	return s.ready(ctx)
}

// ready waits until every player has written its first report: it listens then. One that ended
// before, or hangs, is named with what it said.
func (s *stage) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, p := range s.players {
		for {
			if _, err := os.Stat(p.report); err == nil {
				break
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("%s: not up: %w; it said: %s", p.name, err, strings.TrimSpace(read(p.log)))
			}
		}
	}
	return nil
}

// start runs the shop program for as long as the lab is up; its report is named by what it plays.
func (s *stage) start(where string, args ...string) error {
	p := player{name: "shop " + strings.Join(args, " ") + " in " + where, report: filepath.Join(s.reports, args[1]+".json"), log: filepath.Join(s.dir, args[1]+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	s.players = append(s.players, p)
	argv := append([]string{filepath.Join(s.bin, "shop")}, args...)
	_, err = s.lab.Start(where, lab.User, log, append(argv, "-report", p.report)...)
	return err
}

// cli runs the real command against this lab and gives what it prints.
func (s *stage) cli(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_SOCKET="+s.lab.Socket())
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), fmt.Errorf("bulkhead %s: exit code %d: %s", strings.Join(args, " "), exit.ExitCode(), strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// once makes every call of the shop's graph once, over new connections, from where it belongs.
func (s *stage) once(ctx context.Context) (tally, error) {
	var sum tally
	run := func(where, part string, more ...string) error {
		report := filepath.Join(s.reports, part+".once")
		argv := append([]string{filepath.Join(s.bin, "shop"), "play", part, "-once", "-report", report}, more...)
		if out, err := s.lab.Exec(ctx, where, lab.User, argv...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		r, err := shop.ReadReport(report)
		sum.add(r)
		return err
	}
	for _, p := range s.graph.Pods() {
		if err := run(podName(p), p.Service.Name); err != nil {
			return sum, err
		}
	}
	if err := run("outside", "world", "-from", shop.Shopper.String()); err != nil {
		return sum, err
	}
	return sum, run(s.lab.Nodes[0].Name, "node")
}

// attack runs the shop's attacker in a pod and reads what it says of itself.
func (s *stage) attack(ctx context.Context, pod string, as lab.As, args ...string) (attempt, error) {
	var a attempt
	out, err := s.lab.Exec(ctx, pod, as, append([]string{filepath.Join(s.bin, "shop"), "attack"}, args...)...)
	if err != nil {
		return a, fmt.Errorf("%w: %s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return a, fmt.Errorf("attack %s: %w in %q", args[0], err, out)
	}
	return a, nil
}

// podName is how the lab and the daemon name a pod.
func podName(p shop.Pod) string { return p.Service.Namespace + "/" + p.Name }
