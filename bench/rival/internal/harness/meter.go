package harness

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// meter is the difference between two readings of every counter.
type meter struct {
	stats    string
	profiles profiles
	from, to reading
}

// reading is what was counted up to a moment.
type reading struct {
	at     time.Time
	memory runtime.MemStats
	cpu    Usage
	wakes  uint64
	server Stats
}

// begin collects garbage, starts the profiles and reads the counters: last those that
// reading the others would move.
func begin(s Spec) (*meter, error) {
	m := &meter{stats: s.Stats, profiles: profiles{spec: s}}
	runtime.GC()
	if err := m.server(&m.from); err != nil {
		return nil, err
	}
	if err := m.profiles.start(); err != nil {
		return nil, err
	}
	runtime.ReadMemStats(&m.from.memory)
	m.from.wakes, m.from.cpu, m.from.at = wakes(), usage(), time.Now()
	return m, nil
}

func (m *meter) end() error {
	m.to.at, m.to.cpu, m.to.wakes = time.Now(), usage(), wakes()
	runtime.ReadMemStats(&m.to.memory)
	if err := m.profiles.stop(); err != nil {
		return err
	}
	return m.server(&m.to)
}

func (m *meter) server(r *reading) (err error) {
	if m.stats != "" {
		r.server, err = FetchStats(m.stats)
	}
	return err
}

func (m *meter) report(r *Result) {
	a, b := &m.from, &m.to
	r.Seconds, r.GCs, r.RSS = b.at.Sub(a.at).Seconds(), b.memory.NumGC-a.memory.NumGC, rss()
	if r.Ops == 0 {
		return
	}
	n := float64(r.Ops)
	micros := func(d time.Duration) float64 { return float64(d) / 1e3 / n }
	r.Rate = n / r.Seconds
	r.CPU, r.Sys = micros(b.cpu.Total()-a.cpu.Total()), micros(b.cpu.Sys-a.cpu.Sys)
	r.Allocs = float64(b.memory.Mallocs-a.memory.Mallocs) / n
	r.Bytes = float64(b.memory.TotalAlloc-a.memory.TotalAlloc) / n
	r.Wakes = float64(b.wakes-a.wakes) / n

	x, y := &a.server, &b.server
	r.ServerCPU = micros(y.CPU - x.CPU)
	r.Requests, r.Frames = float64(y.Requests-x.Requests)/n, float64(y.Frames-x.Frames)/n
	r.Unary = float64(y.Unary-x.Unary) / n
	if r.Frames > 0 {
		r.PerFrame = r.Requests / r.Frames
	}
	if asked := y.TimestampRequests - x.TimestampRequests; asked > 0 {
		r.Timestamps = float64(y.Timestamps-x.Timestamps) / float64(asked)
	}
}

// wakes is how often a goroutine was set running so far.
func wakes() (n uint64) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	if metrics.Read(s); s[0].Value.Kind() == metrics.KindFloat64Histogram {
		for _, c := range s[0].Value.Float64Histogram().Counts {
			n += c
		}
	}
	return n * 8 // the runtime samples one in eight
}
