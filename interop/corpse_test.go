package interop

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// corpseRole makes this test binary an official client that leaves one of each remains
// and is killed; its value is the PD address.
const corpseRole = "TIKV_INTEROP_CORPSE"

// corpse is a client that is about to die, with the keys of one case.
type corpse struct {
	context.Context
	client *txnkv.Client
	prefix string
}

// remains are what a client leaves when it dies: locks of the case's keys "a" and "z", in
// two regions, whose values were "old" and were to be "new". The primary is "a".
type remains struct {
	name      string
	leave     func(*corpse)
	committed bool   // what is to become of it
	value     string // if committed; empty for "new"
}

func allRemains() []remains {
	return []remains{
		{name: "prewritten", leave: func(c *corpse) { c.prewriteAll(c.written()) }},
		{name: "only the primary prewritten", leave: func(c *corpse) { c.prewrite(c.written(), "a") }},
		{name: "only the secondary prewritten", leave: func(c *corpse) { c.prewrite(c.written(), "z") }},
		{name: "primary committed", committed: true, leave: func(c *corpse) { c.commitPrimary(c.prewriteAll(c.written())) }},
		{name: "primary rolled back", leave: func(c *corpse) {
			tx := c.written()
			c.prewriteAll(tx)
			c.rollback(tx, "a")
		}},
		{name: "deletions", leave: func(c *corpse) { c.prewriteAll(c.deleted()) }},
		{name: "deletions, primary committed", committed: true, value: "none", leave: func(c *corpse) { c.commitPrimary(c.prewriteAll(c.deleted())) }},
		{name: "long values", leave: func(c *corpse) {
			tx := c.begin()
			c.set(tx, "a", strings.Repeat("new", 1000))
			c.set(tx, "z", strings.Repeat("new", 1000))
			c.prewriteAll(tx)
		}},
		{name: "long values, primary committed", committed: true, value: strings.Repeat("new", 1000), leave: func(c *corpse) {
			tx := c.begin()
			c.set(tx, "a", strings.Repeat("new", 1000))
			c.set(tx, "z", strings.Repeat("new", 1000))
			c.commitPrimary(c.prewriteAll(tx))
		}},
		{name: "many keys", leave: func(c *corpse) {
			tx := c.written()
			for i := range 300 {
				c.set(tx, fmt.Sprintf("b%03d", i), "new")
				c.set(tx, fmt.Sprintf("y%03d", i), "new")
			}
			c.prewriteAll(tx)
		}},
		{name: "pessimistic locks", leave: func(c *corpse) { c.locked("a", "z") }},
		{name: "pessimistic lock without its primary", leave: func(c *corpse) {
			tx := c.locked("a", "z")
			committer := transaction.TxnProbe{KVTxn: tx}.GetCommitter()
			keys := transaction.NewPlainMutations(1)
			keys.Push(kvrpcpb.Op_PessimisticLock, c.key("a"), nil, true, false, false, false)
			check(committer.PessimisticRollbackMutations(c, &keys))
		}},
		{name: "pessimistic, only the primary prewritten", leave: func(c *corpse) {
			tx := c.locked("a", "z")
			c.write(tx)
			c.prewrite(tx, "a")
		}},
		{name: "pessimistic, prewritten", leave: func(c *corpse) {
			tx := c.locked("a", "z")
			c.write(tx)
			c.prewriteAll(tx)
		}},
		{name: "pessimistic, primary committed", committed: true, leave: func(c *corpse) {
			tx := c.locked("a", "z")
			c.write(tx)
			c.commitPrimary(c.prewriteAll(tx))
		}},
		{name: "locked and not written, prewritten", leave: func(c *corpse) { c.prewriteAll(c.locked("a", "z")) }},
		{name: "fair locks, one in spite of a conflict", leave: func(c *corpse) {
			tx := c.begin()
			tx.SetPessimistic(true)
			c.lock(tx, c.now(), "a")
			before := c.now()
			other := c.begin()
			c.set(other, "z", "old")
			check(other.Commit(c))
			tx.StartAggressiveLocking()
			lc := c.lock(tx, before, "z")
			if lc.MaxLockedWithConflictTS != other.CommitTS() {
				check(fmt.Errorf("locked as of %d, not %d", lc.MaxLockedWithConflictTS, other.CommitTS()))
			}
		}},
		{name: "async, prewritten", committed: true, leave: func(c *corpse) { c.async(c.written(), "a", "z") }},
		{name: "async, secondary missing", leave: func(c *corpse) { c.async(c.written(), "a") }},
		{name: "async, primary missing", leave: func(c *corpse) { c.async(c.written(), "z") }},
		{name: "async, primary committed", committed: true, leave: func(c *corpse) { c.commitPrimary(c.async(c.written(), "a", "z")) }},
		{name: "async, pessimistic, prewritten", committed: true, leave: func(c *corpse) {
			tx := c.locked("a", "z")
			c.write(tx)
			c.async(tx, "a", "z")
		}},
		{name: "async, pessimistic, secondary not prewritten", leave: func(c *corpse) {
			tx := c.locked("a", "z")
			c.write(tx)
			c.async(tx, "a")
		}},
		{name: "one phase that fell back", leave: func(c *corpse) {
			tx := c.written()
			tx.SetEnable1PC(true)
			go tx.Commit(c) // its commit is lost
			c.await(2)
		}},
		{name: "flushed", leave: func(c *corpse) { c.flushed() }},
		{name: "flushed, primary committed", committed: true, leave: func(c *corpse) {
			check(c.flushed().Commit(c)) // its resolving is lost
		}},
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (c *corpse) key(k string) []byte { return []byte(c.prefix + k) }

func (c *corpse) now() uint64 {
	ts, err := c.client.GetTimestamp(c)
	check(err)
	return ts
}

func (c *corpse) begin(opts ...tikv.TxnOption) *transaction.KVTxn {
	tx, err := c.client.Begin(opts...)
	check(err)
	return tx
}

func (c *corpse) set(tx *transaction.KVTxn, key, value string) {
	check(tx.Set(c.key(key), []byte(value)))
}

func (c *corpse) write(tx *transaction.KVTxn) {
	c.set(tx, "a", "new")
	c.set(tx, "z", "new")
}

func (c *corpse) written() *transaction.KVTxn {
	tx := c.begin()
	c.write(tx)
	return tx
}

func (c *corpse) deleted() *transaction.KVTxn {
	tx := c.begin()
	check(tx.Delete(c.key("a")))
	check(tx.Delete(c.key("z")))
	return tx
}

func (c *corpse) flushed() *transaction.KVTxn {
	tx := c.begin(tikv.WithDefaultPipelinedTxn())
	c.write(tx)
	_, err := tx.GetMemBuffer().Flush(true)
	check(err)
	check(tx.GetMemBuffer().FlushWait())
	return tx
}

// locked is a pessimistic transaction with locks.
func (c *corpse) locked(keys ...string) *transaction.KVTxn {
	tx := c.begin()
	tx.SetPessimistic(true)
	for _, k := range keys {
		c.lock(tx, c.now(), k)
	}
	return tx
}

func (c *corpse) lock(tx *transaction.KVTxn, forUpdate uint64, key string) *kv.LockCtx {
	lc := kv.NewLockCtx(forUpdate, kv.LockNoWait, time.Now())
	lc.InitReturnValues(1)
	check(tx.LockKeys(c, lc, c.key(key)))
	return lc
}

// committer prepares a transaction's two phases.
func (c *corpse) committer(tx *transaction.KVTxn) transaction.CommitterProbe {
	probe := transaction.TxnProbe{KVTxn: tx}
	if committer := probe.GetCommitter(); !committer.IsNil() {
		check(committer.InitKeysAndMutations())
		return committer
	}
	committer, err := probe.NewCommitter(1)
	check(err)
	committer.SetPrimaryKey(c.key("a"))
	return committer
}

func (c *corpse) prewriteAll(tx *transaction.KVTxn) transaction.CommitterProbe {
	committer := c.committer(tx)
	check(committer.PrewriteAllMutations(c))
	return committer
}

func (c *corpse) prewrite(tx *transaction.KVTxn, keys ...string) transaction.CommitterProbe {
	committer := c.committer(tx)
	c.prewriteKeys(committer, keys)
	return committer
}

func (c *corpse) prewriteKeys(committer transaction.CommitterProbe, keys []string) {
	for _, k := range keys {
		check(committer.PrewriteMutations(c, committer.MutationsOfKeys([][]byte{c.key(k)})))
	}
}

func (c *corpse) async(tx *transaction.KVTxn, keys ...string) transaction.CommitterProbe {
	committer := c.committer(tx)
	committer.SetUseAsyncCommit()
	c.prewriteKeys(committer, keys)
	if !committer.IsAsyncCommit() {
		check(fmt.Errorf("it fell back"))
	}
	return committer
}

func (c *corpse) commitPrimary(committer transaction.CommitterProbe) {
	committer.SetCommitTS(max(c.now(), committer.GetMinCommitTS()))
	check(committer.CommitMutations(c))
}

func (c *corpse) rollback(tx *transaction.KVTxn, key string) {
	bo := tikv.NewBackoffer(c, 20_000)
	loc, err := c.client.GetRegionCache().LocateKey(bo, c.key(key))
	check(err)
	req := tikvrpc.NewRequest(tikvrpc.CmdBatchRollback, &kvrpcpb.BatchRollbackRequest{StartVersion: tx.StartTS(), Keys: [][]byte{c.key(key)}})
	resp, err := c.client.SendReq(bo, req, loc.Region, 10*time.Second)
	check(err)
	if answer := resp.Resp.(*kvrpcpb.BatchRollbackResponse); answer.RegionError != nil || answer.Error != nil {
		check(fmt.Errorf("%v", answer))
	}
}

// await waits for locks.
func (c *corpse) await(n int) {
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		locks, err := tikv.StoreProbe{KVStore: c.client.KVStore}.ScanLocks(c, c.key(""), c.key("~"), c.now())
		check(err)
		if len(locks) == n {
			return
		}
	}
}

// leaveAll leaves one of each and is killed.
func leaveAll(pd string) int {
	client, err := txnkv.NewClient(strings.Split(pd, ","))
	check(err)
	for i, r := range allRemains() {
		c := &corpse{context.Background(), client, casePrefix(i)}
		func() {
			defer func() {
				if err := recover(); err != nil {
					fmt.Fprintf(os.Stderr, "%s: %v\n", r.name, err)
					os.Exit(1)
				}
			}()
			r.leave(c)
		}()
	}
	os.Stdout.WriteString("left\n")
	syscallExit()
	return 1
}

// die lets an official client leave one of each remains, the i-th with the keys of the
// i-th case, and lets their locks expire.
func (e *env) die() {
	e.Helper()
	var pairs, splits []string
	var losing []*injected
	for i := range allRemains() {
		pairs = append(pairs, casePrefix(i)+"a=old", casePrefix(i)+"z=old")
		splits = append(splits, casePrefix(i), casePrefix(i)+"m")
	}
	e.put(pairs...)
	e.split(splits...)
	for i, r := range allRemains() {
		if r.name == "one phase that fell back" {
			losing = append(losing, e.fault(map[string]any{"method": "KvCommit", "key": []byte(casePrefix(i) + "a"), "drop_request": true}))
		}
	}
	losing = append(losing, e.fault(map[string]any{"method": "KvResolveLock", "drop_request": true}))
	died := exec.Command(os.Args[0])
	died.Env = append(os.Environ(), corpseRole+"="+strings.Join(e.c.PD, ","))
	died.Stderr = os.Stderr
	if out, _ := died.Output(); !strings.Contains(string(out), "left") {
		e.Fatalf("the client did not come to its end: %q", out)
	}
	for _, f := range losing {
		f.remove()
	}
	e.advance(5 * time.Minute)
	e.now()
}

// deadAreas let who comes later meet each of the remains.
func deadAreas() []area {
	var all []area
	for _, finder := range []struct {
		name   string
		writes bool // and so the locks go; a reader may pass some
		find   func(*env) string
	}{
		{"get", false, func(e *env) string { return e.gets(e.snapshot(), "z", "a") }},
		{"batch get", false, func(e *env) string {
			got, err := e.snapshot().BatchGet(e.ctx(), e.keys("a", "z"))
			e.must(err)
			return e.value2(got[string(e.key("a"))], got[string(e.key("z"))])
		}},
		{"scan", false, func(e *env) string {
			it, err := e.snapshot().Iter(e.key(""), e.end())
			e.must(err)
			found := make(map[string][]byte)
			for ; it.Valid(); e.must(it.Next()) {
				found[e.bare(it.Key())] = it.Value()
			}
			for k := range found {
				if k != "a" && k != "z" {
					e.Fatalf("%s is there", k)
				}
			}
			return e.value2(found["a"], found["z"])
		}},
		{"a write", true, func(e *env) string {
			// Another key first: the transaction's keys stay what they are.
			tx := e.begin()
			for _, k := range []string{"a", "z"} {
				e.must(tx.LockKeys(e.ctx(), kv.NewLockCtx(tx.StartTS(), kv.LockAlwaysWait, time.Now()), e.key(k)))
			}
			if err := tx.Commit(e.ctx()); err != nil && !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			return e.gets(e.snapshot(), "a", "z")
		}},
		{"a pessimistic lock", true, func(e *env) string {
			tx := e.pessimistic()
			for {
				lc, err := e.lockCtx(tx, kv.LockNoWait, func(lc *kv.LockCtx) { lc.InitReturnValues(2) }, "z", "a")
				if tikverr.IsErrWriteConflict(err) {
					continue // committed meanwhile
				}
				e.must(err)
				e.must(tx.Rollback())
				got := make([][]byte, 2)
				for i, k := range []string{"a", "z"} {
					if v := e.value(lc, k); v.Exists {
						got[i] = v.Value
					}
				}
				return e.value2(got[0], got[1])
			}
		}},
		{"a flush", true, func(e *env) string {
			tx := e.pipe()
			e.set(tx, "a=flushed", "z=flushed")
			_, err := tx.GetMemBuffer().Flush(true)
			if err == nil {
				err = tx.GetMemBuffer().FlushWait()
			}
			if err != nil && !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.must(tx.Rollback())
			return e.gets(e.snapshot(), "a", "z")
		}},
		{"garbage collection", true, func(e *env) string {
			e.collect(e.now())
			e.same("locks", len(e.locks()), 0)
			return e.gets(e.snapshot(), "a", "z")
		}},
		{"our reader", false, func(e *env) string {
			ours := e.c.peer(e.T)
			var got [2][]byte
			for i, k := range []string{"a", "z"} {
				if a := ours.try(e.T, command{Do: "latest", Key: string(e.key(k))}); a.Value != nil {
					got[i] = []byte(*a.Value)
				} else if a.Kind != "absent" {
					e.Fatalf("%+v", a)
				}
			}
			return e.value2(got[0], got[1])
		}},
		{"our writer", true, func(e *env) string {
			ours := e.c.peer(e.T)
			for _, k := range []string{"z", "a"} {
				ours.ask(e.T, command{Do: "begin"})
				ours.ask(e.T, command{Do: "put", Key: string(e.key(k)), Value: "passing"})
				if a := ours.try(e.T, command{Do: "commit"}); a.Error != "" {
					e.Fatalf("%+v", a)
				}
			}
			return e.gets(e.snapshot(), "a", "z")
		}},
		{"our pessimistic lock", true, func(e *env) string { return e.lockedByOurs(false) }},
		{"our fair lock", true, func(e *env) string { return e.lockedByOurs(true) }},
		{"our asking for its outcome", false, func(e *env) string {
			// Whoever asks settles it, whatever of it is left.
			left := e.locks()[0]
			settled := e.c.peer(e.T).ask(e.T, command{Do: "outcome", Key: string(left.Primary), TS: left.TxnID})
			read := e.gets(e.snapshot(), "a", "z")
			e.same("committed", settled.TS != 0, read != "old old")
			return read
		}},
	} {
		a := area{name: "left by the dead, met by " + finder.name, setup: (*env).die}
		ours := area{name: "left by our dead, met by " + finder.name, setup: (*env).dieOurs}
		for _, r := range allOurRemains() {
			want := map[bool]string{false: "old old", true: "new new"}[r.committed]
			ours.cases = append(ours.cases, kase{name: r.name, run: func(e *env) {
				e.same("values", finder.find(e), want)
				if finder.writes {
					e.free("a", "z")
				}
				e.put("a=later", "z=later")
				e.want(nil, "a=later", "z=later")
			}})
		}
		if !strings.HasPrefix(finder.name, "our ") {
			all = append(all, ours)
		}
		for _, r := range allRemains() {
			want := "old"
			if r.committed {
				want = "new"
				if r.value != "" {
					want = r.value
				}
			}
			if finder.name == "our writer" {
				want = "passing"
			}
			a.cases = append(a.cases, kase{name: r.name, run: func(e *env) {
				e.same("values", finder.find(e), want+" "+want)
				if finder.writes {
					e.free("a", "z")
				}
				e.put("a=later", "z=later") // nothing is in the way of who comes then
				e.want(nil, "a=later", "z=later")
				e.free("a", "z")
			}})
		}
		all = append(all, a)
	}
	return all
}

// lockedByOurs lets our client lock the keys, and returns what they held then.
func (e *env) lockedByOurs(fair bool) string {
	e.Helper()
	ours := e.c.peer(e.T)
	ours.ask(e.T, command{Do: "begin", Option: "pessimistic"})
	if fair {
		ours.ask(e.T, command{Do: "fair"})
	}
	got := make(map[string][]byte)
	for _, k := range []string{"z", "a"} {
		a := ours.try(e.T, command{Do: "lock", Key: string(e.key(k))})
		if a.Value != nil {
			got[k] = []byte(*a.Value)
		} else if a.Kind != "absent" {
			e.Fatalf("%+v", a)
		}
	}
	ours.ask(e.T, command{Do: "rollback"})
	return e.value2(got["a"], got["z"])
}

// collect lets the official client collect garbage. Today's PD wants to know first that
// no transaction reads below, as TiDB tells it.
func (e *env) collect(below uint64) {
	e.Helper()
	_, err := e.txn.GetPDClient().UpdateServiceGCSafePoint(e.ctx(), "gc_worker", math.MaxInt64, below)
	e.must(err)
	got, err := e.txn.GC(e.ctx(), below)
	e.must(err)
	e.same("safe point", got, below)
}

// free waits until keys have no lock.
func (e *env) free(keys ...string) {
	e.Helper()
	for _, k := range keys {
		e.eventually("no lock on "+k, func() bool { return !strings.Contains(e.history(k), "Lock:") })
	}
}

func (e *env) value2(a, b []byte) string {
	name := func(v []byte) string {
		if v == nil {
			return "none"
		}
		return string(v)
	}
	return name(a) + " " + name(b)
}

// gets reads the keys "a" and "z" in an order.
func (e *env) gets(from getter, order ...string) string {
	e.Helper()
	got := make(map[string][]byte)
	for _, k := range order {
		v, err := from.Get(e.ctx(), e.key(k))
		if err != nil && !tikverr.IsErrNotFound(err) {
			e.Fatal(err)
		}
		got[k] = v
	}
	return e.value2(got["a"], got["z"])
}
