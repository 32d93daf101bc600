package tikv

import (
	"math"
	"strconv"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/txn"
)

// commitConfig is how a transaction commits.
type commitConfig struct {
	mode     CommitMode
	causal   bool
	after    Timestamp
	wait     time.Duration
	check    func(commitTS Timestamp) error
	diskFull DiskFullPolicy
	source   uint64
}

// commitOptions is the engine's form of it.
func (c *txnConfig) commitOptions() txn.CommitOptions {
	o := txn.CommitOptions{
		Mode: txn.Mode(c.commit.mode), Causal: c.commit.causal, After: uint64(c.commit.after), Wait: c.commit.wait,
		DiskFull: c.commit.diskFull.wire(), Source: c.commit.source,
	}
	if check := c.commit.check; check != nil {
		o.Check = func(ts uint64) error { return check(Timestamp(ts)) }
	}
	return o
}

// WithCommitMode pins the protocol of the commit. The default is CommitAuto.
func WithCommitMode(m CommitMode) CommitOption {
	return commitOption{"WithCommitMode", func(c *txnConfig) string {
		c.commit.mode = m
		if m > CommitTwoPhase {
			return "is not known: " + strconv.Itoa(int(m))
		}
		return ""
	}}
}

// CommitMode is how a transaction may commit. What it says is an upper bound: TiKV, or the
// size of the transaction, may demand two phases.
type CommitMode uint8

// The modes.
const (
	// CommitAuto writes a transaction whose keys are in one region, and of some 16 KiB at
	// most, with a single request, and commits one of up to 256 keys, of 4 KiB in all, when
	// all its keys are locked, without waiting for the commit records.
	CommitAuto CommitMode = iota
	// CommitAsync is CommitAuto without the single request.
	CommitAsync
	// CommitTwoPhase locks all keys, and then writes the commit record of the primary key,
	// which decides.
	CommitTwoPhase
)

// String is the mode in a word.
func (m CommitMode) String() string {
	switch m {
	case CommitAuto:
		return "auto"
	case CommitAsync:
		return "async"
	case CommitTwoPhase:
		return "two-phase"
	}
	return "CommitMode(" + strconv.Itoa(int(m)) + ")"
}

// WithCausalConsistency saves the round trip to PD by which a commit in one phase, or an
// asynchronous one, comes after all that has committed before: it comes after what the
// transaction has read, and after what was read of the keys that it writes. Of two
// transactions that share nothing the later one may then get the earlier commit timestamp.
func WithCausalConsistency() CommitOption {
	return commitOption{"WithCausalConsistency", func(c *txnConfig) string { c.commit.causal = true; return "" }}
}

// WithCommitAfter makes the commit timestamp come after ts, waiting for PD to get there for
// at most wait; 0 does not wait. ErrCommitTSLag is the error where that takes longer, and
// says so at once where it can tell.
func WithCommitAfter(ts Timestamp, wait time.Duration) CommitOption {
	return commitOption{"WithCommitAfter", func(c *txnConfig) string {
		c.commit.after, c.commit.wait = ts, wait
		switch {
		case ts == 0 || ts == math.MaxUint64:
			return "is not given a timestamp"
		case wait < 0:
			return "is to wait for a negative time"
		}
		return ""
	}}
}

// WithCommitCheck asks ok about the commit timestamp when every key is locked and
// nothing has been decided: an error of ok's rolls the transaction back and is what
// Commit returns. The commit takes two phases. ok must not use the transaction, and runs
// while others wait for the locks. It is asked again where the cluster demands a later
// timestamp.
func WithCommitCheck(ok func(commitTS Timestamp) error) CommitOption {
	return commitOption{"WithCommitCheck", func(c *txnConfig) string {
		c.commit.check = ok
		if ok == nil {
			return "needs a function"
		}
		return ""
	}}
}

// WithDiskFull says whether to write to regions with stores that are short of space. The
// default is DiskFullRefuse: such a write is tried again while there is time, and then
// ErrDiskFull. A full store that leads a region takes nothing whatever is allowed.
func WithDiskFull(p DiskFullPolicy) CommitOption {
	return commitOption{"WithDiskFull", func(c *txnConfig) string {
		c.commit.diskFull = p
		if p > DiskFullAllow {
			return "is not known: " + strconv.Itoa(int(p))
		}
		return ""
	}}
}

// DiskFullPolicy says how full the disk of a store may be that is written to.
type DiskFullPolicy uint8

// The policies.
const (
	DiskFullRefuse      DiskFullPolicy = iota // not even almost
	DiskFullAllowAlmost                       // almost
	DiskFullAllow                             // told to TiKV, which as yet allows no more than almost
)

