package playground

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/task"
)

// contest is a cluster whose transactions compete for locks, in fake time.
type contest struct {
	*testCluster
	tasks *task.Group
	began time.Time
	ends  chan string
	ts    map[string]uint64 // by name
	names map[uint64]string
}

func compete(t *testing.T, f func(c *contest), opts ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &contest{testCluster: start(t, opts...), tasks: task.Root(t.Context()), ends: make(chan string, 1000),
			ts: make(map[string]uint64), names: make(map[uint64]string)}
		defer c.tasks.Close(nil)
		for _, name := range []string{"t1", "t2", "t3", "t4", "t5"} {
			c.ts[name] = c.timestamp()
			c.names[c.ts[name]] = name
		}
		c.began = time.Now()
		f(c)
	})
}

// do lets a transaction run a command, whose answer expect finds:
//
//	lock key... [wait=MS] [force] [first] [values] [exist] [onlyif] [absent] [share] [ttl=MS]
//	unlock [key...], prewrite key, prewriteshare key, commit key, rollback key, resolve key
func (c *contest) do(name, command string) {
	c.t.Helper()
	words := strings.Fields(command)
	rest := words[1:]
	has := func(option string) bool {
		i := slices.Index(rest, option)
		if i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
		return i >= 0
	}
	number := func(option string, n int64) int64 {
		for i, w := range rest {
			if v, ok := strings.CutPrefix(w, option+"="); ok {
				_, err := fmt.Sscan(v, &n)
				if err != nil {
					c.t.Fatal(err)
				}
				rest = slices.Delete(rest, i, i+1)
				break
			}
		}
		return n
	}
	ts := c.ts[name]
	var call func() string
	switch words[0] {
	case "lock":
		req := &kvrpcpb.PessimisticLockRequest{
			StartVersion: ts, ForUpdateTs: max(ts, c.ts[name+"'"]), LockTtl: uint64(number("ttl", 3000)), WaitTimeout: number("wait", 0),
			IsFirstLock: has("first"), ReturnValues: has("values"), CheckExistence: has("exist"), LockOnlyIfExists: has("onlyif"),
		}
		if has("force") {
			req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
		}
		assertion := kvrpcpb.Assertion_None
		if has("absent") {
			assertion = kvrpcpb.Assertion_NotExist
		}
		op := kvrpcpb.Op_PessimisticLock
		if has("share") {
			op = kvrpcpb.Op_SharedPessimisticLock
		}
		for _, k := range rest {
			req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{
				Op: op, Key: c.api.wireKey(KeyTxn, []byte(k)), Assertion: assertion})
		}
		req.PrimaryLock = req.Mutations[0].Key
		ctx, kv := c.at(KeyTxn, rest[0])
		ctx.ResourceGroupTag = []byte(name)
		req.Context = ctx
		call = func() string {
			p, err := kv.KvPessimisticLock(c.tasks.Context(), req)
			return c.showLock(p, err)
		}
	case "unlock":
		key := ""
		req := &kvrpcpb.PessimisticRollbackRequest{StartVersion: ts, ForUpdateTs: 1 << 62}
		for _, k := range rest {
			key = k
			req.Keys = append(req.Keys, c.api.wireKey(KeyTxn, []byte(k)))
		}
		ctx, kv := c.at(KeyTxn, key)
		req.Context = ctx
		call = func() string {
			p, err := kv.KVPessimisticRollback(c.tasks.Context(), req)
			return c.show(p.GetRegionError(), p.GetErrors(), err)
		}
	default:
		call = c.other(name, words[0], rest[0], ts)
	}
	c.tasks.Go("command", func(context.Context) {
		text := call()
		c.ends <- fmt.Sprintf("%dms %s %s", time.Since(c.began).Milliseconds(), name, text)
	})
	synctest.Wait()
}

