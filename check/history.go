package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// History is what callers were told in one run: transactions or calls.
type History struct {
	Head
	Txns  []Txn
	Calls []Call
}

// Head is how a history came about, and what is wrong with it.
type Head struct {
	Kind     Kind      `json:"kind"`
	Seed     uint64    `json:"seed"`
	Schedule string    `json:"schedule"`
	Found    []Anomaly `json:"found,omitempty"`
}

// Kind is what a history consists of.
type Kind string

// The kinds.
const (
	Lists     Kind = "lists"     // Txns
	Registers Kind = "registers" // Calls
)

// Check returns what cannot have happened. limit bounds the search for an order of the
// calls of one key: beyond it is an error.
func (h *History) Check(limit time.Duration) ([]Anomaly, error) {
	switch h.Kind {
	case Lists:
		return CheckTxns(h.Txns)
	case Registers:
		return CheckCalls(h.Calls, limit)
	}
	return nil, fmt.Errorf("check: histories of kind %q are not known", h.Kind)
}

// Operations is how many reads and writes of a key there are.
func (h *History) Operations() int {
	n := len(h.Calls)
	for i := range h.Txns {
		n += len(h.Txns[i].Ops)
	}
	return n
}

// Write writes the history: its head, and each transaction or call, in a line of JSON.
func (h *History) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	err := enc.Encode(h.Head)
	for i := range h.Txns {
		err = errors.Join(err, enc.Encode(&h.Txns[i]))
	}
	for i := range h.Calls {
		err = errors.Join(err, enc.Encode(&h.Calls[i]))
	}
	return errors.Join(err, out.Flush())
}

// ReadHistory reads what Write wrote.
func ReadHistory(r io.Reader) (*History, error) {
	h := new(History)
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h.Head); err != nil {
		return nil, fmt.Errorf("check: the head of a history: %w", err)
	}
	var err error
	for err == nil {
		switch h.Kind {
		case Lists:
			var t Txn
			if err = dec.Decode(&t); err == nil {
				h.Txns = append(h.Txns, t)
			}
		case Registers:
			var c Call
			if err = dec.Decode(&c); err == nil {
				h.Calls = append(h.Calls, c)
			}
		default:
			err = fmt.Errorf("histories of kind %q are not known", h.Kind)
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("check: %w", err)
	}
	return h, nil
}
