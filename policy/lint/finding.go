package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how sure it is that something is wrong. The zero value is the mildest.
type Severity uint8

const (
	Note    Severity = iota // worth knowing; often meant
	Warning                 // most likely not meant
	Error                   // cannot be meant
)

var severityNames = []string{"note", "warning", "error"}

func (s Severity) String() string { return severityNames[s] }

// ParseSeverity reads note, warning or error.
func ParseSeverity(text string) (Severity, error) {
	if i := slices.Index(severityNames, text); i >= 0 {
		return Severity(i), nil
	}
	return 0, fmt.Errorf("severity %q: want note, warning or error", text)
}

func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Severity) UnmarshalText(b []byte) error {
	v, err := ParseSeverity(string(b))
	*s = v
	return err
}

// Finding is one thing that a policy writes and that most likely is not meant.
type Finding struct {
	Check    string   `json:"check"` // one of [Checks]
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`   // from 1; 0: the policy was read from no file
	Column   int      `json:"column,omitempty"` // from 1
	Policy   string   `json:"policy,omitempty"` // "NetworkPolicy shop/cart"
	Path     string   `json:"path,omitempty"`   // "spec.ingress[0].ports[1].port"
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // what to do, a sentence
	Old      string   `json:"old,omitempty"` // the value at the place, where replacing it is the fix
	New      string   `json:"new,omitempty"` // what to put there
}

// Place gives "shop.yaml:14:9", or the policy where there is no file.
func (f Finding) Place() string {
	switch {
	case f.File == "":
		return f.Policy
	case f.Line == 0:
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, max(f.Column, 1))
}

// String is the finding on one line: "shop.yaml:14:9: warning: …; … (service-port)".
func (f Finding) String() string {
	text := fmt.Sprintf("%s: %s: %s", f.Place(), f.Severity, f.Message)
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return fmt.Sprintf("%s (%s)", text, f.Check)
}

// Worst is the highest severity of a list, false when it is empty.
func Worst(findings []Finding) (Severity, bool) {
	if len(findings) == 0 {
		return 0, false
	}
	return slices.MaxFunc(findings, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) }).Severity, true
}

// sortFindings orders by place, the worse first, and drops doubles.
func sortFindings(list []Finding) []Finding {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, int(b.Severity)-int(a.Severity),
			strings.Compare(a.Policy, b.Policy), strings.Compare(a.Path, b.Path), strings.Compare(a.Check, b.Check), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(list)
}

// splitPlace reads "shop.yaml:14:9" or "shop.yaml:14"; file names may hold colons.
func splitPlace(place string) (file string, line, column int) {
	rest, last, ok := cutLast(place)
	if !ok {
		return place, 0, 0
	}
	if file, before, two := cutLast(rest); two {
		return file, before, last
	}
	return rest, last, 1
}

func cutLast(s string) (string, int, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 0, false
	}
	n := 0
	if _, err := fmt.Sscanf(s[i+1:], "%d", &n); err != nil || fmt.Sprint(n) != s[i+1:] {
		return s, 0, false
	}
	return s[:i], n, true
}
