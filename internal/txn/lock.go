package txn

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// LockOptions are how keys are locked.
type LockOptions struct {
	Wait      time.Duration // for other transactions; 0: until ctx ends
	NoWait    bool
	Shared    bool
	ForUpdate uint64 // a newer commit is a conflict; 0: none is
	IfExists  bool   // absent keys stay unlocked
	Values    bool   // the values are asked for
	Existence bool   // it is asked whether there are any
}

// Held is what a lock call tells of a key, as the transaction sees it.
type Held struct {
	Value      []byte // if asked for; the caller's for good
	Exists     bool
	ConflictTS uint64 // the commit above which fair locking has locked the key; 0: none
}

const (
	// lockTTLAhead is how long a pessimistic lock lives from when it was asked for, and
	// after each heartbeat (client-go txnkv/transaction/2pc.go, ManagedLockTTL).
	lockTTLAhead = 20 * time.Second
	// recent is the age up to which the newest timestamp that a transaction knows is
	// tried before another is fetched: where nobody has written since, which the lock
	// finds out, it is as good.
	recent = time.Second
	// deadlockPause lets those who waited for locks of a call that met a deadlock take
	// them, before they are asked for again (client-go txnkv/transaction/txn.go, lockKeys).
	deadlockPause = 5 * time.Millisecond
)

// Lock locks keys: now in a pessimistic transaction, when it commits in an optimistic
// one. If values or existence are asked for, what is returned is in the order of wanted.
func (t *Txn) Lock(ctx context.Context, op string, wanted [][]byte, o LockOptions) ([]Held, error) {
	if err := t.guard.write(); err != nil {
		return nil, err
	}
	defer t.leave()
	if err := t.whole(); err != nil {
		return nil, err
	}
	if t.pess == nil {
		return t.lockLater(ctx, op, wanted, o)
	}
	t.owe()
	ctx, done := t.enter(ctx)
	defer done()
	l := &lockCall{t: t, op: op, o: o, began: time.Now()}
	if err := l.admit(wanted); err != nil {
		return nil, err
	}
	if len(l.keys) > 0 {
		defer t.Spent(router.LockTime, l.began)
		if err := l.lock(ctx); err != nil {
			t.doomed(err)
			return nil, t.ended(err)
		}
	}
	held, err := l.results(ctx, wanted)
	switch {
	case !l.locked:
	case err != nil: // nobody learned that they are
		l.undo(ctx, err)
	default:
		l.note()
		t.count()
	}
	return held, t.ended(err)
}

// lockCall is one call that locks keys in the cluster.
type lockCall struct {
	t     *Txn
	op    string
	o     LockOptions
	began time.Time

	keys   [][]byte // to be locked, distinct and in order
	got    []grip   // of each
	chosen bool     // the first of them was made the primary key
	force  bool     // the lock is taken above a newer commit: there is one key
	locked bool     // all of keys were
	asOf   uint64   // the timestamp of the first requests

	mu     sync.Mutex
	newest uint64 // up to which there may be locks of the call
	issued time.Time
	resent bool // a request may have run whose answer was lost

	room    [1][]byte
	gotRoom [1]grip
}

// admit finds what of the wanted keys has to be locked.
func (l *lockCall) admit(wanted [][]byte) error {
	l.keys = l.room[:0]
	for _, key := range wanted {
		e, _ := l.t.buf.Get(key)
		switch locked, shared := e.Flags&membuf.Locked != 0, e.Flags&membuf.Shared != 0; {
		case shared && !l.o.Shared:
			return &Misuse{"key", "is locked with WithShared, which cannot be turned into a lock of its own"}
		case !locked && l.o.Shared && e.Op != membuf.None:
			return &Misuse{"WithShared", "is given for a key that the transaction writes"}
		case !locked && !l.t.pess.stage.has(key):
			l.keys = append(l.keys, key)
		}
	}
	if len(l.keys) > 1 {
		slices.SortFunc(l.keys, bytes.Compare)
		l.keys = slices.CompactFunc(l.keys, bytes.Equal)
	}
	return l.allowed()
}