// other is a command on one key.
func (c *contest) other(name, what, key string, ts uint64) func() string {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, key)
	wire := c.api.wireKey(KeyTxn, []byte(key))
	life := c.tasks.Context()
	switch what {
	case "prewrite", "prewriteshare":
		m := &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: wire, Value: []byte(name)}
		if what == "prewriteshare" {
			m = &kvrpcpb.Mutation{Op: kvrpcpb.Op_SharedLock, Key: wire}
		}
		return func() string {
			p, err := kv.KvPrewrite(life, &kvrpcpb.PrewriteRequest{Context: ctx, StartVersion: ts, PrimaryLock: wire, LockTtl: 3000, ForUpdateTs: max(ts, c.ts[name+"'"]),
				Mutations:          []*kvrpcpb.Mutation{m},
				PessimisticActions: []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK}})
			return c.show(p.GetRegionError(), p.GetErrors(), err)
		}
	case "commit", "resolve":
		commitTS := c.timestamp()
		c.names[commitTS] = name + "c"
		if what == "resolve" {
			return func() string {
				p, err := kv.KvResolveLock(life, &kvrpcpb.ResolveLockRequest{Context: ctx, StartVersion: ts, CommitVersion: commitTS})
				return c.show(p.GetRegionError(), list(p.GetError()), err)
			}
		}
		return func() string {
			p, err := kv.KvCommit(life, &kvrpcpb.CommitRequest{Context: ctx, StartVersion: ts, CommitVersion: commitTS, Keys: [][]byte{wire}})
			return c.show(p.GetRegionError(), list(p.GetError()), err)
		}
	case "rollback":
		return func() string {
			p, err := kv.KvBatchRollback(life, &kvrpcpb.BatchRollbackRequest{Context: ctx, StartVersion: ts, Keys: [][]byte{wire}})
			return c.show(p.GetRegionError(), list(p.GetError()), err)
		}
	case "resolveback":
		return func() string {
			p, err := kv.KvResolveLock(life, &kvrpcpb.ResolveLockRequest{Context: ctx, StartVersion: ts, Keys: [][]byte{wire}})
			return c.show(p.GetRegionError(), list(p.GetError()), err)
		}
	case "expire": // asks when the lock's time to live is over
		c.Advance(4 * time.Second)
		now := c.timestamp()
		return func() string {
			p, err := kv.KvCheckTxnStatus(life, &kvrpcpb.CheckTxnStatusRequest{Context: ctx, PrimaryKey: wire, LockTs: ts, CurrentTs: now, RollbackIfNotExist: true})
			return p.GetAction().String() + c.show(p.GetRegionError(), list(p.GetError()), err)
		}
	}
	c.t.Fatalf("what is %q?", what)
	return nil
}

func list(e *kvrpcpb.KeyError) []*kvrpcpb.KeyError {
	if e == nil {
		return nil
	}
	return []*kvrpcpb.KeyError{e}
}

func (c *contest) name(ts uint64) string {
	if name := c.names[ts]; name != "" || ts == 0 {
		return name
	}
	return fmt.Sprint(ts)
}

func (c *contest) show(re *errorpb.Error, errs []*kvrpcpb.KeyError, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case re != nil:
		return kindOf(re).String()
	case len(errs) == 0:
		return "ok"
	case len(errs) > 1:
		return fmt.Sprint(errs)
	}
	user := func(wire []byte) string { return string(c.api.userKey(wire)) }
	switch e := errs[0]; {
	case e.Locked.GetLockType() == kvrpcpb.Op_SharedLock:
		var by []string
		for _, h := range e.Locked.SharedLockInfos {
			by = append(by, c.name(h.LockVersion))
		}
		return fmt.Sprintf("locked %s in share mode by %s", user(e.Locked.Key), strings.Join(by, " "))
	case e.Locked != nil:
		return fmt.Sprintf("locked %s by %s, %d ms", user(e.Locked.Key), c.name(e.Locked.LockVersion), e.Locked.DurationToLastUpdateMs)
	case e.Conflict != nil:
		return fmt.Sprintf("conflict %s: %s at %s, %v", user(e.Conflict.Key), c.name(e.Conflict.ConflictTs), c.name(e.Conflict.ConflictCommitTs), e.Conflict.Reason)
	case e.Deadlock != nil:
		var chain []string
		for _, w := range e.Deadlock.WaitChain {
			chain = append(chain, fmt.Sprintf("%s>%s:%s(%s)", c.name(w.Txn), c.name(w.WaitForTxn), user(w.Key), w.ResourceGroupTag))
		}
		return fmt.Sprintf("deadlock at %s of %s: %s", user(e.Deadlock.LockKey), c.name(e.Deadlock.LockTs), strings.Join(chain, " "))
	case e.PrimaryMismatch != nil:
		return " mismatch"
	case e.AlreadyExist != nil:
		return "exists " + user(e.AlreadyExist.Key)
	}
	return errs[0].String()
}

