package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// The picture's size and the frame of its curves, in pixels.
const (
	width, height            = 720, 460
	left, right, top, bottom = 80, 500, 40, 400
)

// draw gives the curves as SVG, both axes logarithmic: policies against the cost of one change. One line
// for each number of workloads (colour) and each way (dashes).
func draw(points []point) []byte {
	low, high := math.Inf(1), 0.0
	first, last := math.Inf(1), 0.0
	var sizes []int
	for _, p := range points {
		low, high = min(low, p.cost), max(high, p.cost)
		first, last = min(first, float64(p.policies)), max(last, float64(p.policies))
		if !slices.Contains(sizes, p.workloads) {
			sizes = append(sizes, p.workloads)
		}
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	x := func(v float64) float64 { return scale(v, first, last, left, right) }
	y := func(v float64) float64 { return scale(v, low, high, bottom, top) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="14">One workload comes or goes: CPU time on a node</text>`+"\n", left)
	for v := low; v <= high*1.01; v *= 10 {
		fmt.Fprintf(&b, `<path d="M%d %.0fH%d" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", left, y(v), right, left-6, y(v)+4, span(v))
	}
	for v := first; v <= last*1.01; v *= 10 {
		fmt.Fprintf(&b, `<path d="M%.0f %dV%d" stroke="#ddd"/><text x="%.0f" y="%d" text-anchor="middle">%.0f</text>`+"\n", x(v), top, bottom, x(v), bottom+18, v)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">policies</text>`+"\n", (left+right)/2, bottom+40)
	colours := []string{"#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94"}
	dashes := []string{"", "6 4", "2 3"}
	row := 0
	for i, how := range ways(points) {
		for k, n := range sizes {
			path, colour, dash := "", colours[k%len(colours)], dashes[i%len(dashes)]
			for _, p := range points {
				if p.how != how || p.workloads != n {
					continue
				}
				verb := "L"
				if path == "" {
					verb = "M"
				}
				path += fmt.Sprintf("%s%.1f %.1f", verb, x(float64(p.policies)), y(p.cost))
			}
			if path == "" {
				continue
			}
			at := top + 10 + 20*row
			row++
			fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"/>`+"\n", path, colour, dash)
			fmt.Fprintf(&b, `<path d="M%d %dh30" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%d">%s, %d workloads</text>`+"\n", right+16, at, colour, dash, right+52, at+4, how, n)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// scale puts a value between two others, on a logarithmic axis.
func scale(v, low, high, from, to float64) float64 {
	if high <= low {
		return from
	}
	return from + (to-from)*math.Log(v/low)/math.Log(high/low)
}

// span is a time in µs with the unit that people read.
func span(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%g s", us/1e6)
	case us >= 1000:
		return fmt.Sprintf("%g ms", us/1000)
	}
	return fmt.Sprintf("%g µs", us)
}