// allowed refuses what TiKV, or its clients' rules, would.
func (l *lockCall) allowed() error {
	p, n := l.t.pess, len(l.keys)
	switch {
	case n == 0:
		return nil
	case l.o.Shared && p.primary == nil:
		return &Misuse{"WithShared", "is given for the first lock of the transaction"}
	case l.o.Shared && p.stage != nil:
		return &Misuse{"WithShared", "is given inside of a FairLock"}
	case l.o.Shared && l.o.IfExists:
		return &Misuse{"WithShared", "is given with WithLockIfExists"}
	case l.o.IfExists && p.primary == nil && n > 1:
		return &Misuse{"WithLockIfExists", "is given for several keys before anything is locked"}
	case l.o.ForUpdate != 0 && l.o.ForUpdate < l.t.StartTS():
		return &Misuse{"WithForUpdateTS", "is before the transaction's start"}
	}
	size := 0
	for _, key := range l.keys {
		size += len(key) - l.t.opts.KeyPrefix
	}
	return l.t.buf.Fits(n, size)
}

// lock locks the keys, all or, but for what is then undone, none. What was locked is noted
// when the call has all that it is to return.
func (l *lockCall) lock(ctx context.Context) error {
	p := l.t.pess
	if p.stage != nil && len(l.keys) > 1 {
		p.stage.done() // client-go exitAggressiveLockingIfInapplicable
	}
	if l.chosen = p.primary == nil; l.chosen {
		p.primary = bytes.Clone(l.keys[0])
	}
	fresh := false
	if p.stage != nil {
		l.force = true
		p.stage.chose = p.stage.chose || l.chosen
		reused, stale, err := p.stage.reuse(l)
		if err != nil || reused {
			return err
		}
		fresh = stale
	}
	l.got = l.gotRoom[:]
	if len(l.keys) > 1 {
		l.got = make([]grip, len(l.keys))
	}
	err := l.start(ctx, fresh)
	if err == nil {
		err = l.run(ctx)
	}
	if err == nil && l.force && l.got[0].ConflictTS != 0 {
		// A commit timestamp that TiKV calculated may be the next that PD issues. What the
		// transaction does at it from now on, and what commits above that without asking PD,
		// must not be ahead of who begins afterwards.
		_, err = l.t.e.pd.Timestamp(ctx)
	}
	if err != nil {
		l.undo(ctx, err)
		return err
	}
	l.locked = true
	return nil
}

// start finds the timestamp that the keys are locked at. A statement of fair locking goes
// by what it has seen, so that it is told of every commit since.
func (l *lockCall) start(ctx context.Context, fresh bool) error {
	p := l.t.pess
	switch {
	case l.o.ForUpdate > p.asOf:
		if _, err := l.t.e.Issued(ctx, l.o.ForUpdate, recent); err != nil {
			return err
		}
		l.asOf = l.o.ForUpdate
	case l.o.ForUpdate != 0:
		l.asOf = l.o.ForUpdate
	case !fresh && (p.stage != nil || p.asOf > p.freed && time.Since(p.asked) < recent):
		l.asOf = p.asOf
	default:
		return l.fresh(ctx, &l.asOf)
	}
	if l.asOf > p.freed {
		return nil
	}
	return p.awaitFreed(ctx)
}

