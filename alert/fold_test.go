package alert

import (
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

func sample(client, server string, port uint16) Alert {
	return Alert{Kind: DeniedBy, Client: Party{Service: client, Workload: client + "-1"}, Server: Party{Service: server},
		Port: port, Count: 1, First: morning, Last: morning, Reason: "because"}
}

// TestFold: what goes out, step by step.
func TestFold(t *testing.T) {
	c := &clock{morning}
	f := &Folder{Now: c.read}
	steps := []struct {
		name    string
		forward time.Duration
		add     *Alert // nil: only look what is due
		from    policy.Direction
		want    string
	}{
		{"the first goes out at once", 0, ptr(sample("shop/evil", "shop/db", 22)), 0, "denied shop/evil-1 ×1"},
		{"its repeat waits", time.Second, ptr(sample("shop/evil", "shop/db", 22)), 0, ""},
		{"another client is another alert", 0, ptr(sample("shop/web", "shop/db", 22)), 0, "denied shop/web-1 ×1"},
		{"another port too", 0, ptr(sample("shop/evil", "shop/db", 23)), 0, "denied shop/evil-1 ×1"},
		{"and another verdict", 0, func() *Alert { a := sample("shop/evil", "shop/db", 22); a.Verdict = policy.Alert; return &a }(), 0, "denied shop/evil-1 ×1"},
		{"more repeats wait", 30 * time.Second, ptr(sample("shop/evil", "shop/db", 22)), 0, ""},
		{"the window ends: one update, those without repeats are silent", 31 * time.Second, nil, 0, "denied shop/evil-1 ×3"},
		{"the next begins a new window", 0, ptr(sample("shop/evil", "shop/db", 22)), policy.Egress, "denied shop/evil-1 ×1"},
		{"the other end reports the same", 0, ptr(sample("shop/evil", "shop/db", 22)), policy.Ingress, ""},
		{"which is no repeat", 2 * time.Minute, nil, 0, ""},
	}
	for _, st := range steps {
		c.forward(st.forward)
		got := f.Due()
		if st.add != nil {
			got = append(got, f.Add(*st.add, st.from)...)
		}
		if short(got) != st.want {
			t.Errorf("%s: got %q, want %q", st.name, short(got), st.want)
		}
	}
	if len(f.seen) != 0 || len(f.order) != 0 {
		t.Errorf("%d keys remembered after all windows ended", len(f.seen))
	}
}

func TestFoldIsBounded(t *testing.T) {
	c := &clock{morning}
	f := &Folder{Now: c.read, Keys: 10}
	f.Add(sample("shop/evil", "shop/db", 1), 0)
	f.Add(sample("shop/evil", "shop/db", 1), 0)
	var sent []Alert
	for port := uint16(2); port <= 100; port++ {
		sent = append(sent, f.Add(sample("shop/evil", "shop/db", port), 0)...)
	}
	if len(f.seen) != 10 || len(sent) != 100 {
		t.Errorf("%d keys, %d alerts; want 10 keys, and 99 alerts with the early update of the first", len(f.seen), len(sent))
	}
	if a := sent[9]; a.Port != 1 || a.Count != 2 {
		t.Errorf("port %d ×%d went out when the eleventh came; want the update of port 1", a.Port, a.Count)
	}
	f.Add(sample("shop/evil", "shop/db", 100), 0)
	if got := f.Flush(); short(got) != "denied shop/evil-1 ×2" {
		t.Errorf("Flush gave %q", short(got))
	}
}

func ptr(a Alert) *Alert { return &a }
