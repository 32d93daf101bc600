package fault

import (
	"errors"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
)

// Record is a call and what became of it.
type Record struct {
	Call
	KeyCount    int
	At          time.Time
	Took        time.Duration
	RegionError uint8
	Dropped     bool
}

// Trace records the calls that end from its beginning until Stop.
type Trace struct {
	set     *Set
	records []Record // guarded by the set's lock
}

// Trace begins a record.
func (s *Set) Trace() *Trace {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &Trace{set: s}
	s.traces = append(s.traces, t)
	s.activate()
	return t
}

// Records returns what was recorded so far, in the order in which the calls ended.
func (t *Trace) Records() []Record {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	return slices.Clone(t.records)
}

// Stop ends the record, which stays.
func (t *Trace) Stop() {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.set.traces = slices.DeleteFunc(t.set.traces, func(o *Trace) bool { return o == t })
	t.set.activate()
}

func (s *Set) record(c *Call, began time.Time, answer any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.traces) == 0 {
		return
	}
	r := Record{Call: *c, KeyCount: len(c.keys()), At: began, Took: time.Since(began)}
	if m, ok := answer.(Mangled); ok {
		answer = m.Answer
	}
	if a, ok := answer.(interface{ GetRegionError() *errorpb.Error }); ok {
		r.RegionError = KindOf(a.GetRegionError())
	}
	r.Dropped = errors.Is(err, ErrDropped) || errors.Is(err, ErrDisconnect)
	r.Keys = nil
	for _, t := range s.traces {
		t.records = append(t.records, r)
	}
}

// Waiting lists the calls that rules hold or delay now, the oldest first.
func (s *Set) Waiting() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Record
	for _, i := range s.rules {
		for c, since := range i.waiting {
			r := Record{Call: *c, KeyCount: len(c.keys()), At: since}
			r.Keys = nil
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return a.At.Compare(b.At) })
	return all
}
