package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// The picture's size and the frame of each of its panels, in pixels.
const (
	panelWidth, panelHeight  = 560, 440
	left, right, top, bottom = 60, 530, 40, 390
	legendRow                = 18
)

// curve is one way's ratio by the number of pairs; what was not measured is left out.
type curve struct {
	name   string
	points map[int]ratio
}

var colours = []color.RGBA{{27, 108, 168, 255}, {120, 170, 210, 255}, {200, 85, 61, 255}, {230, 160, 60, 255}, {58, 125, 68, 255}, {123, 75, 148, 255}, {90, 90, 90, 255}}

// plot draws a panel for each kind of traffic, side by side: pairs against the ratio to no rules, with the
// interval of each ratio.
func plot(path string, sizes []int, titles []string, panels [][]curve) error {
	rows := len(panels[0])
	img := image.NewRGBA(image.Rect(0, 0, panelWidth*len(panels), panelHeight+legendRow*rows+10))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	for i, p := range panels {
		panel{img, i * panelWidth, sizes}.draw(titles[i], p)
	}
	for i, c := range panels[0] {
		y := panelHeight + legendRow*i
		line(img, left, y, left+30, y, colours[i%len(colours)])
		text(img, left+40, y+4, c.name)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(f, img); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

type panel struct {
	img   *image.RGBA
	at    int
	sizes []int
}

func (p panel) x(n int) int {
	lo, hi := math.Log(float64(p.sizes[0])), math.Log(float64(p.sizes[len(p.sizes)-1]))
	return p.at + left + int(float64(right-left)*(math.Log(float64(n))-lo)/max(hi-lo, 1e-9))
}

// y puts ratios from 0 to 1.1.
func (p panel) y(v float64) int { return bottom - int(float64(bottom-top)*min(max(v, 0), 1.1)/1.1) }

func (p panel) draw(title string, curves []curve) {
	grey := color.RGBA{220, 220, 220, 255}
	text(p.img, p.at+left, 24, title+": no rules / with rules (1: free)")
	for v := 0.0; v < 1.05; v += 0.2 {
		line(p.img, p.at+left, p.y(v), p.at+right, p.y(v), grey)
		text(p.img, p.at+left-30, p.y(v)+4, fmt.Sprintf("%.1f", v))
	}
	for _, n := range p.sizes {
		line(p.img, p.x(n), top, p.x(n), bottom, grey)
		text(p.img, p.x(n)-15, bottom+18, fmt.Sprint(n))
	}
	text(p.img, p.at+left+150, bottom+36, "allowed (peer, port) pairs")
	for i, c := range curves {
		col, last := colours[i%len(colours)], 0
		for _, n := range p.sizes {
			r, ok := c.points[n]
			if !ok {
				last = 0
				continue
			}
			if last != 0 {
				line(p.img, p.x(last), p.y(c.points[last].value), p.x(n), p.y(r.value), col)
			}
			x := p.x(n) + 2*i - len(curves) // side by side, so that intervals do not hide each other
			line(p.img, x, p.y(r.low), x, p.y(r.high), col)
			last = n
		}
	}
}

// line is two pixels thick.
func line(img *image.RGBA, x0, y0, x1, y1 int, c color.RGBA) {
	n := max(abs(x1-x0), abs(y1-y0), 1)
	for i := range n + 1 {
		x, y := x0+(x1-x0)*i/n, y0+(y1-y0)*i/n
		img.SetRGBA(x, y, c)
		img.SetRGBA(x, y+1, c)
	}
}

func abs(n int) int { return max(n, -n) }

func text(img *image.RGBA, x, y int, s string) {
	d := font.Drawer{Dst: img, Src: image.Black, Face: basicfont.Face7x13, Dot: fixed.P(x, y)}
	d.DrawString(s)
}