func (c *contest) showLock(p *kvrpcpb.PessimisticLockResponse, err error) string {
	text := c.show(p.GetRegionError(), p.GetErrors(), err)
	for i, absent := range p.GetNotFounds() {
		switch {
		case absent:
			text += " absent"
		case len(p.Values) > 0:
			text += " =" + string(p.Values[i])
		default:
			text += " exists"
		}
	}
	for _, r := range p.GetResults() {
		text += " " + strings.TrimPrefix(r.Type.String(), "LockResult")
		if r.Existence {
			text += " =" + string(r.Value)
		}
		if r.LockedWithConflictTs != 0 {
			text += "@" + c.name(r.LockedWithConflictTs)
		}
	}
	return text
}

// expect compares the answers that have come since the last time, in any order.
func (c *contest) expect(want ...string) {
	c.t.Helper()
	synctest.Wait()
	var got []string
	for len(c.ends) > 0 {
		got = append(got, <-c.ends)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		c.t.Fatalf("\n got %q\nwant %q", got, want)
	}
}

func pass(d time.Duration) { <-time.After(d) }

// What ends a wait, as rules: transaction t1 has locked k, t2 waits, and t1 does what
// the rule says.
func TestReleases(t *testing.T) {
	for _, r := range []struct{ by, mode, answer, want string }{
		{"unlock k", "", "ok", "conflict k: t1 at , PessimisticRetry"},
		{"unlock", "", "ok", "conflict k: t1 at , PessimisticRetry"}, // the whole region
		{"rollback k", "", "ok", "conflict k: t1 at , PessimisticRetry"},
		{"commit k", "", "ok", "conflict k: t1 at , PessimisticRetry"}, // of a pessimistic lock: it is just removed
		{"resolve k", "", "ok", "conflict k: t1 at , PessimisticRetry"},
		{"resolveback k", "", "ok", "conflict k: t1 at , PessimisticRetry"},
		{"expire k", "", "TTLExpireRollbackok", "conflict k: t1 at , PessimisticRetry"},
		{"unlock k", "force", "ok", "ok Normal"},
		{"unlock k", "force exist", "ok", "ok Normal"},
		{"expire k", "force", "TTLExpireRollbackok", "ok Normal"},
	} {
		t.Run(r.by+" "+r.mode, func(t *testing.T) {
			compete(t, func(c *contest) {
				c.do("t1", "lock k")
				c.do("t2", "lock k "+r.mode)
				c.expect("0ms t1 ok")
				pass(5 * time.Millisecond)
				c.do("t1", r.by)
				c.expect("5ms t1 "+r.answer, "5ms t2 "+r.want)
				holder := uint64(0)
				if strings.HasPrefix(r.mode, "force") {
					holder = c.ts["t2"]
				}
				if l := c.Locks(nil, nil); holder == 0 && len(l) > 0 || holder != 0 && (len(l) != 1 || l[0].StartTS != holder) {
					c.t.Fatal(l)
				}
			})
		})
	}
}

