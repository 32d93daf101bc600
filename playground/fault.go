package playground

import (
	"fmt"
	"slices"
	"time"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// Inject applies f to matching requests, in the order injected.
func (c *Cluster) Inject(f Fault) *Injection {
	return c.inject(faultArgsOf(f), f)
}

func (c *Cluster) inject(args faultArgs, f Fault) *Injection {
	at := c.counter.Total()
	i := &Injection{cluster: c, injected: c.faults.Inject(fault.Rule{
		Method: f.Method, Node: f.Node.node, Region: f.Region, Mode: uint8(f.Mode), Key: f.Key, StartTS: f.StartTS,
		Skip: f.Skip, Times: f.Times, Chance: f.Chance,
		Delay: f.Delay, Hold: f.Hold, Before: f.Before, DropRequest: f.DropRequest, Duplicate: f.Duplicate,
		RegionError: uint8(f.RegionError), KeyError: uint8(f.KeyError),
		After: f.After, DropAnswer: f.DropAnswer, Disconnect: f.Disconnect, Mangle: f.Mangle,
	})}
	i.id = c.journal.begin(i)
	args.Injection = i.id
	c.journal.add(at, "inject", args)
	return i
}

// Injection is a fault at work.
type Injection struct {
	cluster  *Cluster
	id       uint64
	injected *fault.Injected
}

// Hits is how many requests the fault was applied to.
func (i *Injection) Hits() int { return i.injected.Hits() }

// Waiting is how many requests it holds or delays now.
func (i *Injection) Waiting() int { return i.injected.Waiting() }

// Release lets the requests go on that it holds now; later ones are held.
func (i *Injection) Release() {
	defer i.cluster.noted("release", injectionArgs{i.id})()
	i.injected.Release()
}

// Remove ends the fault and lets the requests go on that it holds.
func (i *Injection) Remove() {
	defer i.cluster.noted("remove", injectionArgs{i.id})()
	i.cluster.journal.end(i.id)
	i.injected.Remove()
}

// Fault is matched by its non-zero fields and does what its non-zero actions say, in
// the order of the fields. A fault without an action counts its hits.
//
// A request that is held or delayed is handled afterwards even if its caller has left,
// like one that was long on its way; only the end of its node forgets it. Each entry of
// a BatchCommands message is a request, and so is each message on a stream of PD; when
// a message of such a stream is dropped the stream stays silent from there on. Each
// message of a change feed is one, too: all that a subscription is sent is its answer.
// A request that a store or a member passes on to another, as its client asks, is one at both.
type Fault struct {
	// Match. Method as in TiKV's or PD's service: "KvPrewrite", "Tso", "QueryRegion".
	Method      string
	Node        Node
	Region      uint64
	Mode        KeyMode
	Key         []byte  // one of the request's, as its user has it
	StartTS     uint64  // the transaction's, or a read's timestamp
	Skip, Times int     // leave the first Skip alone, end after Times (0: never)
	Chance      float64 // of each match; 0: always; drawn from WithSeed

	// Before the request is handled.
	Delay       time.Duration
	Hold        bool // until Release
	Before      func()
	DropRequest bool        // neither handled nor answered
	Duplicate   bool        // handled once more, before
	RegionError RegionFault // answered instead; stores only
	KeyError    KeyFault    // answered instead, where answers have key errors

	// After it was handled.
	After      func()
	DropAnswer bool // the caller never hears
	Disconnect bool // as DropAnswer, by closing the connection
	// Mangle changes the answer's encoding. That of an entry of BatchCommands is the
	// command's own answer; what is around it stays right.
	Mangle func(answer []byte) []byte
}

// RegionFault is a region error.
type RegionFault uint8

// The region errors. Injected ones carry no hints: no leader, no regions.
const (
	NotLeader RegionFault = iota + 1
	RegionNotFound
	KeyNotInRegion
	EpochNotMatch
	ServerIsBusy
	StaleCommand
	StoreNotMatch
	RaftEntryTooLarge
	MaxTimestampNotSynced
	ReadIndexNotReady
	ProposalInMergingMode
	DataIsNotReady
	RegionNotInitialized
	DiskFull
	RecoveryInProgress
	FlashbackInProgress
	FlashbackNotPrepared
	IsWitness
	MismatchPeerID
	BucketVersionNotMatch
	UndeterminedResult
)

var regionFaults = [...]string{
	"none", "NotLeader", "RegionNotFound", "KeyNotInRegion", "EpochNotMatch", "ServerIsBusy", "StaleCommand",
	"StoreNotMatch", "RaftEntryTooLarge", "MaxTimestampNotSynced", "ReadIndexNotReady", "ProposalInMergingMode",
	"DataIsNotReady", "RegionNotInitialized", "DiskFull", "RecoveryInProgress", "FlashbackInProgress",
	"FlashbackNotPrepared", "IsWitness", "MismatchPeerID", "BucketVersionNotMatch", "UndeterminedResult",
}

// String returns the error's name.
func (f RegionFault) String() string {
	if int(f) < len(regionFaults) {
		return regionFaults[f]
	}
	return fmt.Sprintf("RegionFault(%d)", uint8(f))
}

// KeyFault is a key error.
type KeyFault uint8

// The key errors. Injected ones speak of the request's first key, and of another
// transaction that began just before the request's and does not exist.
const (
	KeyLocked KeyFault = iota + 1
	WriteConflict
	AlreadyExist
	Deadlock
	CommitTSExpired
	TxnNotFound
	TxnLockNotFound
	PrimaryMismatch
	AssertionFailed
	Abort
)

var keyFaults = [...]string{
	"none", "KeyLocked", "WriteConflict", "AlreadyExist", "Deadlock", "CommitTSExpired", "TxnNotFound",
	"TxnLockNotFound", "PrimaryMismatch", "AssertionFailed", "Abort",
}

// String returns the error's name.
func (f KeyFault) String() string {
	if int(f) < len(keyFaults) {
		return keyFaults[f]
	}
	return fmt.Sprintf("KeyFault(%d)", uint8(f))
}

// Call is a request that reached a node.
type Call struct {
	Method      string
	Node        Node
	Region      uint64
	StartTS     uint64
	Keys        int
	At          time.Time
	Took        time.Duration
	RegionError RegionFault
	Dropped     bool
}

func callOf(r fault.Record) Call {
	return Call{
		Method: r.Method, Node: Node{r.Node}, Region: r.Region, StartTS: r.StartTS, Keys: r.KeyCount,
		At: r.At, Took: r.Took, RegionError: RegionFault(r.RegionError), Dropped: r.Dropped,
	}
}

// Waiting lists the requests that faults hold or delay now, and those that wait for
// another transaction's lock, the oldest first.
func (c *Cluster) Waiting() []Call {
	all := callsOf(c.faults.Waiting())
	for _, w := range c.waits.Waiters() {
		all = append(all, Call{
			Method: "KvPessimisticLock", Node: Store(w.Store), Region: w.Region, StartTS: w.StartTS, Keys: w.Keys, At: w.Since,
		})
	}
	slices.SortStableFunc(all, func(a, b Call) int { return a.At.Compare(b.At) })
	return all
}

func callsOf(records []fault.Record) []Call {
	var calls []Call
	for _, r := range records {
		calls = append(calls, callOf(r))
	}
	return calls
}

// Trace records the requests that end from now until Stop.
func (c *Cluster) Trace() *Trace { return &Trace{c.faults.Trace()} }

// Trace is a record of requests.
type Trace struct{ trace *fault.Trace }

// Calls returns what was recorded so far, in the order in which the requests ended.
func (t *Trace) Calls() []Call { return callsOf(t.trace.Records()) }

// Stop ends the record, which stays.
func (t *Trace) Stop() { t.trace.Stop() }
