package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The picture's size and the frame of its curves, in pixels.
const (
	width, height            = 720, 440
	left, right, top, bottom = 70, 520, 40, 380
)

// draw gives the curves as SVG: nodes, logarithmic, against the time until the last of them has a change.
// A colour for each loss; dashed is the 99th percentile.
func draw(rows []result) []byte {
	var losses []int
	low, high, most := math.Inf(1), 0.0, time.Duration(0)
	for _, r := range rows {
		if !slices.Contains(losses, r.Loss) {
			losses = append(losses, r.Loss)
		}
		low, high, most = min(low, float64(r.Nodes)), max(high, float64(r.Nodes)), max(most, r.Last99)
	}
	x := func(n float64) float64 {
		return left + (right-left)*math.Log(n/low)/max(math.Log(high/low), 1e-9)
	}
	y := func(d time.Duration) float64 { return bottom - (bottom-top)*float64(d)/float64(most) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="22" font-size="14">From a change to the last node that has it (simulated)</text>`+"\n", width, height, left)
	for d := time.Duration(0); d <= most; d += 100 * time.Millisecond {
		fmt.Fprintf(&b, `<path d="M%d %.0fH%d" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%d ms</text>`+"\n", left, y(d), right, left-6, y(d)+4, d.Milliseconds())
	}
	for n := low; n <= high*1.01; n *= 10 {
		fmt.Fprintf(&b, `<path d="M%.0f %dV%d" stroke="#ddd"/><text x="%.0f" y="%d" text-anchor="middle">%.0f</text>`+"\n", x(n), top, bottom, x(n), bottom+18, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">nodes</text>`+"\n", (left+right)/2, bottom+40)
	colours := []string{"#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94"}
	row := 0
	for i, loss := range losses {
		for _, c := range []struct {
			name, dash string
			of         func(result) time.Duration
		}{
			{"half of the changes", "", func(r result) time.Duration { return r.Last50 }},
			{"99 %", "6 4", func(r result) time.Duration { return r.Last99 }},
		} {
			var points []string
			for _, r := range rows {
				if r.Loss == loss {
					points = append(points, fmt.Sprintf("%.1f %.1f", x(float64(r.Nodes)), y(c.of(r))))
				}
			}
			at := top + 10 + 20*row
			row++
			style := fmt.Sprintf(`fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"`, colours[i%len(colours)], c.dash)
			fmt.Fprintf(&b, `<path d="M%s" %s/>`+"\n", strings.Join(points, "L"), style)
			fmt.Fprintf(&b, `<path d="M%d %dh30" %s/><text x="%d" y="%d">%d %% lost, %s</text>`+"\n", right+16, at, style, right+52, at+4, loss, c.name)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
