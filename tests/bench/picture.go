// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"text/template"
)

// bar is an observer's in the picture.
type bar struct {
	Label        string
	Y            int
	Read, Open   int // instructions added
	ReadW, OpenW float64
	Delivered    string
}

// draw returns the costs as a bar chart.
func draw(costs []cost) ([]byte, error) {
	if len(costs) < 2 || costs[0].Observer != unobserved {
		return nil, errors.New("draw the costs: there is nothing to compare")
	}
	const step, width = 46, 420.0
	longest := 1
	for _, c := range costs[1:] {
		_, openRead := c.added(costs[0])
		longest = max(longest, openRead)
	}
	var bars []bar
	for i, c := range costs[1:] {
		b := bar{
			Label: html.EscapeString(c.Observer), Y: 70 + i*step,
			Delivered: fmt.Sprintf("%.2f %% delivered", 100*c.Delivered),
		}
		b.Read, b.Open = c.added(costs[0])
		b.ReadW = width * float64(max(0, b.Read)) / float64(longest)
		b.OpenW = width * float64(max(0, b.Open)) / float64(longest)
		bars = append(bars, b)
	}
	var out bytes.Buffer
	err := chart.Execute(&out, map[string]any{"Bars": bars, "Height": 80 + len(bars)*step})
	return out.Bytes(), err
}

var chart = template.Must(template.New("chart").Funcs(template.FuncMap{
	"add":   func(a, b int) int { return a + b },
	"after": func(w float64) float64 { return w + 296 },
}).Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{{.Height}}" font-family="sans-serif" font-size="13">
<rect width="800" height="{{.Height}}" fill="white"/>
<text x="10" y="24" font-size="16">Instructions that an observer adds to who opens and reads</text>
<rect x="290" y="38" width="12" height="12" fill="#1b6ca8"/><text x="308" y="49">cached pread of 4 KiB</text>
<rect x="480" y="38" width="12" height="12" fill="#e08e45"/><text x="498" y="49">open, pread, close</text>
{{range .Bars}}<text x="10" y="{{add .Y 12}}">{{.Label}}</text><text x="10" y="{{add .Y 28}}" fill="#666">{{.Delivered}}</text>
<rect x="290" y="{{.Y}}" width="{{printf "%.1f" .ReadW}}" height="14" fill="#1b6ca8"/><text x="{{printf "%.1f" (after .ReadW)}}" y="{{add .Y 12}}">{{.Read}}</text>
<rect x="290" y="{{add .Y 16}}" width="{{printf "%.1f" .OpenW}}" height="14" fill="#e08e45"/><text x="{{printf "%.1f" (after .OpenW)}}" y="{{add .Y 28}}">{{.Open}}</text>
{{end}}</svg>
`))
