package tikv

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// CallStats is what calls cost, summed: those of a transaction (Txn.Stats), or of the views
// that a Recorder was given to.
type CallStats struct {
	RPCs     int           // requests sent to stores, each attempt for itself
	Elapsed  time.Duration // of all RPCs, which may have been under way together
	Retries  int           // failed attempts, locks that were waited for, failures of PD
	Backoff  time.Duration // waits before another attempt, but for locks
	Locks    int           // of other transactions, that were in the way
	LockWait time.Duration // waits for locks, in the queues of TiKV as well
	Resolve  time.Duration // finding out about locks and removing them, its RPCs included
	Lookup   time.Duration // until PD has told where regions are

	// Of transactions; timestamps also of snapshots.
	Timestamps time.Duration // until PD has given them
	Locking    time.Duration // Lock and its kin
	Latches    time.Duration // waits that WithLocalLatches makes
	Prewrite   time.Duration // writing locks with values, in one phase the commit as well
	Commit     time.Duration // writing the commit record that decides

	// What costs something to count: it is 0 in the Stats of a transaction without
	// WithRecorder, unless the client has a TxnHook.
	Keys                     int // that requests named; for those of ranges see Server
	BytesSent, BytesReceived int // of requests and answers, encoded
	ByMethod                 map[Method]MethodStats
	ByReason                 map[Reason]ReasonStats
	Server                   ServerStats
	RequestUnits             float64 // of TiKV's work, as its resource control weighs it
}

// MethodStats is what the RPCs of one method cost.
type MethodStats struct {
	RPCs    int
	Elapsed time.Duration
	Slowest RPCStats
}

// RPCStats is one RPC.
type RPCStats struct {
	Addr              string
	StoreID, RegionID uint64 // RegionID is 0 for a call to a store
	Elapsed           time.Duration
	Server            ServerStats
}

// ReasonStats is what was met for one reason.
type ReasonStats struct {
	Retries int
	Wait    time.Duration // because of it, before another attempt
}

// ServerStats is what TiKV says that answers took, as far as it does: nothing of raw calls
// and of scans.
type ServerStats struct {
	Total                 time.Duration // of the RPC in TiKV
	Wait, Process         time.Duration // waiting and working
	Suspend               time.Duration // giving way to others
	KVRead                time.Duration // reading; of Get and BatchGet nearly all
	GRPCProcess, GRPCWait time.Duration // in TiKV's gRPC, before and after

	ProcessedKeys, ProcessedBytes uint64 // versions that reads were after
	ScannedKeys, ScannedBytes     uint64 // versions that they went over, those included
	DeletesSkipped, KeysSkipped   uint64 // by RocksDB: tombstones, internal keys
	BlockCacheHits, BlockReads    uint64
	BlockReadBytes                uint64
	BlockRead                     time.Duration
	Snapshot                      time.Duration // getting RocksDB's snapshot, read index included
	ReadIndexPropose              time.Duration
	ReadIndexConfirm              time.Duration
	PoolQueue                     time.Duration // until the read pool's turn
	RemoteHits, RemoteReads       uint64        // of segments kept elsewhere
	RemoteReadBytes               uint64
	RemoteRead                    time.Duration

	WriteBytes uint64 // that writes handed to the Raft store
	Write      WriteStats
	Pool       PoolStats
}

// WriteStats is where TiKV's writes spent their time: in its scheduler, in Raft, in
// applying what Raft agreed on.
type WriteStats struct {
	LatchWait, Process, Throttle, LockWait             time.Duration // LockWait: for pessimistic locks
	BatchWait, ProposeWait                             time.Duration
	PersistLog, LogLeaderWait, LogSync, LogMemtable    time.Duration
	CommitLog                                          time.Duration // until peers have agreed
	ApplyWait, Apply                                   time.Duration
	ApplyMutex, ApplyLeaderWait, ApplyWAL, ApplyMemory time.Duration
}

// PoolStats is what tasks in TiKV's read pool took, where TiKV tracks that.
type PoolStats struct {
	Tasks, Polls, Dispatches    uint64
	Elapsed                     time.Duration
	QueueWait, MaxQueueWait     time.Duration // until a worker takes up what is ready
	WakeWait, MaxWakeWait       time.Duration // until what waits is ready
	PollCPU, MaxPollCPU         time.Duration
	PollElapsed, MaxPollElapsed time.Duration
	FairQueued                  uint64 // tasks that were in the fair queue
	SlicesAhead, MaxSlicesAhead uint64 // of others, that went first there
}

