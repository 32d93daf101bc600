package tikv

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"
	"weak"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/txn"
)

// TxnInfo is a transaction that has begun.
type TxnInfo struct {
	StartTS                Timestamp
	Pessimistic, Pipelined bool
	Attempt                int // of RunTxn, from 1; 1 for one of Begin
}

// TxnResult is how a transaction ended.
type TxnResult struct {
	Outcome              TxnOutcome
	StartTS, CommitTS    Timestamp // CommitTS 0: did not commit, or nothing to write
	Protocol             Protocol  // by which it has committed, or was to
	Fallback             bool      // a quicker protocol was tried first
	Keys, Bytes, Regions int       // that the commit wrote, or was to write; of a pipelined one no regions
	Attempt              int
	Elapsed              time.Duration // since it began
	Stats                CallStats     // without what is done behind it
	// Err is nil for TxnCommitted, and for a Rollback; else what Commit returned, RunTxn's
	// function, or what ended the transaction from without.
	Err error
}

// TxnOutcome is what became of a transaction.
type TxnOutcome uint8

// The outcomes.
const (
	// TxnCommitted: also where there was nothing to write.
	TxnCommitted TxnOutcome = iota
	// TxnRolledBack: by Rollback, by RunTxn after an error or a panic of its function, or
	// since the handle was dropped.
	TxnRolledBack
	// TxnFailed: its commit failed, its locks were lost, or the client was closed.
	TxnFailed
	// TxnUndetermined: see ErrUndetermined.
	TxnUndetermined
)

// String is the outcome in words.
func (o TxnOutcome) String() string {
	switch o {
	case TxnCommitted:
		return "committed"
	case TxnRolledBack:
		return "rolled back"
	case TxnFailed:
		return "failed"
	case TxnUndetermined:
		return "undetermined"
	}
	return "TxnOutcome(" + strconv.Itoa(int(o)) + ")"
}

// Protocol is how a transaction commits.
type Protocol uint8

// The protocols.
const (
	ProtocolNone      Protocol = iota // nothing was written
	ProtocolOnePhase                  // one request writes and commits
	ProtocolAsync                     // it has committed when all keys are locked
	ProtocolTwoPhase                  // it has committed when its primary key has
	ProtocolPipelined                 // the same, of keys that were locked as they were written
)

// String is the protocol in words.
func (p Protocol) String() string {
	switch p {
	case ProtocolNone:
		return "none"
	case ProtocolOnePhase:
		return "one-phase"
	case ProtocolAsync:
		return "async"
	case ProtocolTwoPhase:
		return "two-phase"
	case ProtocolPipelined:
		return "pipelined"
	}
	return "Protocol(" + strconv.Itoa(int(p)) + ")"
}

// Stats says what the transaction has cost so far. It may be called at any time.
func (tx *Txn) Stats() CallStats { return statsOf(tx.t, tx.rec) }

// statsOf is what a transaction has cost; rec is its own *Recorder, if it has one.
func statsOf(t *txn.Txn, rec any) CallStats {
	if r, ok := rec.(*Recorder); ok {
		return r.Stats()
	}
	tally := t.Tally()
	return figures(func(f router.Figure) int64 { return tally[f].Load() })
}

// OnEnd runs fn once when the transaction has ended, on the goroutine that ended it, before
// its call returns; of several the last one given runs first. If it has ended already, fn
// runs at once. fn is to be quick, and must not close the client; where it panics the client's
// logger is told. See TxnHook for transactions that are dropped.
func (tx *Txn) OnEnd(fn func(TxnResult)) {
	if fn == nil {
		return
	}
	c, t, rec, attempt := tx.c, tx.t, tx.rec, tx.Attempt() // not tx, which may be dropped
	tx.watchEnd(func(end txn.End) {
		res := c.txnResult(t, rec, attempt, end)
		guard(c.engine.tasks.Context(), c.cfg.logger, func() { fn(res) })
	})
}

// watchEnd makes tell run when the transaction ends, or with the client.
func (tx *Txn) watchEnd(tell func(txn.End)) {
	c, t := tx.c, tx.t
	open := c.openTxns()
	dropped := open.add(tx)
	t.OnEnd(func(end txn.End) {
		open.remove(t)
		tell(end)
	})
	if c.closing.Load() {
		t.Abandon(endClosed())
	}
	for _, t := range dropped {
		t.Abandon(txn.End{Fate: txn.RolledBack, Err: errDropped, Own: true})
	}
}

// endClosed is the end of a transaction with its client.
func endClosed() txn.End { return txn.End{Fate: txn.Failed, Err: router.ErrClosed} }

