package shop

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// Count is what one client did over one edge. A call is counted when it has ended.
type Count struct {
	Client    string `json:"client"`
	Server    string `json:"server"`
	Protocol  string `json:"protocol"`
	Port      uint16 `json:"port"` // the server's own
	Calls     uint64 `json:"calls"`
	Failures  uint64 `json:"failures"` // of Calls
	LastError string `json:"lastError,omitempty"`
}

// Report is the file that a player keeps up to date: one Count per edge of its service.
type Report struct {
	Part   string  `json:"part"`
	Counts []Count `json:"counts"`
}

// ledger counts for all callers of one player.
type ledger struct {
	mu     sync.Mutex
	report Report
}

// add makes a row for an edge and returns its number.
func (l *ledger) add(e Edge) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Counts = append(l.report.Counts, Count{Client: e.From, Server: e.To, Protocol: e.Protocol, Port: e.Port})
	return len(l.report.Counts) - 1
}

func (l *ledger) count(row int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.report.Counts[row]
	c.Calls++
	if err != nil {
		c.Failures++
		c.LastError = err.Error()
	}
}

// write replaces the file whole, so that a reader never sees half of it.
func (l *ledger) write(path string) error {
	l.mu.Lock()
	b, err := json.Marshal(l.report)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.Rename(path+".new", path)
}

// ReadReport reads what a player wrote.
func ReadReport(path string) (Report, error) {
	var r Report
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
