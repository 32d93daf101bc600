package fault

import "encoding/binary"

// Mangled is an answer whose encoding a rule is to change before it is sent.
type Mangled struct {
	Answer any
	Change func(encoded []byte) []byte
}

// mangle adds a change to an answer, after those it has.
func mangle(answer any, change func([]byte) []byte) any {
	if m, ok := answer.(Mangled); ok {
		return Mangled{m.Answer, func(b []byte) []byte { return change(m.Change(b)) }}
	}
	return Mangled{answer, change}
}

// Rewrap changes the body of a message that consists of one field of bytes: its tag
// stays, its length becomes that of the new body. What is no such message is returned
// as it is.
func Rewrap(message []byte, change func([]byte) []byte) []byte {
	_, tag := binary.Uvarint(message)
	if tag <= 0 {
		return message
	}
	size, n := binary.Uvarint(message[tag:])
	if n <= 0 || size != uint64(len(message)-tag-n) {
		return message
	}
	return AppendField(message[:tag:tag], change(message[tag+n:]))
}

// AppendField appends the length of body, and body, to a tag.
func AppendField(tag, body []byte) []byte {
	return append(binary.AppendUvarint(tag, uint64(len(body))), body...)
}