// The same after t1 has prewritten: the waiter hears of the commit timestamp, or gets
// the lock in spite of it, with the value.
func TestReleasedByCommit(t *testing.T) {
	for _, r := range []struct{ by, mode, want string }{
		{"commit k", "", "conflict k: t1 at t1c, PessimisticRetry"},
		{"resolve k", "", "conflict k: t1 at t1c, PessimisticRetry"},
		{"rollback k", "", "conflict k: t1 at , PessimisticRetry"},
		{"commit k", "force", "ok LockedWithConflict =t1@t1c"},
		{"resolve k", "force", "ok LockedWithConflict =t1@t1c"},
		{"rollback k", "force", "ok Normal"},
		{"commit k", "force absent", "conflict k: t1 at t1c, PessimisticRetry Failed"},
	} {
		t.Run(r.by+" "+r.mode, func(t *testing.T) {
			compete(t, func(c *contest) {
				c.do("t1", "lock k")
				c.do("t1", "prewrite k")
				c.do("t2", "lock k "+r.mode)
				c.expect("0ms t1 ok", "0ms t1 ok")
				c.do("t1", r.by)
				c.expect("0ms t1 ok", "0ms t2 "+r.want)
				for _, l := range c.Locks(nil, nil) {
					if at := c.name(l.ForUpdateTS); l.StartTS != c.ts["t2"] || strings.Contains(r.want, "WithConflict") != (at == "t1c") {
						c.t.Fatal(l, at)
					}
				}
			})
		})
	}
}

func TestWaitTimeouts(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t2", "lock k wait=-1")
		c.do("t3", "lock k wait=-1 force")
		c.do("t2", "lock k wait=30")
		c.do("t3", "lock k wait=0")
		c.do("t4", "lock k wait=50000 force")
		c.expect("0ms t1 ok", "0ms t2 locked k by t1, 0 ms", "0ms t3 locked k by t1, 0 ms Failed")
		if w := c.Waiting(); len(w) != 3 || w[0].Method != "KvPessimisticLock" || w[0].StartTS != c.ts["t2"] || w[0].Keys != 1 || w[0].Node.String() == "any node" || w[0].Region == 0 {
			c.t.Fatal(w)
		}
		pass(time.Second)
		c.expect("30ms t2 locked k by t1, 0 ms", "1000ms t3 locked k by t1, 0 ms", "1000ms t4 locked k by t1, 0 ms Failed")
		if w := c.Waiting(); len(w) != 0 {
			c.t.Fatal(w)
		}
		// What waits is not in the way of the store: a lock that is free is taken.
		c.do("t2", "lock k")
		c.do("t3", "lock j")
		c.expect("1000ms t3 ok")
		c.do("t1", "unlock k")
		c.expect("1000ms t1 ok", "1000ms t2 conflict k: t1 at , PessimisticRetry")
	})
}

// The oldest is woken first and the key left free; whoever takes it then is named to
// those who wait on, with the time since.
func TestWaitersSeeNewHolder(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t4", "lock k wait=500")
		c.do("t3", "lock k wait=500")
		c.do("t1", "unlock k")
		c.expect("0ms t1 ok", "0ms t1 ok", "0ms t3 conflict k: t1 at , PessimisticRetry")
		pass(10 * time.Millisecond)
		c.do("t2", "lock k")
		c.do("t5", "lock k wait=30")
		pass(10 * time.Millisecond)
		c.expect("10ms t2 ok", "20ms t4 conflict k: t1 at , PessimisticRetry")
		pass(20 * time.Millisecond)
		c.expect("40ms t5 locked k by t2, 0 ms")
		// In the mode in which the server grants them, locks pass from one to the next.
		c.do("t3", "lock k force wait=100")
		c.do("t4", "lock k force wait=100")
		c.do("t5", "lock k force wait=100")
		c.do("t2", "unlock k")
		c.expect("40ms t2 ok", "40ms t3 ok Normal")
		pass(30 * time.Millisecond)
		c.do("t3", "unlock k")
		c.expect("70ms t3 ok", "70ms t4 ok Normal")
		pass(70 * time.Millisecond)
		c.expect("140ms t5 locked k by t4, 70 ms Failed")
	})
}

