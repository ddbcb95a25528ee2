package lint_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// TestReport: the log is what testdata/report.sarif holds, which was checked against the standard's
// schema.
func TestReport(t *testing.T) {
	findings := []lint.Finding{
		lint.Syntax("a b/shop.yaml", errors.New("a b/shop.yaml:14:9: port 70000: out of range 1-65535")),
		{
			Check: "service-port", Severity: lint.Warning, File: "shop.yaml", Line: 7, Column: 11, Policy: "NetworkPolicy shop/api",
			Path: "spec.ingress[0].ports[0].port", Message: "80 is the port of Service shop/api; its pods listen on 8080", Fix: "write port: 8080", Old: "80", New: "8080",
		},
		{Check: "converted", Policy: "ClusterNetworkPolicy /a", Message: "read from AdminNetworkPolicy"},
	}
	got, err := json.MarshalIndent(lint.Report(findings, "v1"), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const name = "testdata/report.sarif"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestSyntax: what Parse says of a file becomes a finding at that place.
func TestSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"x.yaml:14:9: port 70000: out of range":                 "x.yaml:14:9: error: port 70000: out of range (syntax)",
		"x.yaml: and 3 more errors":                             "x.yaml: error: x.yaml: and 3 more errors (syntax)",
		"read policies: x.yaml is larger than 4 MiB; split it!": "x.yaml: error: read policies: x.yaml is larger than 4 MiB; split it! (syntax)",
	} {
		if got := lint.Syntax("x.yaml", errors.New(text)).String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
