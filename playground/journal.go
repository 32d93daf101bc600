package playground

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// Journal is what was done to the cluster, in order: a line of JSON for each change of
// its topology, nodes, clocks and faults that succeeded, with the number of requests
// that had reached its nodes before, fit for Replay. "do" and the other fields are a verb
// of ControlHandler and its request.
func (c *Cluster) Journal() []byte { return c.journal.bytes() }

// Replay does a journal's changes again, each once as many requests have reached the
// cluster's nodes: before the next one is handled, or as soon as none is being handled,
// those left aside that faults hold. Those whose time has come are done when Replay
// returns. On a cluster that was started with the same options and gets the same
// requests, the changes are the same, and so are the ids of regions and stores.
//
// A change that fails is logged, and the others go on. A fault with functions (Before,
// After, Mangle) cannot be done again: such a journal is refused, as is one that is
// damaged.
func (c *Cluster) Replay(journal []byte) error {
	verbs := c.verbs(make(map[uint64]uint64))
	var steps []fault.Step
	for n, line := range bytes.Split(journal, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		at, do, request, err := journalLine(line)
		if err != nil {
			return fmt.Errorf("playground: line %d of the journal is damaged: %w", n+1, err)
		}
		v, ok := verbs[do]
		if !ok {
			return fmt.Errorf("playground: line %d of the journal has %q, which is no change", n+1, do)
		}
		run, err := v(request)
		if err != nil {
			return fmt.Errorf("playground: line %d of the journal: %s", n+1, strings.TrimPrefix(err.Error(), "playground: "))
		}
		steps = append(steps, fault.Step{At: at, Do: func() {
			if _, err := run(); err != nil {
				c.logger.Warn("replayed change failed", slog.String("do", do), slog.Any("error", err))
			}
		}})
	}
	if !slices.IsSortedFunc(steps, func(a, b fault.Step) int { return a.At - b.At }) {
		return errors.New("playground: the journal's counts of requests go back")
	}
	c.faults.Schedule(steps)
	return c.faults.Settle(c.root.Context())
}

// journalLine takes a line apart: its count of requests, its verb, and the verb's request.
func journalLine(line []byte) (at int, do string, request []byte, err error) {
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(line, &fields); err != nil {
		return 0, "", nil, err
	}
	if err := json.Unmarshal(fields["at"], &at); err != nil {
		return 0, "", nil, err
	}
	if err := json.Unmarshal(fields["do"], &do); err != nil {
		return 0, "", nil, err
	}
	if at < 0 {
		return 0, "", nil, errors.New("a negative count of requests")
	}
	delete(fields, "at")
	delete(fields, "do")
	request, err = json.Marshal(fields)
	return at, do, request, err
}

// journal is the record, and the faults at work by their numbers.
type journal struct {
	mu         sync.Mutex
	lines      bytes.Buffer
	last       uint64 // number of a fault
	at         int    // of the last line: counts do not go back
	injections map[uint64]*Injection
}

func (j *journal) bytes() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Clone(j.lines.Bytes())
}

// add writes a line: {"at":...,"do":...} and the fields of args.
func (j *journal) add(at int, do string, args any) {
	data, err := json.Marshal(args)
	if err != nil { // no argument type has what JSON cannot say
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.at = max(j.at, at)
	fmt.Fprintf(&j.lines, `{"at":%d,"do":%q`, j.at, do)
	if len(data) > len("{}") {
		j.lines.WriteByte(',')
	}
	j.lines.Write(data[1:])
	j.lines.WriteByte('\n')
}

func (j *journal) begin(i *Injection) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.injections == nil {
		j.injections = make(map[uint64]*Injection)
	}
	j.last++
	j.injections[j.last] = i
	return j.last
}

func (j *journal) end(id uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.injections, id)
}

func (j *journal) injection(id uint64) *Injection {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.injections[id]
}

func (j *journal) all() []uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(maps.Keys(j.injections))
}

// note begins a change; what it returns is to be deferred, and records the change if it
// succeeded.
func (c *Cluster) note(do string, args any, err *error) func() {
	at := c.counter.Total()
	return func() {
		if *err == nil {
			c.journal.add(at, do, args)
		}
	}
}

// noted is note for what does not fail.
func (c *Cluster) noted(do string, args any) func() {
	var none error
	return c.note(do, args, &none)
}
