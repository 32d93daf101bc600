package interop

import (
	"math"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// ourCorpse is our client, which is about to die, with the keys of one case: "a" and "z"
// in two regions, to be set to "new". The primary key is "a".
type ourCorpse struct {
	*env
	peer   *peer
	losses []*injected
}

// ourRemains are what our client leaves when it dies.
type ourRemains struct {
	name      string
	left      int // locks
	committed bool
	leave     func(o *ourCorpse)
	together  bool // the keys are in one region at first
}

// allOurRemains are left one after the other. The last one moves the clock.
func allOurRemains() []ourRemains {
	return []ourRemains{
		{name: "prewritten", left: 2, leave: func(o *ourCorpse) { o.written().lose("KvCommit").commit("two-phase") }},
		{name: "only the primary prewritten", left: 1, leave: func(o *ourCorpse) { o.written().lose("KvPrewrite", "z").commit("two-phase") }},
		{name: "only the secondary prewritten", left: 1, leave: func(o *ourCorpse) { o.written().lose("KvPrewrite", "a").commit("two-phase") }},
		{name: "primary committed", left: 1, committed: true, leave: func(o *ourCorpse) { o.written().lose("KvCommit", "z").commit("two-phase").ends() }},

		{name: "pessimistic locks", left: 2, leave: func(o *ourCorpse) { o.locked("a", "z") }},
		{name: "pessimistic lock without its primary", left: 1, leave: func(o *ourCorpse) { o.locked("a", "z").unlock("a") }},
		{name: "pessimistic, prewritten", left: 2, leave: func(o *ourCorpse) { o.locked("a", "z").write().lose("KvCommit").prewritten("two-phase", 2) }},
		{name: "pessimistic, only the primary prewritten", left: 2, leave: func(o *ourCorpse) { o.locked("a", "z").write().lose("KvPrewrite", "z").prewritten("two-phase", 1) }},
		{name: "pessimistic, only the secondary prewritten", left: 2, leave: func(o *ourCorpse) { o.locked("a", "z").write().lose("KvPrewrite", "a").prewritten("two-phase", 1) }},
		{name: "pessimistic, primary committed", left: 1, committed: true, leave: func(o *ourCorpse) {
			o.locked("a", "z").write().lose("KvCommit", "z").commit("two-phase").ends()
		}},
		{name: "locked and not written, prewritten", left: 2, leave: func(o *ourCorpse) { o.locked("a", "z").lose("KvCommit").prewritten("two-phase", 2) }},
		{name: "fair locks", left: 2, leave: func(o *ourCorpse) { o.begin("pessimistic").fair().lock("a", "z") }},
		{name: "fair locks, one in spite of a conflict", left: 2, leave: func(o *ourCorpse) { o.conflicted() }},
		{name: "fair locks in spite of a conflict, prewritten", left: 2, leave: func(o *ourCorpse) {
			o.conflicted().write().lose("KvCommit").prewritten("two-phase", 2)
		}},

		{name: "async, prewritten", left: 2, committed: true, leave: func(o *ourCorpse) { o.written().lose("KvCommit").commit("async").ends() }},
		{name: "async, secondary missing", left: 1, leave: func(o *ourCorpse) { o.written().lose("KvPrewrite", "z").commit("async") }},
		{name: "async, primary missing", left: 1, leave: func(o *ourCorpse) { o.written().lose("KvPrewrite", "a").commit("async") }},
		{name: "async, primary committed", left: 1, committed: true, leave: func(o *ourCorpse) { o.written().lose("KvCommit", "z").commit("async").ends() }},
		{name: "async, secondary committed", left: 1, committed: true, leave: func(o *ourCorpse) { o.written().lose("KvCommit", "a").commit("async").ends() }},
		{name: "async, pessimistic, prewritten", left: 2, committed: true, leave: func(o *ourCorpse) {
			o.locked("a", "z").write().lose("KvCommit").commit("async").ends()
		}},
		{name: "async, pessimistic, secondary not prewritten", left: 2, leave: func(o *ourCorpse) {
			o.locked("a", "z").write().lose("KvPrewrite", "z").prewritten("async", 1)
		}},
		{name: "flushed", left: 2, leave: func(o *ourCorpse) { o.begin("pipelined").write().lose("KvCommit").commit("two-phase") }},
		{name: "flushed, primary committed", left: 1, committed: true, leave: func(o *ourCorpse) {
			o.begin("pipelined").write()
			o.losses = append(o.losses, o.fault(map[string]any{"method": "KvResolveLock", "drop_request": true}))
			o.commit("two-phase").ends()
		}},
		{name: "one phase that fell back: its region split", left: 2, committed: true, together: true, leave: func(o *ourCorpse) {
			o.written()
			o.split("m")
			o.lose("KvCommit").commit("auto").ends()
		}},
		{name: "one phase that fell back: it would be too late", left: 2, together: true, leave: func(o *ourCorpse) {
			o.written()
			o.post("jump-tso", map[string]any{"by": "1h"})
			o.want(nil, "a=old", "z=old") // as of the new now, which commits must be above
			o.lose("KvCommit").commit("causal")
		}},
	}
}

// begin begins a transaction, of a client that knows where the keys are.
func (o *ourCorpse) begin(option string) *ourCorpse {
	o.Helper()
	for _, k := range []string{"a", "z"} {
		o.peer.ask(o.T, command{Do: "latest", Key: o.prefix + k})
	}
	o.peer.ask(o.T, command{Do: "begin", Option: option})
	return o
}

func (o *ourCorpse) write() *ourCorpse {
	o.Helper()
	for _, k := range []string{"a", "z"} {
		o.peer.ask(o.T, command{Do: "put", Key: o.prefix + k, Value: "new"})
	}
	return o
}

// written is an optimistic transaction that has written.
func (o *ourCorpse) written() *ourCorpse { return o.begin("").write() }

func (o *ourCorpse) lock(keys ...string) *ourCorpse {
	o.Helper()
	for _, k := range keys {
		if a := o.peer.ask(o.T, command{Do: "lock", Key: o.prefix + k}); *a.Value != "old" {
			o.Fatalf("%s is %q", k, *a.Value)
		}
	}
	return o
}

// locked is a pessimistic transaction with locks.
func (o *ourCorpse) locked(keys ...string) *ourCorpse { return o.begin("pessimistic").lock(keys...) }

func (o *ourCorpse) fair() *ourCorpse {
	o.Helper()
	o.peer.ask(o.T, command{Do: "fair"})
	return o
}

// conflicted is a pessimistic transaction that has locked "z" above a newer commit.
func (o *ourCorpse) conflicted() *ourCorpse {
	o.Helper()
	o.locked("a")
	winner := o.put("z=old")
	if a := o.fair().peer.ask(o.T, command{Do: "lock", Key: o.prefix + "z"}); a.TS != winner.CommitTS() {
		o.Fatalf("locked as of %d, not %d", a.TS, winner.CommitTS())
	}
	return o
}

// unlock takes a pessimistic lock away behind the client's back.
func (o *ourCorpse) unlock(key string) {
	o.Helper()
	store, at := o.at(o.wire(key))
	resp, err := store.KVPessimisticRollback(o.ctx(), &kvrpcpb.PessimisticRollbackRequest{
		Context: at, StartVersion: o.locks()[0].TxnID, ForUpdateTs: math.MaxUint64, Keys: [][]byte{o.wire(key)},
	})
	if err != nil || resp.RegionError != nil || len(resp.Errors) > 0 {
		o.Fatal(resp, err)
	}
}

// lose lets requests of a method about keys, or about any of the case, never arrive.
func (o *ourCorpse) lose(method string, keys ...string) *ourCorpse {
	o.Helper()
	if len(keys) == 0 {
		keys = []string{"a", "z"}
	}
	for _, k := range keys {
		o.losses = append(o.losses, o.fault(map[string]any{"method": method, "key": []byte(o.prefix + k), "drop_request": true}))
	}
	return o
}

// commit begins to commit.
func (o *ourCorpse) commit(option string) *ourCorpse {
	o.Helper()
	o.peer.send(o.T, command{Do: "commit", Option: option})
	return o
}

// ends waits until the commit has returned.
func (o *ourCorpse) ends() {
	o.Helper()
	if a := o.peer.answer(o.T); a.Error != "" {
		o.Fatalf("%+v", a)
	}
}

// prewritten begins to commit, and waits until so many of the locks are no pessimistic
// ones any more.
func (o *ourCorpse) prewritten(option string, n int) {
	o.Helper()
	o.commit(option)
	o.eventually("prewritten locks", func() bool {
		found := 0
		for _, l := range o.locks() {
			if l.LockType != kvrpcpb.Op_PessimisticLock {
				found++
			}
		}
		return found == n
	})
}

// dieOurs lets our client leave one of each of its remains, the i-th with the keys of the
// i-th case, and lets their locks expire.
func (e *env) dieOurs() {
	e.Helper()
	var pairs, splits []string
	for i, r := range allOurRemains() {
		pairs = append(pairs, casePrefix(i)+"a=old", casePrefix(i)+"z=old")
		if splits = append(splits, casePrefix(i)); !r.together {
			splits = append(splits, casePrefix(i)+"m")
		}
	}
	e.put(pairs...)
	e.split(splits...)
	var dying sync.WaitGroup
	for i, r := range allOurRemains() {
		o := &ourCorpse{env: e.with(e.T, casePrefix(i)), peer: e.c.peer(e.T)}
		r.leave(o)
		o.eventually(r.name, func() bool { return len(o.locks()) == r.left })
		o.peer.cmd.Process.Kill()
		dying.Go(func() { o.peer.cmd.Wait() })
		for _, loss := range o.losses {
			defer loss.remove()
		}
	}
	dying.Wait()
	e.advance(5 * time.Minute)
	e.now()
}
