package tikv

import (
	"math"
	"strconv"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/txn"
)

type (
	// SnapshotOption is an option of Client.Snapshot.
	SnapshotOption interface{ applySnapshot(*readConfig) }
	// SnapshotAtOption is an option of Client.SnapshotAt.
	SnapshotAtOption interface{ applySnapshotAt(*readConfig) }
	// BeginOption is an option of Client.Begin.
	BeginOption interface{ applyBegin(*txnConfig) }
	// RunOption is an option of Client.RunTxn.
	RunOption interface{ applyRun(*txnConfig) }
	// WriteOption is an option of Txn.Put, Insert and Delete.
	WriteOption interface{ applyWrite(*writeConfig) }

	// ReadOption is an option of every kind of snapshot.
	ReadOption interface {
		SnapshotOption
		SnapshotAtOption
		applyLatest(*readConfig)
	}
	// TxnOption is an option of Begin and RunTxn.
	TxnOption interface {
		BeginOption
		RunOption
	}
	// CommitOption is an option of Commit; given to Begin or RunTxn, it is the
	// transaction's default.
	CommitOption interface {
		TxnOption
		applyCommit(*txnConfig)
	}
	// RouteOption is an option of reads and of any-request views, and of transactions,
	// where it concerns what they read.
	RouteOption interface {
		ReadOption
		TxnOption
		RPCOption
	}
)

// readConfig is a snapshot's.
type readConfig struct {
	problems
	view  viewConfig
	route routeConfig

	stale     bool
	staleness time.Duration

	bypass *lockBypass // locks that are not met; nil: none
}

// reading is how views read: what their options say, and what that is for the engine. It is
// not changed any more once a view has it, and views without options share one.
type reading struct {
	cfg  readConfig
	opts txn.ReadOptions
}

// routeConfig is how a snapshot or a transaction reads.
type routeConfig struct {
	isolation   Isolation
	noFillCache bool
	replica     replicaConfig
}

// txnConfig is a transaction's.
type txnConfig struct {
	problems
	view  viewConfig
	route routeConfig

	startTS           Timestamp // 0: a fresh one
	maxAttempts       int       // 0: no limit
	maxKeys, maxBytes int       // 0: no limit
	assertions        AssertionLevel
	commit            commitConfig
	pessimisticAfter  int // conflicts; 0: never
	// What few use is reached through their options, and linked with them alone. The types
	// are not told: the linker keeps all methods of what an option's type leads to.
	pessimism any // txn.Pessimistic(); nil: optimistic
	handed    any // begunFunc
	lockFirst any // lockFirst
	pipeline  any // layFunc
}

// The kinds of options. set returns what is wrong with the value, or nothing.
type (
	routeOption struct {
		name string
		set  func(*routeConfig) string
	}
	beginOption struct {
		name string
		set  func(*txnConfig) string
	}
	runOption struct {
		name string
		set  func(*txnConfig) string
	}
	txnOption struct {
		name string
		set  func(*txnConfig) string
	}
	commitOption struct {
		name string
		set  func(*txnConfig) string
	}
)

