package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every change reaches every node, with and without loss, within a few of the intervals in which nodes
// compare what they hold; and it costs each node a few packets.
func TestSimulate(t *testing.T) {
	for _, loss := range []int{0, 20} {
		r := simulate(plan{Nodes: 20, Loss: loss, Changes: 20, Seed: 1, Rate: 2})
		if r.Last50 <= 0 || r.Last50 > time.Second || r.Node50 > r.Last50 || r.Last99 > 30*time.Second {
			t.Errorf("%d %% loss: half of the changes took %v to the last node, 99 %% %v", loss, r.Last50, r.Last99)
		}
		if r.PerChange < 300 || r.PerChange > 20_000 {
			t.Errorf("%d %% loss: a change costs a node %.0f bytes", loss, r.PerChange)
		}
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	picture := filepath.Join(t.TempDir(), "spread.svg")
	if err := run(strings.Fields("-nodes 5 -loss 0 -changes 5 -churn 1000 -seed 1 -plot "+picture), &out); err != nil {
		t.Fatal(err)
	}
	if svg, err := os.ReadFile(picture); err != nil || !bytes.Contains(svg, []byte("0 % lost, 99 %")) {
		t.Errorf("the picture: %v\n%s", err, svg)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines, want a title, a head and one row:\n%s", lines, &out)
	}
	if err := run([]string{"-nodes", "many"}, &out); err == nil {
		t.Error("a size that is no number is taken")
	}
}
