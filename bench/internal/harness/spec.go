// Package harness drives one client of TiKV in a closed loop and counts what an operation
// costs its process. A run is a process of its own: it reads a Spec on standard input and
// writes a Result to standard output (Serve), so that clients that cannot live in one
// program, nor in one module, are measured alike.
//
// The package needs nothing but the standard library: bench/rival, which is a module of its
// own, has a copy of it, and a test keeps the two equal.
package harness

import (
	"fmt"
	"time"
)

// Workload is what the callers of a run do, over and over.
type Workload struct {
	Name  string
	Keys  KeyKind
	About string
	// Most is the number of operations after which a run ends early; 0 is no limit.
	Most int
}

// KeyKind says which keys a workload uses: they lie in regions whose borders are written
// differently.
type KeyKind string

// The kinds of keys.
const (
	NoKeys  KeyKind = ""
	RawKeys KeyKind = "raw"
	TxnKeys KeyKind = "txn"
)

// Workloads are all that a client may be asked for.
var Workloads = []Workload{
	{Name: "rawget", Keys: RawKeys, About: "raw get of a present key"},
	{Name: "rawput", Keys: RawKeys, About: "raw put"},
	{Name: "rawbatchget50", Keys: RawKeys, About: "raw batch get of 50 keys all over the key space"},
	{Name: "rawscan100", Keys: RawKeys, About: "raw scan of 100 pairs"},
	{Name: "snapget", Keys: TxnKeys, About: "get in a new snapshot of a known timestamp"},
	{Name: "snapbatchget50", Keys: TxnKeys, About: "batch get of 50 keys in a new snapshot of a known timestamp"},
	{Name: "tso", Keys: TxnKeys, About: "a fresh timestamp"},
	{Name: "txn2pc", Keys: TxnKeys, About: "transaction of one key, two-phase commit"},
	{Name: "txnasync", Keys: TxnKeys, About: "transaction of one key, async commit"},
	{Name: "txn1pc", Keys: TxnKeys, About: "transaction of one key, one-phase commit"},
	{Name: "txnpess", Keys: TxnKeys, About: "pessimistic transaction that locks and writes one key"},
	{Name: "txn1000", Keys: TxnKeys, About: "transaction of 1,000 keys all over the key space"},
	{Name: "txn100k", Keys: TxnKeys, About: "transaction of 100,000 keys", Most: 4},
	{Name: "noop", Keys: NoKeys, About: "nothing: what the harness itself costs"},
}

// Find returns a workload by name.
func Find(name string) (Workload, error) {
	for _, w := range Workloads {
		if w.Name == name {
			return w, nil
		}
	}
	return Workload{}, fmt.Errorf("there is no workload %q", name)
}

// Spec is one run.
type Spec struct {
	Workload string
	Callers  int
	PD       []string
	Stats    string `json:",omitempty"` // where the null store counts; empty: nobody does

	// A timed run takes Dur after a warm-up of Warm. A counted one, with Ops above 0, is
	// WarmOps operations and then exactly Ops.
	Warm, Dur    time.Duration
	WarmOps, Ops int

	Keys, KeySize, ValueSize int

	// Procs is how many processors the client's goroutines share; 0 is as many as there are.
	Procs int `json:",omitempty"`

	// Files for profiles of what is measured; empty: none.
	CPUProfile, MemProfile, MutexProfile, Trace string `json:",omitempty"`
}

// Result is what a run cost. What is "per operation" is the client's process alone, all of it.
type Result struct {
	Client     string  `json:"client"` // what it is, with its version
	Ops        uint64  `json:"ops"`
	Errors     uint64  `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"ops_s"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	CPU        float64 `json:"cpu_us_op"` // user and system
	Sys        float64 `json:"sys_us_op"`
	Allocs     float64 `json:"allocs_op"`
	Bytes      float64 `json:"bytes_op"`
	GCs        uint32  `json:"gcs"`
	Wakes      float64 `json:"wakes_op"`        // goroutines set running; the runtime samples one in eight
	Goroutines int     `json:"goroutines"`      // the most that a caller saw after an operation, callers included
	Idle       int     `json:"idle_goroutines"` // those that the client keeps when no one calls it
	RSS        int64   `json:"rss_kib"`         // 0 where the system does not say

	// From the null store's counters.
	Requests   float64 `json:"requests_op"`
	Frames     float64 `json:"frames_op"`
	PerFrame   float64 `json:"requests_frame"` // 0: no frames
	Unary      float64 `json:"unary_op"`
	Timestamps float64 `json:"timestamps_request"` // for each request to PD; 0: none
	ServerCPU  float64 `json:"server_cpu_us_op"`
}