// fresh fetches a timestamp.
func (l *lockCall) fresh(ctx context.Context, ts *uint64) (err error) {
	began := time.Now()
	if *ts, err = l.t.timestamp(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if began.After(l.issued) {
		l.issued = began
	}
	return nil
}

// stretch is keys of a call, from from to before to, that one region holds.
type stretch struct {
	router.Group
	from, to int
}

// run sends what locks the keys. The primary key goes first: what points to it is dead
// without it. The others of many regions go together.
func (l *lockCall) run(ctx context.Context) error {
	parts, err := l.split(ctx, l.t.e.call(ctx, l.op, l.t.opts.Read.CallOptions), 0, len(l.keys))
	if err != nil {
		return err
	}
	if l.chosen || len(parts) == 1 {
		if err := l.send(ctx, parts[0]); err != nil {
			return err
		}
		parts = parts[1:]
	}
	if len(parts) > 0 {
		return l.sendAll(ctx, parts)
	}
	return nil
}

// split cuts keys from from to before to by region, and by size.
func (l *lockCall) split(ctx context.Context, call *router.Call, from, to int) ([]stretch, error) {
	keys := l.keys[from:to]
	if at := l.t.e.router.Only(call, keys); at != nil && len(keys) == 1 {
		return []stretch{{router.Group{Region: at}, from, to}}, nil
	}
	groups, err := l.t.e.router.Group(ctx, call, keys)
	if err != nil {
		return nil, err
	}
	var parts []stretch
	for _, g := range cut(groups, batchBytes, func(i int) int { return len(keys[i]) }) {
		// Of sorted keys a region holds a stretch, unless it changed while it was looked for.
		for i, at := range g.Index {
			if i > 0 && at == g.Index[i-1]+1 {
				parts[len(parts)-1].to++
			} else {
				parts = append(parts, stretch{router.Group{Region: g.Region}, from + at, from + at + 1})
			}
		}
	}
	slices.SortFunc(parts, func(a, b stretch) int { return a.from - b.from })
	return parts, nil
}

// send locks one part.
func (l *lockCall) send(ctx context.Context, p stretch) error {
	r := l.t.e.takeLock(ctx, l, p)
	defer l.t.e.giveLock(r)
	r.fill(ctx)
	return r.finish(ctx, r.waited(l.t.e.router.SendInto(ctx, &r.call, p.Region, &r.req, &r.resp)))
}

// sendAll locks parts together: the requests go out from here, and only what meets
// something goes on by itself.
func (l *lockCall) sendAll(ctx context.Context, parts []stretch) error {
	all, parcels := make([]*lockRequest, len(parts)), make([]router.Parcel, len(parts))
	for i, p := range parts {
		r := l.t.e.takeLock(ctx, l, p)
		r.fill(ctx)
		all[i], parcels[i] = r, router.Parcel{Call: &r.call, Region: p.Region, Req: &r.req, Resp: &r.resp}
	}
	l.t.e.router.SendAll(ctx, parcels, nil)
	var left []int // those that came to anything but locks
	for i, r := range all {
		if r.waited(parcels[i].Err) != nil || len(r.resp.Errors) > 0 || r.take() != nil {
			left = append(left, i)
		}
	}
	err := task.Each(ctx, lockParallel, len(left), func(ctx context.Context, i int) error {
		return all[left[i]].finish(ctx, parcels[left[i]].Err)
	})
	for _, r := range all {
		l.t.e.giveLock(r)
	}
	return err
}

// lockParallel is how many parts of one call that met something are worked on at a time.
const lockParallel = 16

// used notes a timestamp up to which there may be locks of the call.
func (l *lockCall) used(ts uint64) {
	l.mu.Lock()
	l.newest = max(l.newest, ts)
	l.mu.Unlock()
}

// doubt notes that there may be locks of which no answer told.
func (l *lockCall) doubt() {
	l.mu.Lock()
	l.resent = true
	l.mu.Unlock()
}

// note enters what is locked.
func (l *lockCall) note() {
	p := l.t.pess
	if p.asOf < l.newest {
		p.asOf = l.newest
	}
	if l.issued.After(p.asked) {
		p.asked = l.issued
	}
	for i, key := range l.keys {
		g := l.got[i]
		if _, loose := p.loose[string(key)]; loose && !l.force && !l.o.Shared {
			p.expect(string(key), g.asOf)
		}
		switch {
		case l.o.IfExists && !g.Exists:
			if l.chosen { // of one key
				l.giveUpPrimary()
			}
		case l.force:
			p.stage.now[string(key)] = g
		case l.o.Shared:
			l.t.hold(key, membuf.Shared)
		case g.Exists:
			l.t.hold(key, membuf.HadValue)
		default:
			l.t.hold(key, 0)
		}
	}
}

// hold enters that a key is locked. That there is room for it was seen before.
func (t *Txn) hold(key []byte, f membuf.Flags) {
	_ = t.buf.Mark(key, membuf.Locked|f, 0)
}

// giveUpPrimary makes the transaction one that has locked nothing.
func (l *lockCall) giveUpPrimary() {
	p := l.t.pess
	p.primary = nil
	if p.stage != nil {
		p.stage.chose = false
	}
	l.t.beat.pause()
}

// undo lets go of what a call that failed may have locked. The transaction goes on.
func (l *lockCall) undo(ctx context.Context, err error) {
	t, p := l.t, l.t.pess
	if l.chosen {
		l.giveUpPrimary()
	}
	if l.newest == 0 || len(l.keys) == 1 && !l.locked && !l.resent && tookNothing(err) {
		return
	}
	p.unsure, p.shared = true, p.shared || l.o.Shared
	if l.force || l.resent {
		if p.loose == nil {
			p.loose = make(map[string]struct{})
		}
		for _, key := range l.keys {
			p.loose[string(key)] = struct{}{}
		}
	}
	done := t.unlock(cloneKeys(l.keys), l.newest)
	var dead *Deadlock
	if errors.As(err, &dead) && dead.Retryable {
		select {
		case <-done:
			_ = backoff.Sleep(ctx, deadlockPause)
		case <-ctx.Done():
		}
	}
}

// tookNothing reports whether a single key was certainly not locked.
func tookNothing(err error) bool {
	switch err.(type) {
	case *Conflict, *Exists, *Locked:
		return true
	}
	return false
}

func cloneKeys(keys [][]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i, key := range keys {
		out[i] = bytes.Clone(key)
	}
	return out
}

// results tells what was asked for of the wanted keys. Of those that this call did not
// lock, and of shared ones, of which TiKV reads no value that can be relied on
// (acquire_pessimistic_lock.rs, handle_existing_shared_lock), it reads what they hold:
// nobody can have changed it since they were locked.
func (l *lockCall) results(ctx context.Context, wanted [][]byte) ([]Held, error) {
	if !l.o.Values && !l.o.Existence {
		return nil, nil
	}
	out := make([]Held, len(wanted))
	var (
		ask [][]byte
		at  []int
	)
	for i, key := range wanted {
		j, ours := slices.BinarySearchFunc(l.keys, key, bytes.Compare)
		var h Held
		known := true
		switch g, staged := l.t.pess.stage.grip(key); {
		case ours && !l.o.Shared:
			h = l.got[j].Held
		case staged && (g.values || !l.o.Values):
			h = g.Held
		default:
			known = false
		}
		e, _ := l.t.buf.Get(key)
		switch {
		case e.Op == membuf.Put:
			h.Value, h.Exists, known = e.Value, true, true
		case e.Op == membuf.Delete:
			h.Value, h.Exists, known = nil, false, true
		case !known && !l.o.Values && e.Flags&(membuf.Locked|membuf.Shared) == membuf.Locked:
			h.Exists, known = e.Flags&membuf.HadValue != 0, true
		}
		if !known {
			ask, at = append(ask, key), append(at, i)
			continue
		}
		switch {
		case !l.o.Values:
			h.Value = nil
		case h.Exists && (!ours || len(wanted) != len(l.keys) || e.Op == membuf.Put):
			h.Value = append([]byte{}, h.Value...)
		case h.Exists:
			h.Value = present(h.Value)
		}
		out[i] = h
	}
	if len(ask) == 0 {
		return out, nil
	}
	now := l.t.e.Snapshot(max(l.t.pess.asOf, l.newest), true, &l.t.opts.Read)
	err := now.BatchGet(ctx, l.op, ask, false, func(i int, v Value) { out[at[i]] = Held{Value: v.Bytes, Exists: true} })
	return out, err
}

// lockLater makes an optimistic transaction lock keys when it commits: what another one
// writes to them after the start is a conflict then.
func (t *Txn) lockLater(ctx context.Context, op string, wanted [][]byte, o LockOptions) ([]Held, error) {
	var out []Held
	if o.Values || o.Existence {
		values, err := t.lookAt(ctx, op, wanted, false)
		if err != nil {
			return nil, err
		}
		out = make([]Held, len(wanted))
		for i, v := range values {
			out[i] = Held{Value: v.Bytes, Exists: v.Bytes != nil}
		}
	}
	var added membuf.Buffer // the distinct keys that are new
	for i, key := range wanted {
		if o.IfExists && !out[i].Exists {
			continue
		}
		if _, ok := t.buf.Get(key); !ok {
			if err := added.Mark(key, membuf.Locked, 0); err != nil {
				return nil, err
			}
		}
	}
	if err := t.buf.Fits(added.Len(), added.Size()-added.Len()*t.opts.KeyPrefix); err != nil {
		return nil, err
	}
	for i, key := range wanted {
		if o.IfExists && !out[i].Exists {
			continue
		}
		if err := t.buf.Mark(key, membuf.Locked, 0); err != nil {
			return nil, err
		}
	}
	t.count()
	return out, nil
}
