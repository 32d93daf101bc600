package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// format is how keys and values are written on the command line and in output.
type format string

// The formats, as --format takes them.
const (
	formatRaw     format = "raw"
	formatEscaped format = "escaped"
	formatHex     format = "hex"
	formatBase64  format = "base64"
)

func (f *format) Set(s string) error {
	switch v := format(s); v {
	case formatRaw, formatEscaped, formatHex, formatBase64:
		*f = v
		return nil
	}
	return fmt.Errorf("must be raw, escaped, hex or base64")
}

func (f *format) String() string { return string(*f) }

// Type names the flag's values in the help text.
func (f *format) Type() string { return "raw|escaped|hex|base64" }

// decode reads bytes that were written in the format.
func (f format) decode(s string) ([]byte, error) {
	var b []byte
	var err error
	switch f {
	case formatHex:
		b, err = hex.DecodeString(s)
	case formatBase64:
		b, err = base64.StdEncoding.DecodeString(s)
	case formatEscaped:
		b, err = unescape(s)
	default:
		b = []byte(s)
	}
	if err != nil {
		return nil, &usageError{fmt.Errorf("'%s' is not --format %s: %w", s, f, err)}
	}
	return b, nil
}

// encode writes b in the format.
func (f format) encode(b []byte) string {
	switch f {
	case formatHex:
		return hex.EncodeToString(b)
	case formatBase64:
		return base64.StdEncoding.EncodeToString(b)
	case formatEscaped:
		return escape(b)
	}
	return string(b)
}

const hexDigits = "0123456789abcdef"

// escape leaves printable ASCII as it is, doubles the backslash, and writes all other
// bytes as \xNN, but \n, \r and \t.
func escape(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		switch {
		case c == '\\':
			s.WriteString(`\\`)
		case c == '\n':
			s.WriteString(`\n`)
		case c == '\r':
			s.WriteString(`\r`)
		case c == '\t':
			s.WriteString(`\t`)
		case c >= ' ' && c <= '~':
			s.WriteByte(c)
		default:
			s.WriteString(`\x`)
			s.WriteByte(hexDigits[c>>4])
			s.WriteByte(hexDigits[c&15])
		}
	}
	return s.String()
}

// unescape reverses escape. Bytes that escape would have escaped may also stand for
// themselves, so that UTF-8 can be typed.
func unescape(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, fmt.Errorf("a lone backslash at the end")
		}
		switch s[i] {
		case '\\':
			b = append(b, '\\')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case '0':
			b = append(b, 0)
		case 'x':
			if i+2 >= len(s) {
				return nil, fmt.Errorf(`\x needs two digits`)
			}
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return nil, fmt.Errorf(`\x%s: not hexadecimal`, s[i+1:i+3])
			}
			b = append(b, c[0])
			i += 2
		default:
			return nil, fmt.Errorf(`unknown escape \%c; a backslash is written \\`, s[i])
		}
	}
	return b, nil
}