// figures is the part of it that is always counted.
func figures(count func(router.Figure) int64) CallStats {
	d := func(f router.Figure) time.Duration { return time.Duration(count(f)) }
	return CallStats{
		RPCs: int(count(router.RPCs)), Elapsed: d(router.RPCTime),
		Retries: int(count(router.Retries)), Backoff: d(router.BackoffTime),
		Locks: int(count(router.LocksMet)), LockWait: d(router.LockWait), Resolve: d(router.ResolveTime),
		Lookup: d(router.LookupTime), Timestamps: d(router.TimestampTime),
		Locking: d(router.LockTime), Latches: d(router.LatchTime), Prewrite: d(router.PrewriteTime), Commit: d(router.CommitTime),
	}
}

// serverStats gives names to what TiKV says: the numbers are kvproto's.
func serverStats(d *wire.Details) ServerStats {
	ns := func(n uint64) time.Duration { return time.Duration(n) }
	t, s, w, p := &d.Time, &d.Scan, &d.Write, &d.Pool
	return ServerStats{
		Wait: ns(t[1]), Process: ns(t[2]), Suspend: ns(t[3]), KVRead: ns(t[4]), Total: ns(t[5]), GRPCProcess: ns(t[6]), GRPCWait: ns(t[7]),

		ProcessedKeys: s[1], ScannedKeys: s[2], DeletesSkipped: s[3], KeysSkipped: s[4], BlockCacheHits: s[5], BlockReads: s[6],
		BlockReadBytes: s[7], ProcessedBytes: s[8], BlockRead: ns(s[9]), Snapshot: ns(s[10]), ReadIndexPropose: ns(s[11]),
		ReadIndexConfirm: ns(s[12]), PoolQueue: ns(s[13]), ScannedBytes: s[14],
		RemoteHits: s[15], RemoteReads: s[16], RemoteReadBytes: s[17], RemoteRead: ns(s[18]),

		WriteBytes: d.RU[5],
		Write: WriteStats{
			BatchWait: ns(w[1]), ProposeWait: ns(w[2]), PersistLog: ns(w[3]), LogLeaderWait: ns(w[4]), LogSync: ns(w[5]), LogMemtable: ns(w[6]),
			CommitLog: ns(w[7]), ApplyWait: ns(w[8]), Apply: ns(w[9]), ApplyMutex: ns(w[10]), ApplyLeaderWait: ns(w[11]), ApplyWAL: ns(w[12]),
			ApplyMemory: ns(w[13]), LatchWait: ns(w[14]), Process: ns(w[15]), Throttle: ns(w[16]), LockWait: ns(w[17]),
		},
		Pool: PoolStats{
			Tasks: d.Pools, Polls: p[1], Dispatches: p[2], Elapsed: ns(p[3]), QueueWait: ns(p[4]), MaxQueueWait: ns(p[5]),
			WakeWait: ns(p[7]), MaxWakeWait: ns(p[8]), FairQueued: p[10], SlicesAhead: p[11], MaxSlicesAhead: p[12],
			PollCPU: ns(p[14]), MaxPollCPU: ns(p[15]), PollElapsed: ns(p[17]), MaxPollElapsed: ns(p[19]),
		},
	}
}

// requestUnits weighs TiKV's work; writes are the requests that wrote. The weights are those
// that TiDB's resource control charges by (client-go config/client.go,
// DefaultRUV2TiKVConfig): of blocks that were not cached, rows that executors took in,
// their turns, bytes that coprocessors answered, bytes written, keys read.
func requestUnits(d *wire.Details, writes int) float64 {
	units := 0.09642181 * float64(writes)
	for field, weight := range [...]float64{1: 0.45975389, 3: 0.05775369, 4: 0.00000087, 5: 0.000061, 6: 0.00266791, 7: 0.01416829} {
		units += weight * float64(d.RU[field])
	}
	return 2.1 * (units + 0.0000315*float64(d.Inputs))
}

