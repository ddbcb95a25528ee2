package attack

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// version lets the attacker ask the outsider one port more, whose number is the version. What the other
// policies deny stays denied, whichever version is in force.
const version = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: version, namespace: shop}
spec:
  podSelector: {matchLabels: {app: attacker}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: outsider}}}], ports: [{port: %d, protocol: UDP}]}]
`

// TestThreat13: the daemon is killed at any instant of one change after the other, over and over. The
// rules stay in force and nothing denied gets through; the state is the last version that was
// acknowledged or one that was under way, whole; and the kernel holds the same version (THREATS row 13).
// Full disk and clock: daemon/restart_test.go and daemon/expiry_test.go. Faults of netlink:
// firewall/fault_test.go.
func TestThreat13(t *testing.T) {
	w := enter(t, false)
	w.be(t, up)
	sent, known, kills := 20000, 0, 0 // versions: the newest that was asked for, and the newest acknowledged
	apply := func() error {
		sent++
		c := w.client()
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), ready)
		defer cancel()
		_, err := c.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "version.yaml", Data: fmt.Sprintf(version, sent)}}})
		if err == nil {
			known = sent
		}
		return err
	}
	must(t, apply())
	t.Cleanup(func() {
		c := w.client()
		defer c.Close()
		must(t, c.DeletePolicy(context.Background(), "NetworkPolicy", "shop", "version"))
	})
	w.trading(t, "before the crashes")
	try(t, w, 13, trick{name: "crash_loop_during_changes", run: func(a *attempt) error {
		for kills = range 8 {
			over := make(chan struct{})
			go func() { // ends with the daemon
				defer close(over)
				for apply() == nil {
				}
			}()
			for until := time.Now().Add(time.Duration(kills*67%300) * time.Millisecond); time.Now().Before(until); {
				if err := toVictim(a); err != nil {
					return err
				}
			}
			if err := w.kill(); err != nil {
				return err
			}
			<-over
			if err := errors.Join(toVictim(a), w.start()); err != nil {
				return err
			}
		}
		return nil
	}}, up)
	w.trading(t, "after the crashes")
	stored := storedVersion(t, w)
	t.Logf("versions: %d sent, %d acknowledged, %d in the state, after %d kills", sent-20000, known-20000, stored-20000, kills+1)
	if stored < known || stored > sent {
		t.Errorf("version %d is in the state; acknowledged was %d, the last sent %d", stored, known, sent)
	}
	if !eventually(func() bool { return slices.Equal(kernelVersions(t, w), []int{stored}) }) {
		t.Errorf("the kernel holds versions %v, the state %d", kernelVersions(t, w), stored)
	}
}

// storedVersion is the version that the daemon has.
func storedVersion(t *testing.T, w *arena) int {
	t.Helper()
	c := w.client()
	defer c.Close()
	list, err := c.Policies(context.Background())
	must(t, err)
	for _, p := range list {
		if p.Name == "version" {
			return portIn(p.YAML)
		}
	}
	t.Fatalf("no version is in the state: %+v", list)
	return 0
}

var versionPort = regexp.MustCompile(`\b2[0-9]{4}\b`)

func portIn(text string) int {
	n, _ := strconv.Atoi(versionPort.FindString(text))
	return n
}

// kernelVersions are the versions that the attacker's namespace lets out.
func kernelVersions(t *testing.T, w *arena) (out []int) {
	t.Helper()
	list, err := shell("ip netns exec " + w.attacker.netns + " nft list set inet bulkhead egress4")
	must(t, err)
	for _, m := range versionPort.FindAllString(strings.ReplaceAll(list, "\n", " "), -1) {
		n, _ := strconv.Atoi(m)
		out = append(out, n)
	}
	return out
}
