package daemon

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

const adviceDrift = "find out who is root on this node and changes nftables there; in a container nobody can change what is owned"

// odd says why what somebody did is odd, what to do beside the usual, and how bad it is. Where no guard
// stands outside, what is done inside counts for more.
func (w *workload) odd(e firewall.Event) (why, advice string, severity alert.Severity) {
	severity = alert.Critical
	switch {
	case e.Flushed:
		return "somebody tries to be rid of the rules", "", severity
	case e.Kind == firewall.EventNftables:
		return "rules beside ours let nothing through that ours drop, but they can hide and rewrite packets", "", severity
	case w.guarded():
		severity = alert.High
	}
	switch e.Kind {
	case firewall.EventLink:
		why = "a way out beside the one that the runtime gave it; what is sent is judged by the namespace's rules and by the guard of the interface by which it leaves the node"
	case firewall.EventAddress:
		why = "another sender than the runtime gave it; the guard drops what is sent from it"
	case firewall.EventRoute:
		why = "packets go another way; whom they may reach is the same"
	case firewall.EventTraffic:
		why = "traffic control stands behind the namespace's rules and can rewrite what they let out; the guard judges it again"
	case firewall.EventSysctl:
		why = "it changes whose packets are taken or passed on; the rules are the same"
		advice = "see whether the pod's own settings (sysctls) ask for it; else find out what runs there with CAP_NET_ADMIN, and drop that capability"
	}
	if !w.guarded() {
		why += "; this workload has an interface without an end on the host, where no guard stands"
	}
	return why, advice, severity
}

// guarded says whether a guard stands on the host's end of each interface.
func (w *workload) guarded() bool {
	return !slices.ContainsFunc(w.stored().Interfaces, func(i StoredInterface) bool { return i.HostIndex == 0 })
}

// tellGap alerts, once each, of what an interface without an end on the host leaves open.
func (w *workload) tellGap(warnings []string) {
	w.mu.Lock()
	told := w.gaps
	w.gaps = slices.Clone(warnings)
	w.mu.Unlock()
	for _, text := range warnings {
		if !slices.Contains(told, text) {
			w.alert(alert.Tampering{Time: w.d.now(), What: text, Harmless: true, Severity: alert.Medium,
				Advice: "use a network whose interfaces are veth pairs (bridge, ptp), or drop CAP_NET_RAW and CAP_NET_ADMIN in this workload"})
		}
	}
}

// culpritsShown bounds how many processes an alert names.
const culpritsShown = 3

// culprit finds who asked the kernel for a change by its netlink port, which is by default the number
// of the process in its own PID namespace; others are those that are in the network namespace now,
// where none has that number any more. It is asked of /proc at most once in a while.
func (w *workload) culprit(port uint32) (process string, pid int, others []string) {
	var st unix.Stat_t
	if unix.Stat(w.stored().NetNS, &st) != nil || !w.d.culprits.due() {
		return "", 0, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return "", 0, nil
	}
	inside := fmt.Sprintf("net:[%d]", st.Ino)
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n == os.Getpid() {
			continue
		}
		if link, err := os.Readlink("/proc/" + e.Name() + "/ns/net"); err != nil || link != inside {
			continue
		}
		name, own := processStatus(n)
		if port != 0 && uint32(own) == port {
			return name, n, nil
		}
		if len(others) < culpritsShown {
			others = append(others, fmt.Sprintf("%s (pid %d)", name, n))
		}
	}
	return "", 0, others
}

// processStatus gives a process's name, made printable, and its number in its own PID namespace.
func processStatus(pid int) (name string, own int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "?", 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case key == "Name":
			name = strings.Trim(strconv.QuoteToASCII(strings.TrimSpace(value)), `"`)
		case key == "NSpid" && len(fields) > 0:
			own, _ = strconv.Atoi(fields[len(fields)-1])
		}
	}
	return name, own
}

// culpritsPace is how often /proc is searched at most, for all workloads together.
const culpritsPace = 200 * time.Millisecond

// culprits says when /proc was searched last.
type culprits struct{ last atomic.Int64 } // Unix nanoseconds

func (c *culprits) due() bool {
	now, last := time.Now().UnixNano(), c.last.Load()
	return now-last >= int64(culpritsPace) && c.last.CompareAndSwap(last, now)
}
