package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const measured = `goos: linux
BenchmarkChange/workloads=100/policies=10/touched-2   378  276556 ns/op  196.2 cpu-µs/op  4.000 workloads/op  51322 B/op  408 allocs/op
BenchmarkChange/workloads=100/policies=100/touched-2  378  276556 ns/op  629.5 cpu-µs/op  4.000 workloads/op
BenchmarkChange/workloads=100/policies=10/all-2       56   3295473 ns/op  1978 cpu-µs/op  10.00 workloads/op
PASS
`

func TestCurves(t *testing.T) {
	var out bytes.Buffer
	picture := filepath.Join(t.TempDir(), "x.svg")
	if err := run(strings.NewReader(measured), &out, picture); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"| 100 | 10 | 196 (4) | 1978 (10) |", "| 100 | 100 | 630 (4) |"} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("no row %q in\n%s", row, &out)
		}
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
	if !strings.Contains(string(svg), "touched, 100 workloads") || strings.Contains(string(svg), "NaN") {
		t.Errorf("%s", svg)
	}
	if err := run(strings.NewReader("PASS\n"), &out, picture); err == nil {
		t.Error("an input without figures is no error")
	}
}