// Errors of ends that come from without.
var (
	errDropped     = errors.New("tikv: the transaction was dropped, neither committed nor rolled back")
	errNotReturned = errors.New("tikv: RunTxn's function, or what it called, did not return")
)

// txnResult is how a transaction ended.
func (c *Client) txnResult(t *txn.Txn, rec any, attempt int, end txn.End) TxnResult {
	p, fellBack := t.Protocol()
	w := t.Wrote()
	res := TxnResult{
		Outcome: TxnOutcome(end.Fate), StartTS: Timestamp(t.StartTS()), CommitTS: Timestamp(t.CommitTS()),
		Protocol: Protocol(p), Fallback: fellBack, Keys: int(w.Keys), Bytes: w.Bytes, Regions: int(w.Regions),
		Attempt: attempt, Elapsed: time.Since(t.Begun()), Stats: statsOf(t, rec),
	}
	switch {
	case end.Own:
		res.Err = end.Err
	case errors.Is(end.Err, txn.ErrDropped):
		res.Err = errDropped
	case errors.Is(end.Err, txn.ErrPanicked):
		res.Err = errNotReturned
	default:
		res.Err = mapError(c.errorContext("Txn.Commit", c.engine.txn), end.Err)
	}
	return res
}

// ofTxn implements watching: a transaction that somebody looks at has a recorder of its own.
func (w *watch) ofTxn() (with watching, own any) {
	if len(w.recorders)+len(w.txn) == 0 {
		return w, nil
	}
	used, rec := watchOf(w), &Recorder{}
	used.recorders = append(used.recorders, rec)
	return used, rec
}

// startTxnFunc tells of a transaction that has begun, and returns its context.
type startTxnFunc func(ctx context.Context, tx *Txn) context.Context

// starts implements watching.
func (w *watch) starts() any {
	if len(w.txn) == 0 {
		return nil
	}
	return startTxnFunc(w.startTxn)
}

func (w *watch) startTxn(ctx context.Context, tx *Txn) context.Context {
	c, t, rec := tx.c, tx.t, tx.rec
	logger := c.cfg.logger
	info := TxnInfo{StartTS: tx.StartTS(), Pessimistic: tx.cfg.pessimism != nil, Pipelined: tx.cfg.pipeline != nil, Attempt: tx.Attempt()}
	for _, h := range w.txn {
		guard(ctx, logger, func() {
			if under := h.StartTxn(ctx, info); under != nil {
				ctx = under
			}
		})
	}
	under := ctx
	tx.watchEnd(func(end txn.End) {
		res := c.txnResult(t, rec, info.Attempt, end)
		for i := len(w.txn) - 1; i >= 0; i-- {
			guard(under, logger, func() { w.txn[i].EndTxn(under, info, res) })
		}
	})
	return ctx
}

// ender is *openTxns. It is an interface, so that a program in which nobody waits for the
// ends of transactions does not link it.
type ender interface{ end() }

// openTxns are the transactions whose ends somebody waits for.
type openTxns struct {
	mu    sync.Mutex
	all   map[*txn.Txn]weak.Pointer[Txn]
	sweep int // size from which on those are looked for whose handles were dropped
}

// openTxns are the client's, made when first needed.
func (c *Client) openTxns() *openTxns {
	if c.open.Load() == nil {
		var none ender = &openTxns{}
		c.open.CompareAndSwap(nil, &none)
	}
	open, _ := (*c.open.Load()).(*openTxns)
	return open
}

// sweepFrom is the first such size.
const sweepFrom = 64

// add adds one, and returns those that nobody can end any more.
func (o *openTxns) add(tx *Txn) (dropped []*txn.Txn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all, o.sweep = make(map[*txn.Txn]weak.Pointer[Txn]), sweepFrom
	}
	o.all[tx.t] = weak.Make(tx)
	if len(o.all) < o.sweep {
		return nil
	}
	for t, handle := range o.all {
		if handle.Value() == nil {
			dropped = append(dropped, t)
		}
	}
	o.sweep = max(sweepFrom, 2*(len(o.all)-len(dropped)))
	return dropped
}

// end ends those that are open still.
func (o *openTxns) end() {
	o.mu.Lock()
	left := make([]*txn.Txn, 0, len(o.all))
	for t := range o.all {
		left = append(left, t)
	}
	o.mu.Unlock()
	for _, t := range left {
		t.Abandon(endClosed())
	}
}

func (o *openTxns) remove(t *txn.Txn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, t)
}
