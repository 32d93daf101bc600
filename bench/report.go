package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/tikv-go/tikv/bench/internal/harness"
)

// figures are the columns of the tables.
var figures = []struct {
	name string
	of   func(harness.Result) float64
}{
	{"ops/s", func(r harness.Result) float64 { return r.Rate }},
	{"p50 µs", func(r harness.Result) float64 { return r.P50 }},
	{"p99 µs", func(r harness.Result) float64 { return r.P99 }},
	{"CPU µs/op", func(r harness.Result) float64 { return r.CPU }},
	{"allocs/op", func(r harness.Result) float64 { return r.Allocs }},
	{"B/op", func(r harness.Result) float64 { return r.Bytes }},
	{"goroutines", func(r harness.Result) float64 { return float64(r.Goroutines) }},
	{"req/frame", func(r harness.Result) float64 { return r.PerFrame }},
}

// spread is the median of some figures, with the least and the most.
type spread struct{ median, least, most float64 }

func spreadOf(xs []float64) spread {
	if len(xs) == 0 {
		return spread{}
	}
	xs = slices.Sorted(slices.Values(xs))
	mid := len(xs) / 2
	s := spread{xs[mid], xs[0], xs[len(xs)-1]}
	if len(xs)%2 == 0 {
		s.median = (xs[mid-1] + xs[mid]) / 2
	}
	return s
}

func (s spread) String() string {
	if s.least == s.most {
		return number(s.median)
	}
	return fmt.Sprintf("%s [%s..%s]", number(s.median), number(s.least), number(s.most))
}

// number shows three digits, thousands as k and millions as M.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x >= 999_500:
		return digits(x/1e6) + "M"
	case x >= 9_999.5:
		return digits(x/1e3) + "k"
	}
	return digits(x)
}

func digits(x float64) string {
	switch {
	case x >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// each is a figure of all results.
func each(rs []harness.Result, of func(harness.Result) float64) []float64 {
	xs := make([]float64, len(rs))
	for i, r := range rs {
		xs[i] = of(r)
	}
	return xs
}

// ratios are ours to the rival's of the same round, where the rival's is not nothing.
func (r *row) ratios(of func(harness.Result) float64) (xs []float64) {
	for i := range min(len(r.Ours), len(r.Rival)) {
		if theirs := of(r.Rival[i]); theirs > 0 {
			xs = append(xs, of(r.Ours[i])/theirs)
		}
	}
	return xs
}

// lines are a row as the tables show it: a line for each client, then their ratio.
func (r *row) lines() (lines [][]string) {
	line := func(name string, xs func(of func(harness.Result) float64) []float64) {
		l := []string{r.kase.String(), name}
		for _, f := range figures {
			cell := "-"
			if all := xs(f.of); len(all) > 0 {
				cell = spreadOf(all).String()
			}
			l = append(l, cell)
		}
		lines = append(lines, l)
	}
	for _, s := range []struct {
		name string
		all  []harness.Result
	}{{ours, r.Ours}, {clientGo, r.Rival}} {
		if len(s.all) > 0 {
			line(s.name, func(of func(harness.Result) float64) []float64 { return each(s.all, of) })
		}
	}
	if len(r.Ours) > 0 && len(r.Rival) > 0 {
		line("ratio", r.ratios)
	}
	return lines
}

func header() []string {
	h := []string{"case", "client"}
	for _, f := range figures {
		h = append(h, f.name)
	}
	return h
}

func (c *campaign) head() string {
	s := fmt.Sprintf("%s; server: %s; %d rounds; %s", c.Machine, c.Server, c.Rounds, c.Ours)
	if c.Rival != "" {
		s += " against " + c.Rival
	}
	return s
}

func (c *campaign) print(out io.Writer) error {
	fmt.Fprintln(out, c.head())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header(), "\t"))
	for _, r := range c.Rows {
		for _, l := range r.lines() {
			fmt.Fprintln(w, strings.Join(l, "\t"))
		}
	}
	return w.Flush()
}

func (c *campaign) printMarkdown(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Median of %d runs [least..most]; ratios are ours to theirs, pair by pair.\n\n", c.head(), c.Rounds)
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(header(), " | "), strings.Repeat("---|", len(header())))
	for _, r := range c.Rows {
		for _, l := range r.lines() {
			if l[1] == "ratio" {
				for i := range l[1:] {
					l[i+1] = "**" + l[i+1] + "**"
				}
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(l, " | "))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