func (o viewOption) applySnapshot(c *readConfig)   { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applySnapshotAt(c *readConfig) { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyLatest(c *readConfig)     { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyBegin(c *txnConfig)       { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyRun(c *txnConfig)         { c.add(o.name, o.set(&c.view)) }

func (o routeOption) applySnapshot(c *readConfig)   { c.add(o.name, o.set(&c.route)) }
func (o routeOption) applySnapshotAt(c *readConfig) { c.add(o.name, o.set(&c.route)) }
func (o routeOption) applyLatest(c *readConfig)     { c.add(o.name, o.set(&c.route)) }
func (o routeOption) applyBegin(c *txnConfig)       { c.add(o.name, o.set(&c.route)) }
func (o routeOption) applyRun(c *txnConfig)         { c.add(o.name, o.set(&c.route)) }

func (o beginOption) applyBegin(c *txnConfig) { c.add(o.name, o.set(c)) }
func (o runOption) applyRun(c *txnConfig)     { c.add(o.name, o.set(c)) }
func (o txnOption) applyBegin(c *txnConfig)   { c.add(o.name, o.set(c)) }
func (o txnOption) applyRun(c *txnConfig)     { c.add(o.name, o.set(c)) }

func (o commitOption) applyBegin(c *txnConfig)  { c.add(o.name, o.set(c)) }
func (o commitOption) applyRun(c *txnConfig)    { c.add(o.name, o.set(c)) }
func (o commitOption) applyCommit(c *txnConfig) { c.add(o.name, o.set(c)) }

// WithStartTS makes the transaction read as of ts, which must have been issued. The
// default is a fresh timestamp.
func WithStartTS(ts Timestamp) BeginOption {
	return beginOption{"WithStartTS", func(c *txnConfig) string {
		c.startTS = ts
		if ts == 0 || ts == math.MaxUint64 {
			return "is not a timestamp"
		}
		return ""
	}}
}

// WithMaxAttempts ends RunTxn after n attempts; 1 is never again. The default is to go
// on until ctx ends.
func WithMaxAttempts(n int) RunOption {
	return runOption{"WithMaxAttempts", func(c *txnConfig) string { c.maxAttempts = n; return atLeastOne(n) }}
}

// WithTxnLimits bounds the keys and the bytes of keys and values that a transaction
// buffers: a write beyond is refused with ErrTooLarge, and changes nothing. In a pipelined
// transaction it first makes all that is buffered be flushed.
func WithTxnLimits(keys, bytes int) TxnOption {
	return txnOption{"WithTxnLimits", func(c *txnConfig) string {
		c.maxKeys, c.maxBytes = keys, bytes
		if keys < 1 || bytes < 1 {
			return "must be at least one"
		}
		return ""
	}}
}

// WithNoFillCache keeps what is read out of TiKV's block cache.
func WithNoFillCache() RouteOption {
	return routeOption{"WithNoFillCache", func(c *routeConfig) string { c.noFillCache = true; return "" }}
}

// WithIsolation chooses what reads see of other transactions. The default is
// IsolationSnapshot.
func WithIsolation(i Isolation) RouteOption {
	return routeOption{"WithIsolation", func(c *routeConfig) string {
		c.isolation = i
		if i > IsolationRCCheckTS {
			return "is not known: " + strconv.Itoa(int(i))
		}
		return ""
	}}
}

// Isolation is what a read sees of other transactions.
type Isolation uint8

// The isolation levels.
const (
	IsolationSnapshot  Isolation = iota
	IsolationRC                  // read committed: ignores locks
	IsolationRCCheckTS           // ErrWriteConflict if there is anything newer
)

// String is the level in a word.
func (i Isolation) String() string {
	switch i {
	case IsolationSnapshot:
		return "snapshot"
	case IsolationRC:
		return "rc"
	case IsolationRCCheckTS:
		return "rc-check-ts"
	}
	return "Isolation(" + strconv.Itoa(int(i)) + ")"
}

func (i Isolation) wire() kvrpcpb.IsolationLevel {
	switch i {
	case IsolationRC:
		return kvrpcpb.IsolationLevel_RC
	case IsolationRCCheckTS:
		return kvrpcpb.IsolationLevel_RCCheckTS
	}
	return kvrpcpb.IsolationLevel_SI
}

// readOptions are the engine's form of both. What a leader alone can tell, whether there is
// anything newer, no replica is asked for.
func (c *Client) readOptions(v viewConfig, r routeConfig, stale bool) txn.ReadOptions {
	replica := r.replica
	if r.isolation == IsolationRCCheckTS {
		replica, stale = replicaConfig{}, false
	}
	return txn.ReadOptions{
		CallOptions: txn.CallOptions{Priority: v.priority.wire(), RequestSource: v.source, RetryFor: v.retryFor, Route: c.route(v, replica, stale), Extra: c.extra(v)},
		Isolation:   r.isolation.wire(),
		NoFillCache: r.noFillCache,
	}
}
