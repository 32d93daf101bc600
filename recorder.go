package tikv

import (
	"sync"
	"time"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// Recorder sums the cost of the calls of every view it was given to (WithRecorder). Its zero
// value is ready; it is safe for concurrent use. What it counts of a call has been counted
// when the call returns; what a transaction leaves to be done behind it (secondary keys,
// unlocks) comes later.
type Recorder struct {
	mu      sync.Mutex
	figures [router.Figures]int64
	keys    int
	sent    int
	got     int
	writes  int // answered with details
	methods map[Method]*methodCount
	reasons map[Reason]ReasonStats
	server  wire.Details
}

type methodCount struct {
	MethodStats
	slowest []byte // its details, encoded
}

// Stats returns the sum so far.
func (r *Recorder) Stats() CallStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats()
}

// Reset returns the sum so far, and starts again.
func (r *Recorder) Reset() CallStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats()
	r.figures, r.keys, r.sent, r.got, r.writes = [router.Figures]int64{}, 0, 0, 0, 0
	r.methods, r.reasons, r.server = nil, nil, wire.Details{}
	return s
}

func (r *Recorder) stats() CallStats {
	s := figures(func(f router.Figure) int64 { return r.figures[f] })
	s.Keys, s.BytesSent, s.BytesReceived = r.keys, r.sent, r.got
	s.Server, s.RequestUnits = serverStats(&r.server), requestUnits(&r.server, r.writes)
	s.ByReason = joined(r.reasons, nil, ReasonStats.add)
	if len(r.methods) > 0 {
		s.ByMethod = make(map[Method]MethodStats, len(r.methods))
	}
	for name, m := range r.methods {
		stats := m.MethodStats
		stats.Slowest.Server = detailed(m.slowest)
		s.ByMethod[name] = stats
	}
	return s
}

// detailed is what one answer's details say.
func detailed(details []byte) ServerStats {
	var d wire.Details
	d.Add(details)
	return serverStats(&d)
}

// grow adds to a figure.
func (r *Recorder) grow(f router.Figure, why Reason, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures[f] += n
	var of ReasonStats
	switch f {
	case router.Retries:
		of.Retries = int(n)
	case router.BackoffTime, router.LockWait:
		of.Wait = time.Duration(n)
	default:
		return
	}
	if r.reasons == nil {
		r.reasons = make(map[Reason]ReasonStats)
	}
	r.reasons[why] = r.reasons[why].add(of)
}

// saw counts an RPC.
func (r *Recorder) saw(info *CallInfo, res *CallResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures[router.RPCs]++
	r.figures[router.RPCTime] += int64(res.Elapsed)
	r.keys, r.sent, r.got = r.keys+info.Keys, r.sent+info.RequestBytes, r.got+res.ResponseBytes
	if r.server.Add(res.details); info.Write && len(res.details) > 0 {
		r.writes++
	}
	m := r.methods[info.Method]
	if m == nil {
		m = &methodCount{}
		if r.methods == nil {
			r.methods = make(map[Method]*methodCount)
		}
		r.methods[info.Method] = m
	}
	m.RPCs++
	m.Elapsed += res.Elapsed
	if m.RPCs == 1 || res.Elapsed > m.Slowest.Elapsed {
		m.Slowest = RPCStats{Addr: info.Addr, StoreID: info.StoreID, RegionID: info.RegionID, Elapsed: res.Elapsed}
		m.slowest = res.details
	}
}

// Count implements router.Watch.
func (w *watch) Count(f router.Figure, why router.Reason, n int64) {
	for _, r := range w.recorders {
		r.grow(f, Reason(why), n)
	}
}

// WithRecorder adds what each call costs to r, and to the recorders of Open and of options
// before. A call costs little more for it: its requests and answers are measured, and what
// TiKV says of its work is read.
func WithRecorder(r *Recorder) ViewOption {
	return viewOption{"WithRecorder", func(c *viewConfig) string {
		if r == nil {
			return "needs a recorder"
		}
		w := watchOf(c.watch)
		w.recorders, c.watch = append(w.recorders, r), w
		return ""
	}}
}
