// Command curves turns what `go test -bench BenchmarkChange ./policy` prints into a table (standard
// output) and a picture of it (the file named).
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
)

// point is one measured cost.
type point struct {
	workloads, policies int
	how                 string  // "touched", "all", or another tree's name
	cost                float64 // µs of CPU time a change
	sides               float64 // workloads whose sides were worked out
}

var (
	lineOf = regexp.MustCompile(`^BenchmarkChange/workloads=(\d+)/policies=(\d+)/([a-z]+)`)
	cpuOf  = regexp.MustCompile(`([\d.]+) cpu-µs/op`)
	doneOf = regexp.MustCompile(`([\d.]+) workloads/op`)
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -run '^$' -bench BenchmarkChange ./policy | go run ./test/bench/curves FILE.svg")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "curves:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, picture string) error {
	points, err := read(in)
	if err != nil {
		return err
	}
	if len(points) == 0 {
		return fmt.Errorf("no line of BenchmarkChange with cpu-µs/op in the input")
	}
	table(out, points)
	return os.WriteFile(picture, draw(points), 0o644)
}

func read(in io.Reader) ([]point, error) {
	var out []point
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		head := lineOf.FindStringSubmatch(lines.Text())
		cpu, done := cpuOf.FindStringSubmatch(lines.Text()), doneOf.FindStringSubmatch(lines.Text())
		if head == nil || cpu == nil || done == nil {
			continue
		}
		p := point{how: head[3]}
		p.workloads, _ = strconv.Atoi(head[1]) // the patterns let only numbers through
		p.policies, _ = strconv.Atoi(head[2])
		p.cost, _ = strconv.ParseFloat(cpu[1], 64)
		p.sides, _ = strconv.ParseFloat(done[1], 64)
		out = append(out, p)
	}
	return out, lines.Err()
}

// ways lists what was measured, in the order of the input.
func ways(points []point) []string {
	var out []string
	for _, p := range points {
		if !slices.Contains(out, p.how) {
			out = append(out, p.how)
		}
	}
	return out
}

func table(out io.Writer, points []point) {
	hows := ways(points)
	fmt.Fprint(out, "| workloads | policies |")
	for _, how := range hows {
		fmt.Fprintf(out, " %s, µs (workloads) |", how)
	}
	fmt.Fprint(out, "\n|---|---|")
	for range hows {
		fmt.Fprint(out, "---|")
	}
	fmt.Fprintln(out)
	for _, row := range points {
		if row.how != hows[0] {
			continue
		}
		fmt.Fprintf(out, "| %d | %d |", row.workloads, row.policies)
		for _, how := range hows {
			for _, p := range points {
				if p.how == how && p.workloads == row.workloads && p.policies == row.policies {
					fmt.Fprintf(out, " %.0f (%.0f) |", p.cost, p.sides)
				}
			}
		}
		fmt.Fprintln(out)
	}
}