// An older transaction that comes after the wake-up stands before those who are to be
// woken with a delay, and in their way: the wake-up ends at it.
func TestLatecomerHoldsUpWakeUp(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t3", "lock k wait=500")
		c.do("t4", "lock k wait=100")
		c.do("t1", "unlock k")
		c.do("t5", "lock k")
		c.do("t2", "lock k wait=500")
		c.expect("0ms t1 ok", "0ms t1 ok", "0ms t3 conflict k: t1 at , PessimisticRetry", "0ms t5 ok")
		pass(100 * time.Millisecond)
		c.expect("100ms t4 locked k by t5, 100 ms")
		c.do("t5", "unlock k")
		c.expect("100ms t5 ok", "100ms t2 conflict k: t5 at , PessimisticRetry")
	})
}

// A request for several keys waits for one, has locked none, and is woken by that one.
func TestWaitOfSeveralKeys(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock b c")
		c.do("t2", "lock a b c d")
		c.expect("0ms t1 ok")
		if w := c.Waiting(); len(w) != 1 || w[0].Keys != 4 || len(c.Locks(nil, nil)) != 2 {
			c.t.Fatal(w, c.Locks(nil, nil))
		}
		c.do("t1", "unlock c")
		c.expect("0ms t1 ok")
		c.do("t1", "unlock b")
		c.expect("0ms t1 ok", "0ms t2 conflict b: t1 at , PessimisticRetry")
		c.do("t2", "lock a b c d values")
		c.expect("0ms t2 ok absent absent absent absent")
	})
}

// A request that is sent twice waits twice. The second meets its transaction's own lock,
// to which that is another's, and waits until its timeout.
func TestDuplicateWaiter(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t2", "lock k force wait=100")
		c.do("t2", "lock k force wait=100")
		c.do("t1", "unlock k")
		c.expect("0ms t1 ok", "0ms t1 ok", "0ms t2 ok Normal")
		pass(100 * time.Millisecond)
		c.expect("100ms t2 locked k by t2, 100 ms Failed")
		c.do("t2", "lock k force")
		c.expect("100ms t2 ok Normal")
		// In the other mode the key is left free, and both are woken in turn.
		c.do("t3", "lock k")
		c.do("t3", "lock k")
		c.do("t2", "unlock k")
		pass(20 * time.Millisecond)
		c.expect("100ms t2 ok", "100ms t3 conflict k: t2 at , PessimisticRetry", "120ms t3 conflict k: t2 at , PessimisticRetry")
	})
}

// What a request asks for holds when it is resumed too: values, existence, and to lock
// only what exists.
func TestResumedRequestsKeepTheirRules(t *testing.T) {
	for _, r := range []struct{ by, options, want string }{
		{"rollback", "values", "ok Normal"},
		{"rollback", "values onlyif", "ok Normal"}, // nothing is there: not locked
		{"commit", "values", "ok LockedWithConflict =t1@t1c"},
		{"commit", "values onlyif", "ok LockedWithConflict =t1@t1c"},
		{"commit", "exist", "ok LockedWithConflict =t1@t1c"},
		{"rollback", "absent", "ok Normal"},
	} {
		t.Run(r.by+" "+r.options, func(t *testing.T) {
			compete(t, func(c *contest) {
				c.do("t1", "lock k")
				c.do("t1", "prewrite k")
				c.do("t2", "lock k force "+r.options)
				c.do("t1", r.by+" k")
				c.expect("0ms t1 ok", "0ms t1 ok", "0ms t1 ok", "0ms t2 "+r.want)
				if locks := len(c.Locks(nil, nil)); (locks == 0) != (r.by == "rollback" && strings.Contains(r.options, "onlyif")) {
					c.t.Fatal(c.Locks(nil, nil))
				}
			})
		})
	}
}

