package alert

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// run feeds cases with a pause after each and returns what came out of judge and folder in the
// given time after the last.
func run(s *scene, j *Judge, f *Folder, pause, after time.Duration, cases int, next func(i int) Case) []Alert {
	f.Now = s.clock.read
	var out []Alert
	beats := func(d time.Duration) {
		for end := s.clock.now.Add(d); s.clock.now.Before(end); {
			s.clock.forward(min(beat, end.Sub(s.clock.now)))
			for _, h := range j.Due() {
				out = append(out, f.Add(h.Alert, h.From)...)
			}
			out = append(out, f.Due()...)
		}
	}
	for i := range cases {
		if a := j.Judge(next(i)); a != nil {
			out = append(out, f.Add(*a, 0)...)
		}
		beats(pause)
	}
	beats(after)
	return out
}

func short(list []Alert) string {
	var out []string
	for _, a := range list {
		s := fmt.Sprintf("%s %s ×%d", a.Kind, a.Client.name(), a.Count)
		if a.Ports > 0 {
			s += fmt.Sprintf(" ports %d", a.Ports)
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

// TestScans: which attempts are one alert, and which are not.
func TestScans(t *testing.T) {
	enforce := func(s *scene) { s.modes["shop/db"] = policy.Enforce }
	denyFrom := func(s *scene, client string, port int) Case {
		return s.seen(policy.Ingress, client, db, identity.TCP, uint16(port), policy.Deny)
	}
	tests := []struct {
		name  string
		pause time.Duration
		after time.Duration
		cases int
		next  func(s *scene, i int) Case
		want  string
	}{
		{"1,000 ports at once are one alert", 0, 5 * time.Minute, 1000,
			func(s *scene, i int) Case { return denyFrom(s, evil, 1+i) },
			"port-scan shop/evil-1 ×1000 ports 1000"},

		{"1,000 ports in ten seconds: one alert when it goes on too long, one update at the end", 10 * time.Millisecond, 5 * time.Minute, 1000,
			func(s *scene, i int) Case { return denyFrom(s, evil, 1+i) },
			"port-scan shop/evil-1 ×514 ports 514\nport-scan shop/evil-1 ×1000 ports 1000"},

		{"a few ports are no scan", 0, time.Minute, 3,
			func(s *scene, i int) Case { return denyFrom(s, evil, 22+i) },
			"denied shop/evil-1 ×1\ndenied shop/evil-1 ×1\ndenied shop/evil-1 ×1"},

		{"the same port a thousand times is no scan but one alert, with an update", 100 * time.Millisecond, 2 * time.Minute, 100,
			func(s *scene, i int) Case { return denyFrom(s, evil, 22) },
			"denied shop/evil-1 ×10\ndenied shop/evil-1 ×100"},

		{"two workloads of one service do not fold together", 0, 2 * time.Minute, 4,
			func(s *scene, i int) Case { return denyFrom(s, []string{evil, evil2}[i%2], 22) },
			"denied shop/evil-1 ×2\ndenied shop/evil-2 ×2"},

		{"two scanners are two alerts", 0, 2 * time.Minute, 200,
			func(s *scene, i int) Case { return denyFrom(s, []string{evil, evil2}[i%2], 1+i) },
			"port-scan shop/evil-1 ×100 ports 100\nport-scan shop/evil-2 ×100 ports 100"},

		{"many hosts at one port are a scan too", 0, 2 * time.Minute, 100, func(s *scene, i int) Case {
			s.modes["shop/web"] = policy.Enforce
			return s.seen(policy.Egress, web, fmt.Sprintf("198.51.100.%d", i), identity.TCP, 443, policy.Deny)
		}, "port-scan shop/web-1 ×100 ports 100"},

		{"replicas of one server are one server", 0, 2 * time.Minute, 28,
			func(s *scene, i int) Case {
				return s.seen(policy.Ingress, evil, []string{db, db2}[i%2], identity.TCP, uint16(20+i/2), policy.Deny)
			}, strings.TrimSuffix(strings.Repeat("denied shop/evil-1 ×2\n", 14), "\n")},

		{"a connection that both ends report in mode alert counts once", 0, 2 * time.Minute, 2, func(s *scene, i int) Case {
			s.modes["shop/web"], s.modes["shop/db"] = policy.AlertMode, policy.AlertMode
			return s.seen([]policy.Direction{policy.Egress, policy.Ingress}[i], web, db, identity.TCP, 22, policy.Alert)
		}, "denied shop/web-1 ×1"},

		{"a new edge that both ends report counts once", 0, 2 * time.Minute, 2, func(s *scene, i int) Case {
			s.modes["shop/db"] = policy.Learn
			s.baseline.Lock(identity.Service{Namespace: "shop", Name: "db"}, morning)
			return s.seen([]policy.Direction{policy.Egress, policy.Ingress}[i], web, db, identity.TCP, 5432, policy.Allow)
		}, "new-edge shop/web-1 ×1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, onlyWebMayCallDB)
			enforce(s)
			got := run(s, s.judge(), &Folder{}, tt.pause, tt.after, tt.cases, func(i int) Case { return tt.next(s, i) })
			if short(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", short(got), tt.want)
			}
		})
	}
}

func TestScanSentence(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"] = policy.Enforce
	got := run(s, s.judge(), &Folder{}, time.Millisecond, time.Minute, 1000, func(i int) Case {
		return s.seen(policy.Ingress, evil, db, identity.TCP, uint16(1+i), policy.Deny)
	})
	want := "high port-scan shop/evil → shop/db deny: shop/evil-1 tried 1000 different ports of shop/db in 1s, all denied or never used before\n" +
		"  find out what runs in shop/evil-1; all that it tried: bulkhead flows --service shop/evil"
	if len(got) != 1 || line(got[0]) != want {
		t.Errorf("got %d alerts:\n%s\nwant\n%s", len(got), line(got[0]), want)
	}
}

// TestScanIsForgotten: a slow client never makes a scan, and after a quiet window nothing is kept.
func TestScanIsForgotten(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"] = policy.Enforce
	j := s.judge()
	got := run(s, j, &Folder{}, 5*time.Second, 2*time.Minute, 30, func(i int) Case {
		return s.seen(policy.Ingress, evil, db, identity.TCP, uint16(1+i), policy.Deny)
	})
	for _, a := range got {
		if a.Kind != DeniedBy {
			t.Errorf("one port each 5 s gave %s", short([]Alert{a}))
		}
	}
	run(s, j, &Folder{}, 0, 2*time.Minute, 100, func(i int) Case {
		return s.seen(policy.Ingress, evil, db, identity.TCP, uint16(1+i), policy.Deny)
	})
	if len(j.suspects) != 0 || j.attempts != 0 || j.world != 0 {
		t.Errorf("%d suspects, %d attempts, %d addresses remembered; want none", len(j.suspects), j.attempts, j.world)
	}
}

// TestJudgeIsBounded: a flood from random sources costs a bounded amount of memory and alerts.
func TestJudgeIsBounded(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"] = policy.Enforce
	j := s.judge()
	j.Addresses, j.Attempts = 20, 50
	got := run(s, j, &Folder{Keys: 10}, 0, 10*time.Second, 5000, func(i int) Case {
		return s.seen(policy.Ingress, fmt.Sprintf("203.0.%d.%d", i/250, i%250), db, identity.TCP, 22, policy.Deny)
	})
	if len(got) != 21 || got[20].Client.name() != "world" || got[20].Count != 4980 {
		t.Errorf("%d alerts, the last %s; want 20 of addresses and one of the world", len(got), short(got[len(got)-1:]))
	}
	got = run(s, j, &Folder{}, 0, 10*time.Second, 5000, func(i int) Case {
		return s.seen(policy.Ingress, evil, db, identity.TCP, uint16(1+i), policy.Deny)
	})
	if short(got) != "port-scan shop/evil-1 ×5000 ports 50" || j.attempts != 50 {
		t.Errorf("%s with %d attempts; want the bound of 50 ports and all 5000 counted", short(got), j.attempts)
	}
}
