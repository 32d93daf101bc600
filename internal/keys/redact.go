package keys

import (
	"encoding/hex"
	"strconv"
)

// Printer shows keys in errors and logs. The zero Printer redacts them.
type Printer struct{ Plain bool }

// Key returns "?N" for a redacted key of N bytes, else its hexadecimal form.
func (p Printer) Key(key []byte) string {
	if p.Plain {
		return hex.EncodeToString(key)
	}
	return "?" + strconv.Itoa(len(key))
}