// Circles of two to four transactions, whose keys are in different regions, led by
// different stores.
func TestDeadlock(t *testing.T) {
	split := WithSplitKeys(KeyTxn, []byte("k2"), []byte("k3"), []byte("k4"))
	for n := 2; n <= 4; n++ {
		for _, mode := range []string{"", " force"} {
			t.Run(fmt.Sprint(n, mode), func(t *testing.T) {
				compete(t, func(c *contest) {
					if leaders := c.topo.Leaders(); len(leaders) < 3 {
						c.t.Fatal(leaders)
					}
					var ok, chain []string
					for i := 1; i <= n; i++ {
						c.do(fmt.Sprintf("t%d", i), fmt.Sprintf("lock k%d first", i))
						ok = append(ok, fmt.Sprintf("0ms t%d ok", i))
					}
					c.expect(ok...)
					for i := 1; i <= n; i++ {
						next := i%n + 1
						c.do(fmt.Sprintf("t%d", i), fmt.Sprintf("lock k%d%s", next, mode))
						chain = append(chain, fmt.Sprintf("t%d>t%d:k%d(t%d)", i, next, next, i))
					}
					failed := ""
					if mode != "" {
						failed = " Failed"
					}
					c.expect(fmt.Sprintf("0ms t%d deadlock at k1 of t1: %s%s", n, strings.Join(chain, " "), failed))
					entries := 0
					for id := range uint64(3) {
						p, err := c.tikv(id+1).GetLockWaitInfo(c.t.Context(), &kvrpcpb.GetLockWaitInfoRequest{})
						if err != nil || p.Error != "" {
							c.t.Fatal(p, err)
						}
						for _, e := range p.Entries {
							entries++
							if name := c.name(e.Txn); string(e.ResourceGroupTag) != name || e.KeyHash == 0 || c.name(e.WaitForTxn) == "" {
								c.t.Fatal(e)
							}
						}
					}
					if entries != n-1 {
						c.t.Fatal(entries)
					}
					// The victim gives way, and the one who waits for it goes on.
					c.do(fmt.Sprintf("t%d", n), fmt.Sprintf("unlock k%d", n))
					want := "ok Normal"
					if mode == "" {
						want = fmt.Sprintf("conflict k%d: t%d at , PessimisticRetry", n, n)
					}
					c.expect(fmt.Sprintf("0ms t%d ok", n), fmt.Sprintf("0ms t%d %s", n-1, want))
				}, split)
			})
		}
	}
}

// A first lock is never looked at: the circle ends by the timeouts.
func TestFirstLockHidesDeadlock(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock a")
		c.do("t2", "lock b")
		c.do("t1", "lock b wait=200")
		c.do("t2", "lock a wait=100 first")
		c.expect("0ms t1 ok", "0ms t2 ok")
		pass(200 * time.Millisecond)
		c.expect("100ms t2 locked a by t1, 0 ms", "200ms t1 locked b by t2, 0 ms")
	})
}

// Who waits for a key when another gets its lock may be in a circle with that one.
func TestDeadlockWithNewHolder(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock a")
		c.do("t3", "lock b")
		c.do("t2", "lock a force")
		c.do("t3", "lock a force")
		c.do("t2", "lock b force")
		c.expect("0ms t1 ok", "0ms t3 ok")
		c.do("t1", "unlock a")
		c.expect("0ms t1 ok", "0ms t2 ok Normal", "0ms t3 deadlock at a of t2: t2>t3:b(t2) t3>t2:a(t3) Failed")
	})
}

// What a move of the region does to who waits in it: the old leader's waiters hear of
// nothing more, and of a split only who is to be granted the lock.
func TestRegionMovesUnderWaiters(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t2", "lock k wait=300")
		r := c.topo.ByKey(c.api.regionKey(KeyTxn, []byte("k")))
		next := r.LeaderStore()%3 + 1
		if err := c.topo.TransferLeader(r.ID(), next); err != nil {
			c.t.Fatal(err)
		}
		c.do("t3", "lock k force")
		c.do("t1", "unlock k")
		c.expect("0ms t1 ok", "0ms t1 ok", "0ms t3 ok Normal")
		pass(300 * time.Millisecond)
		c.expect("300ms t2 locked k by t1, 0 ms")

		c.do("t4", "lock k force")
		if _, err := c.topo.Split(r.ID(), [][]byte{c.api.regionKey(KeyTxn, []byte("j"))}); err != nil {
			c.t.Fatal(err)
		}
		c.do("t3", "unlock k")
		c.expect("300ms t3 ok", "300ms t4 EpochNotMatch Failed")
		c.do("t1", "lock k")
		c.do("t2", "lock k")
		if _, err := c.topo.Split(r.ID(), [][]byte{c.api.regionKey(KeyTxn, []byte("jj"))}); err != nil {
			c.t.Fatal(err)
		}
		c.do("t1", "unlock k")
		c.expect("300ms t1 ok", "300ms t1 ok", "300ms t2 conflict k: t1 at , PessimisticRetry")
	})
}