// Add returns the sum of s and o, and changes neither.
func (s CallStats) Add(o CallStats) CallStats {
	both := s
	sum(reflect.ValueOf(&both).Elem(), reflect.ValueOf(o))
	both.ByMethod, both.ByReason = joined(s.ByMethod, o.ByMethod, MethodStats.add), joined(s.ByReason, o.ByReason, ReasonStats.add)
	return both
}

func (m MethodStats) add(o MethodStats) MethodStats {
	if m.RPCs, m.Elapsed = m.RPCs+o.RPCs, m.Elapsed+o.Elapsed; o.Slowest.Elapsed > m.Slowest.Elapsed {
		m.Slowest = o.Slowest
	}
	return m
}

func (r ReasonStats) add(o ReasonStats) ReasonStats {
	return ReasonStats{r.Retries + o.Retries, r.Wait + o.Wait}
}

// joined has what is in a or b, and the sum of what is in both.
func joined[K comparable, V any](a, b map[K]V, add func(V, V) V) map[K]V {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	out := make(map[K]V, max(len(a), len(b)))
	maps.Copy(out, a)
	for k, v := range b {
		if was, ok := out[k]; ok {
			v = add(was, v)
		}
		out[k] = v
	}
	return out
}

// sum adds the numbers of from to those of into. Those that are called Max are maxima.
func sum(into, from reflect.Value) {
	for i := range into.NumField() {
		a, b := into.Field(i), from.Field(i)
		most := strings.HasPrefix(into.Type().Field(i).Name, "Max")
		switch a.Kind() {
		case reflect.Int, reflect.Int64:
			if n := a.Int() + b.Int(); most {
				a.SetInt(max(a.Int(), b.Int()))
			} else {
				a.SetInt(n)
			}
		case reflect.Uint64:
			if n := a.Uint() + b.Uint(); most {
				a.SetUint(max(a.Uint(), b.Uint()))
			} else {
				a.SetUint(n)
			}
		case reflect.Float64:
			a.SetFloat(a.Float() + b.Float())
		case reflect.Struct:
			sum(a, b)
		}
	}
}

// String is one line: what there is of the figures, in order.
func (s CallStats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d RPCs", s.RPCs)
	if s.RPCs > 0 {
		fmt.Fprintf(&b, " in %v", s.Elapsed)
	}
	each(&b, s.ByMethod, func(m MethodStats) int { return m.RPCs })
	count(&b, "retries", s.Retries)
	each(&b, s.ByReason, func(r ReasonStats) int { return r.Retries })
	count(&b, "locks", s.Locks)
	count(&b, "keys", s.Keys)
	count(&b, "bytes sent", s.BytesSent)
	count(&b, "bytes received", s.BytesReceived)
	times(&b, "", reflect.ValueOf(s), "Elapsed")
	if s.RequestUnits > 0 {
		fmt.Fprintf(&b, ", %.3f request units", s.RequestUnits)
	}
	count(&b, "keys read", int(s.Server.ProcessedKeys))
	count(&b, "keys scanned", int(s.Server.ScannedKeys))
	count(&b, "bytes written", int(s.Server.WriteBytes))
	times(&b, "TiKV ", reflect.ValueOf(s.Server))
	times(&b, "TiKV write ", reflect.ValueOf(s.Server.Write))
	times(&b, "TiKV pool ", reflect.ValueOf(s.Server.Pool))
	return b.String()
}

func count(b *strings.Builder, what string, n int) {
	if n > 0 {
		fmt.Fprintf(b, ", %d %s", n, what)
	}
}

// each lists what there is by its name.
func each[K comparable, V any](b *strings.Builder, all map[K]V, n func(V) int) {
	var parts []string
	for k, v := range all {
		if n(v) > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", k, n(v)))
		}
	}
	if slices.Sort(parts); len(parts) > 0 {
		fmt.Fprintf(b, " (%s)", strings.Join(parts, ", "))
	}
}

// times lists the times of a struct by their names, but for those left out.
func times(b *strings.Builder, prefix string, v reflect.Value, but ...string) {
	for i := range v.NumField() {
		d, ok := v.Field(i).Interface().(time.Duration)
		if name := v.Type().Field(i).Name; ok && d > 0 && !slices.Contains(but, name) {
			fmt.Fprintf(b, ", %s%s %v", prefix, strings.ToLower(name), d)
		}
	}
}
