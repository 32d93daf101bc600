package wire

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of BatchCommandsResponse alone.
const (
	fieldLoad     = 3
	fieldHealth   = 4
	fieldSendTime = 5
)

// Response is a received frame, cut into its parts, which refer to its bytes.
type Response struct {
	Answers  []Answer
	IDs      []uint64 // as many as answers
	Load     uint64   // transport_layer_load: the CPU that TiKV's gRPC uses, in percent
	Health   []byte   // health_feedback, encoded; nil: none
	SendTime uint64   // tikv_send_time_ns
}

// Answer is one answer: its message, encoded, under the field number that its command
// has in BatchCommandsResponse.Response; 0 if there is none.
type Answer struct {
	Command protowire.Number
	Body    []byte
}

// Failures of Parse.
var (
	ErrMalformed = errors.New("wire: malformed frame")
	ErrUnequal   = errors.New("wire: frame with unequal numbers of answers and ids")
)

// Parse cuts a frame. r is valid as long as data is, and its slices are used again.
func (r *Response) Parse(data []byte) error {
	clear(r.Answers)
	*r = Response{Answers: r.Answers[:0], IDs: r.IDs[:0]}
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		if n = r.field(num, typ, data); n < 0 {
			return ErrMalformed
		}
		data = data[n:]
	}
	if len(r.Answers) != len(r.IDs) {
		return ErrUnequal
	}
	return nil
}

// field takes one field from the beginning of data, and returns its length; negative:
// it is malformed.
func (r *Response) field(num protowire.Number, typ protowire.Type, data []byte) (n int) {
	var body []byte
	var value uint64
	switch typ {
	case protowire.BytesType:
		body, n = protowire.ConsumeBytes(data)
	case protowire.VarintType:
		value, n = protowire.ConsumeVarint(data)
	default:
		n = protowire.ConsumeFieldValue(num, typ, data)
	}
	if n < 0 {
		return n
	}
	isBytes := typ == protowire.BytesType
	switch num {
	case fieldCommands:
		a, ok := answer(body)
		if !isBytes || !ok {
			return -1
		}
		r.Answers = append(r.Answers, a)
	case fieldIDs:
		if typ == protowire.VarintType {
			r.IDs = append(r.IDs, value)
		} else if !isBytes || !r.ids(body) {
			return -1
		}
	case fieldLoad, fieldSendTime:
		if typ != protowire.VarintType {
			return -1
		}
		if num == fieldLoad {
			r.Load = value
		} else {
			r.SendTime = value
		}
	case fieldHealth:
		if !isBytes {
			return -1
		}
		r.Health = body
	}
	return n
}

// ids takes packed ids.
func (r *Response) ids(data []byte) bool {
	for len(data) > 0 {
		id, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return false
		}
		r.IDs = append(r.IDs, id)
		data = data[n:]
	}
	return true
}

// answer cuts the one message out of a BatchCommandsResponse.Response; of several, all
// but the last are void.
func answer(data []byte) (a Answer, ok bool) {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return a, false
		}
		data = data[n:]
		if typ == protowire.BytesType {
			body, n := protowire.ConsumeBytes(data)
			if n < 0 {
				return a, false
			}
			a = Answer{Command: num, Body: body}
			data = data[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, data); n < 0 {
			return a, false
		}
		data = data[n:]
	}
	return a, true
}