// A store that stops ends what waits at it.
func TestStoreStopsUnderWaiters(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k")
		c.do("t2", "lock k")
		c.expect("0ms t1 ok")
		if err := c.Stop(Store(c.topo.ByKey(c.api.regionKey(KeyTxn, []byte("k"))).LeaderStore())); err != nil {
			c.t.Fatal(err)
		}
		if len(c.Waiting()) != 0 || time.Since(c.began) != 0 {
			c.t.Fatal(c.Waiting(), time.Since(c.began))
		}
		synctest.Wait()
		if len(c.ends) != 1 || !strings.Contains(<-c.ends, "Unavailable") {
			c.t.Fatal("the call did not fail")
		}
		c.do("t1", "unlock k")
		c.do("t3", "lock k")
		c.expect("0ms t1 ok", "0ms t3 ok")
	})
}

// Transactions lock keys in any order, in both modes, and give up at any answer but
// success. No key ever has two holders, each wait ends within its timeout, and in the
// end nothing waits and nothing is locked.
func TestLockChaos(t *testing.T) {
	counts := make(map[string]int)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			compete(t, func(c *contest) { c.chaos(seed, counts) }, WithSplitKeys(KeyTxn, []byte("k2"), []byte("k4")))
		})
	}
	for _, what := range []string{"locked", "conflict", "deadlock", "ok"} {
		if counts[what] == 0 {
			t.Errorf("never %s: %v", what, counts)
		}
	}
}

