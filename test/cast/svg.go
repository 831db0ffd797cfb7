package main

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// The size of a character cell, and of the margin.
const cellWidth, cellHeight, margin = 9, 21, 14

// picture makes an animated SVG: SMIL alone, no script, no style sheet, nothing from elsewhere.
// Where nothing moves, it shows the end.
func picture(t *terminal, title string, length time.Duration) string {
	var b strings.Builder
	width, height := columns*cellWidth+2*margin, rows*cellHeight+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", width, height, width, height, escape(title))
	fmt.Fprintf(&b, "<title>%s</title>\n", escape(title))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#16181d"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<svg x="%d" y="%d" width="%d" height="%d">`+"\n", margin, margin, columns*cellWidth, rows*cellHeight)
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="15" xml:space="preserve" transform="translate(0 %d)">`+"\n",
		-cellHeight*t.scrolls[len(t.scrolls)-1].top)
	var tops, times []string
	for _, s := range t.scrolls {
		tops, times = append(tops, fmt.Sprintf("0 %d", -cellHeight*s.top)), append(times, share(s.from, length))
	}
	fmt.Fprintf(&b, `<animateTransform attributeName="transform" type="translate" calcMode="discrete" dur="%.1fs" repeatCount="indefinite" values="%s" keyTimes="%s"/>`+"\n",
		length.Seconds(), strings.Join(tops, ";"), strings.Join(times, ";"))
	for _, l := range t.seen {
		visibility, values, keys := "visible", "hidden;visible", "0;"+share(l.from, length)
		if l.to > 0 {
			visibility, values, keys = "hidden", values+";hidden", keys+";"+share(l.to, length)
		}
		fmt.Fprintf(&b, `<text y="%d" textLength="%d" fill="%s" visibility="%s">%s`, (l.number+1)*cellHeight-6, len([]rune(l.text))*cellWidth, colour(l.text), visibility, escape(l.text))
		if l.from > 0 || l.to > 0 {
			fmt.Fprintf(&b, `<animate attributeName="visibility" calcMode="discrete" dur="%.1fs" repeatCount="indefinite" values="%s" keyTimes="%s"/>`, length.Seconds(), values, keys)
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n</svg>\n")
	return b.String()
}

// share is a time as a part of the whole.
func share(at, length time.Duration) string {
	return fmt.Sprintf("%.4g", at.Seconds()/length.Seconds())
}

// colour tells the typed lines, and those of the machine, from those of the program.
func colour(text string) string {
	switch {
	case strings.HasPrefix(text, "$ "):
		return "#8fd3ff"
	case strings.HasPrefix(text, "# "):
		return "#9be08f"
	case strings.HasPrefix(text, "["):
		return "#f2c879"
	}
	return "#e6e6e6"
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