// String is the policy in a word.
func (p DiskFullPolicy) String() string {
	switch p {
	case DiskFullRefuse:
		return "refuse"
	case DiskFullAllowAlmost:
		return "allow-almost"
	case DiskFullAllow:
		return "allow"
	}
	return "DiskFullPolicy(" + strconv.Itoa(int(p)) + ")"
}

func (p DiskFullPolicy) wire() kvrpcpb.DiskFullOpt {
	switch p {
	case DiskFullAllowAlmost:
		return kvrpcpb.DiskFullOpt_AllowedOnAlmostFull
	case DiskFullAllow:
		return kvrpcpb.DiskFullOpt_AllowedOnAlreadyFull
	}
	return kvrpcpb.DiskFullOpt_NotAllowedOnFull
}

// WithTxnSource marks the transaction's writes for change feeds, which may leave out what
// came from another cluster (TiKV's txn_source).
func WithTxnSource(source uint64) CommitOption {
	return commitOption{"WithTxnSource", func(c *txnConfig) string {
		c.commit.source = source
		if source == 0 {
			return "must not be 0"
		}
		return ""
	}}
}

// WithLocalLatches makes the commits of this client that write the same keys wait for each
// other, and fail with ErrWriteConflict before anything is sent where another of them came
// first. Slots, rounded up to a power of two, is how many groups keys fall into: commits
// wait for those of their groups. It is for much contention on few keys; the default is
// none.
func WithLocalLatches(slots int) Option {
	return openOption{"WithLocalLatches", func(c *config) string {
		if slots < 1 || slots > 1<<24 {
			return "must be from 1 to 16777216"
		}
		c.latches = txn.NewLatches(slots)
		return ""
	}}
}

// WithAssertions says how far TiKV checks what WithAssertion says. The default is
// AssertionsFast.
func WithAssertions(level AssertionLevel) TxnOption {
	return txnOption{"WithAssertions", func(c *txnConfig) string {
		c.assertions = level
		if level > AssertionsStrict {
			return "is not known: " + strconv.Itoa(int(level))
		}
		return ""
	}}
}

// AssertionLevel is how far assertions are checked.
type AssertionLevel uint8

// The levels.
const (
	AssertionsOff    AssertionLevel = iota
	AssertionsFast                  // where it costs TiKV no read
	AssertionsStrict                // always
)

// String is the level in a word.
func (l AssertionLevel) String() string {
	switch l {
	case AssertionsOff:
		return "off"
	case AssertionsFast:
		return "fast"
	case AssertionsStrict:
		return "strict"
	}
	return "AssertionLevel(" + strconv.Itoa(int(l)) + ")"
}

func (l AssertionLevel) wire() kvrpcpb.AssertionLevel {
	switch l {
	case AssertionsFast:
		return kvrpcpb.AssertionLevel_Fast
	case AssertionsStrict:
		return kvrpcpb.AssertionLevel_Strict
	}
	return kvrpcpb.AssertionLevel_Off
}

// writeConfig is one write's.
type writeConfig struct {
	problems
	assertion Assertion
}

type writeOption struct {
	name string
	set  func(*writeConfig) string
}

func (o writeOption) applyWrite(c *writeConfig) { c.add(o.name, o.set(c)) }

// WithAssertion claims what a key is, as the transaction sees it, before it is written.
// Where that is found to be wrong the write or the commit fails with ErrAssertion. It is a
// check on the caller's own logic: on what others do it is Insert and reads that count.
func WithAssertion(a Assertion) WriteOption {
	return writeOption{"WithAssertion", func(c *writeConfig) string {
		c.assertion = a
		if a > AssertAbsent {
			return "is not known: " + strconv.Itoa(int(a))
		}
		return ""
	}}
}

// Assertion is a claim about a key.
type Assertion uint8

// The assertions.
const (
	AssertNothing Assertion = iota // the default
	AssertExists
	AssertAbsent
)

// String is the assertion in a word.
func (a Assertion) String() string {
	switch a {
	case AssertNothing:
		return "nothing"
	case AssertExists:
		return "exists"
	case AssertAbsent:
		return "absent"
	}
	return "Assertion(" + strconv.Itoa(int(a)) + ")"
}

// writeClaim is the engine's form of a write's options.
func writeClaim(op string, opts []WriteOption) (txn.Claim, error) {
	if len(opts) == 0 {
		return txn.NoClaim, nil
	}
	var cfg writeConfig
	if err := apply(op, opts, &cfg, func(o WriteOption) { o.applyWrite(&cfg) }); err != nil {
		return txn.NoClaim, err
	}
	switch cfg.assertion {
	case AssertExists:
		return txn.AssertExists, nil
	case AssertAbsent:
		return txn.AssertAbsent, nil
	}
	return txn.NoClaim, nil
}
