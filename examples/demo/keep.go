package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// hints tells how to play with the shop that KEEP=1 leaves up.
func (s *stage) hints(t *teller) {
	bulkhead := fmt.Sprintf("%s --lab %s", filepath.Join(s.bin, "bulkhead"), s.lab.Name)
	lab := filepath.Join(s.bin, "bulkhead-lab")
	attacker, err := s.graph.PodOf(attackerService)
	victim, err2 := s.graph.PodOf(victimService)
	if err != nil || err2 != nil {
		return // the battle has found both before
	}
	t.say("")
	t.say("The shop stays up. Five commands to try:")
	for _, line := range []string{
		bulkhead + " workloads",
		bulkhead + " flows -f",
		bulkhead + " explain " + attackerService + " " + victimService + " TCP/6379",
		bulkhead + " rules " + podName(attacker) + " --guard",
		fmt.Sprintf("%s exec --name %s %s -- %s attack connect -to %s", lab, s.lab.Name, podName(attacker),
			filepath.Join(s.bin, "shop"), net.JoinHostPort(victim.Addrs[0].String(), "6379")),
	} {
		t.command(line)
	}
	t.say("Take it down with: %s down --name %s; rm -r %s", lab, s.lab.Name, s.dir)
}

func read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
