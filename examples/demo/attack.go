package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/examples/shop"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

const (
	attackerService = "recommendationservice" // its honest calls go to the catalogue and to DNS only
	victimService   = "redis-cart"            // holds every customer's cart
	friendService   = "cartservice"           // the one service that may reach the victim
	scanPorts       = 1000
)

// attempt is what the attacker says of its own doing.
type attempt struct {
	Sent      int    `json:"sent"`
	Succeeded int    `json:"succeeded"`
	Error     string `json:"error"`
}

// hearing is what the ear at the victim's interface counted.
type hearing struct {
	From   int `json:"from"`   // from the attacker's addresses
	Marked int `json:"marked"` // with the attacker's mark in it, whoever is given as sender
	Others int `json:"others"` // honest traffic
}

// battle is one attacker, one victim and an ear in between.
type battle struct {
	s        *stage
	t        *teller
	attacker string // pod
	target   netip.AddrPort
	target6  netip.AddrPort
	vip      netip.AddrPort
	liar     netip.Addr // whose address the attacker borrows
	ear      string     // file
}

// startBattle opens the ear in the victim's namespace. It sits at a packet socket, before every
// rule: what it does not hear was stopped outside.
func (s *stage) startBattle(ctx context.Context, t *teller) (*battle, error) {
	attacker, err := s.graph.PodOf(attackerService)
	if err != nil {
		return nil, err
	}
	victim, err := s.graph.PodOf(victimService)
	if err != nil {
		return nil, err
	}
	friend, err := s.graph.PodOf(friendService)
	if err != nil {
		return nil, err
	}
	port := victim.Service.Ports[0].Port
	b := &battle{s: s, t: t, attacker: podName(attacker), liar: friend.Addrs[0],
		target: netip.AddrPortFrom(victim.Addrs[0], port), target6: netip.AddrPortFrom(victim.Addrs[1], port)}
	for _, o := range s.graph.Objects() {
		if o.Name == victimService {
			b.vip = netip.AddrPortFrom(o.Addrs[0], port)
		}
	}
	b.ear = filepath.Join(s.reports, victimService+".ear")
	argv := []string{filepath.Join(s.bin, "shop"), "hear", "-from", addrList(attacker), "-report", b.ear}
	if _, err := s.lab.Start(podName(victim), lab.Raw, nil, argv...); err != nil {
		return nil, err
	}
	for { // until it hears honest traffic: then it hears
		if h, err := b.hear(); err == nil && h.Others > 0 {
			return b, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("open an ear at %s: it heard no honest traffic: %w", victimService, err)
		}
	}
}

func addrList(p shop.Pod) string { return p.Addrs[0].String() + "," + p.Addrs[1].String() }

func (b *battle) hear() (hearing, error) {
	var h hearing
	data, err := os.ReadFile(b.ear)
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(data, &h)
}

// strike runs one attack, waits until the ear has written down what came of it, and notes whether
// it was stopped.
func (b *battle) strike(ctx context.Context, what string, as lab.As, args ...string) error {
	before, err := b.hear()
	if err != nil {
		return err
	}
	a, err := b.s.attack(ctx, b.attacker, as, args...)
	if err != nil {
		return err
	}
	return b.judge(ctx, what, before, a)
}

func (b *battle) judge(ctx context.Context, what string, before hearing, a attempt) error {
	if err := pause(ctx, 300*time.Millisecond); err != nil { // the ear writes every 50 ms
		return err
	}
	after, err := b.hear()
	if err != nil {
		return err
	}
	h := hearing{From: after.From - before.From, Marked: after.Marked - before.Marked, Others: after.Others - before.Others}
	stopped := a.Sent > 0 && a.Succeeded == 0 && h.From == 0 && h.Marked == 0
	verdict := "blocked"
	if !stopped {
		verdict = "NOT BLOCKED"
	}
	sent := fmt.Sprintf("%d sent, %d got through", a.Sent, max(a.Succeeded, h.From+h.Marked))
	if a.Sent == 0 {
		sent = "nothing could be sent: " + a.Error
	}
	b.t.promise(stopped, what, "%s; %s; %s heard %d of them and %d honest frames", verdict, sent, victimService, h.From+h.Marked, h.Others)
	return nil
}

// run makes every attack of the demo.
func (b *battle) run(ctx context.Context) error {
	to := b.target.String()
	steps := []struct {
		what string
		as   lab.As
		args []string
	}{
		{"sideways connection to " + victimService, lab.User, []string{"connect", "-to", to}},
		{"the same over IPv6", lab.User, []string{"connect", "-to", b.target6.String()}},
		{"the same through its Service", lab.User, []string{"connect", "-to", b.vip.String()}},
		{fmt.Sprintf("scan of %d ports", scanPorts), lab.User, []string{"scan", "-to", netip.AddrPortFrom(b.target.Addr(), scanPorts).String()}},
		{"raw AF_PACKET frames", lab.Raw, []string{"raw", "-to", to}},
		{"frames with " + friendService + "'s address", lab.Raw, []string{"spoof", "-as", b.liar.String(), "-to", to}},
	}
	for _, step := range steps {
		if err := b.strike(ctx, step.what, step.as, step.args...); err != nil {
			return err
		}
	}
	return b.tamper(ctx)
}

// tamper tries to be rid of the rules as root with CAP_NET_ADMIN, then attacks again.
func (b *battle) tamper(ctx context.Context) error {
	for _, rule := range []string{
		"flush ruleset",
		"delete table inet bulkhead",
		"add table inet evil { chain out { type filter hook output priority -300; policy accept; }; }",
	} {
		out, err := b.s.lab.Exec(ctx, b.attacker, lab.Admin, "nft", rule)
		answer := "accepted, by the attacker's own namespace"
		if err != nil {
			answer = "refused: " + firstLine(out, err)
		}
		b.t.say("as root with CAP_NET_ADMIN: nft '%s': %s", rule, answer)
	}
	rules, err := b.s.lab.Exec(ctx, b.attacker, lab.Admin, "nft", "list", "table", "inet", "bulkhead")
	b.t.promise(err == nil && strings.Contains(rules, "policy drop"), "rules against CAP_NET_ADMIN",
		"%s", map[bool]string{true: "table inet bulkhead is still there", false: "table inet bulkhead is gone"}[err == nil])
	return b.strike(ctx, "sideways connection after that", lab.Admin, "connect", "-to", b.target.String())
}

func firstLine(out string, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if line == "" {
		return err.Error()
	}
	return strings.TrimPrefix(line, "Error: ")
}

// pause waits, or returns early with ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