func (c *contest) chaos(seed uint64, counts map[string]int) {
	for id := range uint64(3) {
		c.tikv(id + 1) // connected once, for all
	}
	h := &holders{c: c, of: make(map[string]uint64), counts: counts}
	clients := make(chan struct{}, 100)
	begin := make(chan struct{})
	const n = 8
	for i := range n {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		ts := make([]uint64, 12)
		for j := range ts {
			ts[j] = c.timestamp()
		}
		c.tasks.Go("client", func(context.Context) {
			defer func() { clients <- struct{}{} }()
			<-begin
			for _, startTS := range ts {
				h.transaction(startTS, random)
			}
		})
	}
	h.ts = c.timestamp()
	close(begin)
	for i := 0; i < n; {
		select {
		case <-clients:
			i++
		case <-time.After(37 * time.Millisecond):
			r := c.topo.ByKey(c.api.regionKey(KeyTxn, []byte("k3")))
			if err := c.topo.TransferLeader(r.ID(), r.LeaderStore()%3+1); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	if l, w := c.Locks(nil, nil), c.Waiting(); len(l) != 0 || len(w) != 0 {
		c.t.Errorf("left: %v %v", l, w)
	}
}

// holders checks that a key has one holder at a time.
type holders struct {
	c      *contest
	mu     sync.Mutex
	ts     uint64
	of     map[string]uint64
	counts map[string]int
}

// transaction locks some keys one after the other, holds them a while, and ends.
func (h *holders) transaction(startTS uint64, random *rand.Rand) {
	keys := []string{"k1", "k2", "k3", "k4", "k5"}
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	keys = keys[:2+random.IntN(2)]
	locked := true
	for i, key := range keys {
		wait := time.Duration(1+random.IntN(100)) * time.Millisecond
		if locked = h.lock(startTS, key, wait, i == 0, random.IntN(2) == 0); !locked {
			break
		}
		pass(time.Duration(1+random.IntN(30)) * time.Millisecond)
	}
	h.mu.Lock()
	for key, holder := range h.of {
		if holder == startTS {
			delete(h.of, key)
		}
	}
	h.mu.Unlock()
	for _, key := range keys {
		h.end(startTS, key, locked && random.IntN(2) == 0)
	}
}

func (h *holders) next() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ts++
	return h.ts
}

// to finds a key's leader.
func (h *holders) to(key string) (*kvrpcpb.Context, tikvpb.TikvClient) {
	r := h.c.topo.ByKey(h.c.api.regionKey(KeyTxn, []byte(key)))
	return h.c.context(r.Meta, r.Leader), h.c.tikv(r.LeaderStore())
}

func (h *holders) lock(startTS uint64, key string, wait time.Duration, first, force bool) bool {
	for range 10 {
		ctx, kv := h.to(key)
		req := &kvrpcpb.PessimisticLockRequest{
			Context: ctx, StartVersion: startTS, ForUpdateTs: h.next(), PrimaryLock: []byte(key), LockTtl: 1 << 30,
			WaitTimeout: wait.Milliseconds(), IsFirstLock: first,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte(key)}},
		}
		if force {
			req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
		}
		began := time.Now()
		p, err := kv.KvPessimisticLock(h.c.tasks.Context(), req)
		if took := time.Since(began); took > wait {
			h.c.t.Errorf("waited %v, not %v", took, wait)
		}
		switch {
		case err != nil:
			h.c.t.Error(err)
			return false
		case p.RegionError != nil:
			continue
		case len(p.Errors) == 0:
			return h.took(startTS, key)
		}
		h.count(p.Errors[0])
		if p.Errors[0].Conflict == nil {
			return false
		}
	}
	return false
}

func (h *holders) took(startTS uint64, key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if holder := h.of[key]; holder != 0 && holder != startTS {
		h.c.t.Errorf("%s is %d's and %d's", key, holder, startTS)
	}
	h.of[key] = startTS
	h.counts["ok"]++
	return true
}

func (h *holders) count(e *kvrpcpb.KeyError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e.Locked != nil:
		h.counts["locked"]++
	case e.Conflict != nil:
		h.counts["conflict"]++
	case e.Deadlock != nil:
		h.counts["deadlock"]++
	default:
		h.c.t.Error(e)
	}
}

// end commits a key, or gives it up.
func (h *holders) end(startTS uint64, key string, commit bool) {
	const latest = 1 << 62
	for range 10 {
		ctx, kv := h.to(key)
		life := h.c.tasks.Context()
		if !commit {
			p, err := kv.KVPessimisticRollback(life, &kvrpcpb.PessimisticRollbackRequest{Context: ctx, StartVersion: startTS, ForUpdateTs: latest, Keys: [][]byte{[]byte(key)}})
			if err == nil && p.RegionError != nil {
				continue
			}
			if err != nil || len(p.Errors) > 0 {
				h.c.t.Error(p, err)
			}
			return
		}
		w, err := kv.KvPrewrite(life, &kvrpcpb.PrewriteRequest{Context: ctx, StartVersion: startTS, PrimaryLock: []byte(key), LockTtl: 1 << 30, ForUpdateTs: h.next(),
			Mutations:          []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte(key), Value: []byte("v")}},
			PessimisticActions: []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK}})
		if err == nil && w.RegionError != nil {
			continue
		}
		if err != nil || len(w.Errors) > 0 {
			h.c.t.Error(w, err)
			return
		}
		p, err := kv.KvCommit(life, &kvrpcpb.CommitRequest{Context: ctx, StartVersion: startTS, CommitVersion: h.next(), Keys: [][]byte{[]byte(key)}})
		if err == nil && p.RegionError != nil {
			continue
		}
		if err != nil || p.Error != nil {
			h.c.t.Error(p, err)
		}
		return
	}
	h.c.t.Error("the region moves and moves")
}
