package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tikv-go/tikv"
)

// output is how results are printed.
type output struct {
	format format
	style  string
}

// The styles, as --output takes them.
const (
	styleTable = "table"
	styleJSON  = "json"
	styleRaw   = "raw"
)

// formatFlag is for every command that takes a key, styleFlag for those that print.
func (o *output) formatFlag(cmd *cobra.Command) {
	o.format = formatEscaped
	cmd.Flags().Var(&o.format, "format", "how keys and values are written, in arguments and in output")
}

func (o *output) styleFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.style, "output", "o", styleTable, "a table, one JSON object a line, or bytes as they are: `table|json|raw`")
}

func (o *output) check() error {
	switch o.style {
	case "", styleTable, styleJSON, styleRaw:
		return nil
	}
	return &usageError{fmt.Errorf("--output %q: must be table, json or raw", o.style)}
}

// json writes objects, one a line. JSON has no bytes: what is no UTF-8 would be changed.
func (o *output) json(w io.Writer) func(jsonPair) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(p jsonPair) error {
		if !utf8.ValidString(p.Key) || p.Value != nil && !utf8.ValidString(*p.Value) {
			return &usageError{fmt.Errorf("key %s or its value is no text, which JSON needs: use another --format than raw", escape([]byte(p.Key)))}
		}
		return enc.Encode(p)
	}
}

// value prints the one value that get found.
func (o *output) value(std stdio, key, value []byte) error {
	var err error
	switch o.style {
	case styleRaw:
		_, err = std.out.Write(value)
	case styleJSON:
		err = o.json(std.out)(jsonPair{o.format.encode(key), ptr(o.format.encode(value))})
	default:
		_, err = fmt.Fprintln(std.out, o.format.encode(value))
	}
	return err
}

type jsonPair struct {
	Key   string  `json:"key"`
	Value *string `json:"value,omitempty"`
}

func ptr(s string) *string { return &s }

// flushEvery is how many rows of a table share the width of their columns.
const flushEvery = 200

// pairs prints pairs as they come. Close writes what is left.
type pairs struct {
	o        *output
	keysOnly bool
	rows     int
	buf      *bufio.Writer
	tab      *tabwriter.Writer
	json     func(jsonPair) error
}

func (o *output) pairs(std stdio, keysOnly bool) *pairs {
	p := &pairs{o: o, keysOnly: keysOnly, buf: bufio.NewWriter(std.out)}
	p.tab = tabwriter.NewWriter(p.buf, 0, 8, 2, ' ', 0)
	p.json = o.json(p.buf)
	return p
}

func (p *pairs) write(kv tikv.Pair) error {
	p.rows++
	key, value := kv.Key, kv.Value
	switch p.o.style {
	case styleJSON:
		row := jsonPair{Key: p.o.format.encode(key)}
		if !p.keysOnly {
			row.Value = ptr(p.o.format.encode(value))
		}
		return p.json(row)
	case styleRaw:
		p.buf.Write(key)
		if !p.keysOnly {
			p.buf.WriteByte('\t')
			p.buf.Write(value)
		}
		return p.buf.WriteByte('\n')
	}
	if p.rows == 1 {
		p.header()
	}
	line := p.o.format.encode(key)
	if !p.keysOnly {
		line += "\t" + p.o.format.encode(value)
	}
	if _, err := fmt.Fprintln(p.tab, line); err != nil {
		return err
	}
	if p.rows%flushEvery == 0 {
		return p.flush()
	}
	return nil
}

func (p *pairs) header() {
	if p.keysOnly {
		fmt.Fprintln(p.tab, "KEY")
	} else {
		fmt.Fprintln(p.tab, "KEY\tVALUE")
	}
}

func (p *pairs) flush() error {
	if err := p.tab.Flush(); err != nil {
		return err
	}
	return p.buf.Flush()
}
