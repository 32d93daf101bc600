package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// plumbing is the surroundings of a test of pipelined transactions: three regions, and two
// clients.
type plumbing struct {
	*testing.T
	cluster *tikvtest.Cluster
	c       *tikv.Client
	other   *tikv.Client
}

func piping(t *testing.T, fn func(p *plumbing), opts ...playground.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, append(opts, playground.WithSplitKeys(playground.KeyTxn, b("k05"), b("k10")))...)
		fn(&plumbing{t, cluster, cluster.Open(), cluster.Open()})
	})
}

// begin begins a pipelined transaction that flushes whenever n keys are buffered.
func (p *plumbing) begin(n int, opts ...tikv.BeginOption) *tikv.Txn {
	p.Helper()
	return begin(p.T, p.c, append([]tikv.BeginOption{tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(n, 1<<30)}, opts...)...)
}

// open returns a client that the test may close before its end.
func (p *plumbing) open(opts ...tikv.Option) *tikv.Client {
	p.Helper()
	c, err := tikv.Open(p.Context(), p.cluster.PD(), append(p.cluster.ClientOptions(), opts...)...)
	must(p.T, err)
	p.Cleanup(func() { _ = c.Close() })
	return c
}

// put writes keys from on, as many as n.
func (p *plumbing) put(tx *tikv.Txn, value string, from, n int) {
	p.Helper()
	for i := range n {
		must(p.T, tx.Put(pipeKey(from+i), b(value)))
	}
}

func pipeKey(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }

// all reads every key of a test.
func (p *plumbing) all(r tikv.Reader) map[string]string {
	p.Helper()
	all := make(map[string]string)
	pairs, err := tikv.Collect(r.Scan(p.Context(), tikv.Range{}))
	must(p.T, err)
	for _, kv := range pairs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

func (p *plumbing) snapshot(c *tikv.Client) *tikv.Snapshot {
	p.Helper()
	s, err := c.Snapshot(p.Context())
	must(p.T, err)
	return s
}

// locks counts the locks of the cluster.
func (p *plumbing) locks() int { return len(p.cluster.Locks(nil, nil)) }

// over waits until a transaction that has ended owes nothing more.
func (p *plumbing) over(tx *tikv.Txn) {
	p.Helper()
	<-time.After(time.Minute)
	if rest := tx.Progress().Rest; rest != nil || p.locks() != 0 {
		p.Errorf("%d locks, %q are left", p.locks(), rest)
	}
}

// model is what a transaction must see.
type model struct {
	before, now map[string]string
}

// A transaction sees what it has written, wherever that is by now, and commits it all at
// one timestamp.
func TestPipelined(t *testing.T) {
	for _, api := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%v/%d", api, seed), func(t *testing.T) {
				piping(t, func(p *plumbing) { p.random(rand.New(rand.NewPCG(seed, 1))) }, playground.WithAPIVersion(api))
			})
		}
	}
}

func (p *plumbing) random(r *rand.Rand) {
	m := model{before: make(map[string]string)}
	seed := begin(p.T, p.c)
	for i := range 15 {
		if r.IntN(2) == 0 {
			m.before[string(pipeKey(i))] = "old"
			must(p.T, seed.Put(pipeKey(i), b("old")))
		}
	}
	must(p.T, seed.Commit(p.Context()))
	m.now = maps.Clone(m.before)
	limit := 1 + r.IntN(5)
	tx := p.begin(limit)
	for step := range 120 {
		i := r.IntN(15)
		key := string(pipeKey(i))
		_, there := m.now[key]
		switch r.IntN(9) {
		case 0, 1:
			m.now[key] = fmt.Sprint("v", step)
			must(p.T, tx.Put(b(key), b(m.now[key])))
		case 2:
			m.now[key] = ""
			must(p.T, tx.Put(b(key), nil))
		case 3:
			delete(m.now, key)
			must(p.T, tx.Delete(b(key)))
		case 4: // what exists would end it
			if !there {
				m.now[key] = fmt.Sprint("i", step)
				must(p.T, tx.Insert(b(key), b(m.now[key])))
			}
		case 5:
			if !there {
				must(p.T, tx.CheckAbsent(b(key)))
			}
		case 6:
			p.is(m, tx, key)
		default:
			var ks [][]byte
			for range 1 + r.IntN(20) {
				ks = append(ks, pipeKey(r.IntN(15)))
			}
			p.are(m, tx, ks)
		}
		if tx.Len() > limit {
			p.Fatalf("%d keys are buffered", tx.Len())
		}
		if r.IntN(3) == 0 { // else a flush is under way
			synctest.Wait()
		}
	}
	if done := tx.Progress(); done.Keys < 20 || done.Bytes <= 3*done.Keys || done.Regions != 0 || len(done.Rest) != 1 {
		p.Errorf("%+v", done)
	}
	before := p.snapshot(p.other)
	if got := p.all(before); !maps.Equal(got, m.before) {
		p.Errorf("before the commit there is %v", got)
	}
	must(p.T, tx.Commit(p.Context()))
	ts, _ := tx.CommitTS()
	if got := p.all(p.other.SnapshotAt(ts - 1)); !maps.Equal(got, m.before) {
		p.Errorf("just before the commit there was %v", got)
	}
	if got := p.all(p.snapshot(p.other)); !maps.Equal(got, m.now) {
		p.Errorf("there is %v, want %v", got, m.now)
	}
	p.over(tx)
	if got := p.all(before); !maps.Equal(got, m.before) {
		p.Errorf("before the commit there was %v", got)
	}
	if done := tx.Progress(); done.Regions != 3 || done.Elapsed >= time.Minute {
		p.Errorf("%+v", done)
	}
}

func (p *plumbing) is(m model, tx *tikv.Txn, key string) {
	p.Helper()
	if value, ok := m.now[key]; ok {
		want(p.T, tx, key, value)
	} else {
		want(p.T, tx, key, "-")
	}
}

func (p *plumbing) are(m model, tx *tikv.Txn, ks [][]byte) {
	p.Helper()
	got, err := tx.BatchGet(p.Context(), ks)
	must(p.T, err)
	for i, k := range ks {
		value, ok := m.now[string(k)]
		if ok != (got[i] != nil) || string(got[i]) != value {
			p.Fatalf("%s is %q, want %q", k, got[i], value)
		}
		if len(got[i]) > 0 {
			got[i][0] = 'x' // it is the caller's
		}
	}
}

// What is written stays within two buffers: one that is being written out, and one that is
// being filled.
func TestPipelinedMemory(t *testing.T) {
	piping(t, func(p *plumbing) {
		const limit, n = 64 << 10, 50 * 64
		tx := begin(p.T, p.c, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(1<<20, limit))
		held := p.cluster.Inject(playground.Fault{Method: "KvFlush", Hold: true})
		puts := make(chan int, n)
		done := start(p.Context(), func(context.Context) error {
			for i := range n {
				if err := tx.Put(fmt.Appendf(nil, "k%06d", i), make([]byte, 1017)); err != nil {
					return err
				}
				puts <- i
			}
			return nil
		})
		synctest.Wait()
		if len(puts) != 2*limit/1024 || tx.Size() > limit || held.Waiting() != 1 {
			p.Errorf("%d writes, %d bytes while %d flushes are held", len(puts), tx.Size(), held.Waiting())
		}
		held.Remove()
		must(p.T, <-done)
		if got := tx.Progress(); got.Bytes < n*1024-2*limit || tx.Size() > limit {
			p.Errorf("%+v, %d bytes are buffered", got, tx.Size())
		}
		must(p.T, tx.Commit(p.Context()))
		if got := tx.Progress(); got.Keys != n || got.Bytes != n*1024 {
			p.Errorf("%+v", got)
		}
		if got := len(p.all(p.snapshot(p.other))); got != n {
			p.Errorf("%d keys", got)
		}
		p.over(tx)
	})
}

// A key that the transaction has flushed is, to its claims, what it was flushed as.
func TestPipelinedClaims(t *testing.T) {
	for name, c := range map[string]struct {
		write func(tx *tikv.Txn) error // of k01, flushed
		claim func(tx *tikv.Txn) error
		ok    bool
	}{
		"insert again":             {func(tx *tikv.Txn) error { return tx.Insert(b("k01"), b("1")) }, func(tx *tikv.Txn) error { return tx.Insert(b("k01"), b("2")) }, false},
		"insert what was put":      {func(tx *tikv.Txn) error { return tx.Put(b("k01"), nil) }, func(tx *tikv.Txn) error { return tx.Insert(b("k01"), b("2")) }, false},
		"check what was put":       {func(tx *tikv.Txn) error { return tx.Put(b("k01"), b("1")) }, func(tx *tikv.Txn) error { return tx.CheckAbsent(b("k01")) }, false},
		"insert what was there":    {func(*tikv.Txn) error { return nil }, func(tx *tikv.Txn) error { return tx.Insert(b("k03"), b("2")) }, false},
		"insert what was deleted":  {func(tx *tikv.Txn) error { return tx.Delete(b("k01")) }, func(tx *tikv.Txn) error { return tx.Insert(b("k01"), b("2")) }, true},
		"insert an old that was":   {func(tx *tikv.Txn) error { return tx.Delete(b("k03")) }, func(tx *tikv.Txn) error { return tx.Insert(b("k03"), b("2")) }, true},
		"check an old that was":    {func(tx *tikv.Txn) error { return tx.Delete(b("k03")) }, func(tx *tikv.Txn) error { return tx.CheckAbsent(b("k03")) }, true},
		"check beside a deletion":  {func(tx *tikv.Txn) error { return errors.Join(tx.Delete(b("k03")), tx.Put(b("k01"), nil)) }, func(tx *tikv.Txn) error { return tx.CheckAbsent(b("k01")) }, false},
		"insert and delete it":     {func(tx *tikv.Txn) error { return tx.Delete(b("k03")) }, func(tx *tikv.Txn) error { return errors.Join(tx.Insert(b("k03"), nil), tx.Delete(b("k03"))) }, true},
		"only checked before":      {func(tx *tikv.Txn) error { return tx.CheckAbsent(b("k01")) }, func(tx *tikv.Txn) error { return tx.Insert(b("k01"), b("2")) }, true},
		"assert what was put":      {func(tx *tikv.Txn) error { return tx.Put(b("k01"), b("1")) }, func(tx *tikv.Txn) error { return tx.Put(b("k01"), b("2"), tikv.WithAssertion(tikv.AssertExists)) }, true},
		"assert what is not there": {func(*tikv.Txn) error { return nil }, func(tx *tikv.Txn) error { return tx.Put(b("k01"), b("2"), tikv.WithAssertion(tikv.AssertExists)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				commit(p.T, p.c, "k03", "old")
				tx := p.begin(4)
				must(p.T, c.write(tx))
				p.put(tx, "v", 5, 8) // makes it be flushed
				synctest.Wait()
				err := c.claim(tx)
				if err == nil {
					err = tx.Commit(p.Context())
				}
				if (err == nil) != c.ok || err != nil && !errors.Is(err, tikv.ErrAlreadyExists) && !errors.Is(err, tikv.ErrAssertion) {
					p.Errorf("%v", err)
				}
				p.over(tx)
				if err != nil {
					if got := p.all(p.snapshot(p.other)); !maps.Equal(got, map[string]string{"k03": "old"}) {
						p.Errorf("%v", got)
					}
				}
			})
		})
	}
}

// A transaction of nothing but claims leaves nothing.
func TestPipelinedChecksOnly(t *testing.T) {
	piping(t, func(p *plumbing) {
		commit(p.T, p.c, "k03", "old")
		tx := p.begin(2)
		for _, k := range ks("k01", "k02", "k06", "k11") {
			must(p.T, tx.CheckAbsent(k))
		}
		must(p.T, tx.Commit(p.Context()))
		if _, ok := tx.CommitTS(); ok || p.locks() > 0 || tx.Progress().Rest != nil {
			p.Error("something was written")
		}
		tx = p.begin(2)
		for _, k := range ks("k01", "k02", "k03", "k11") {
			must(p.T, tx.CheckAbsent(k))
		}
		if err := tx.Commit(p.Context()); !errors.Is(err, tikv.ErrAlreadyExists) {
			p.Error(err)
		}
	})
}

// What a flush meets ends the transaction at once, and nothing of it stays.
func TestPipelinedFails(t *testing.T) {
	type fails struct {
		before func(p *plumbing) // the transaction begins
		during func(p *plumbing)
		want   error
	}
	for name, c := range map[string]fails{
		"newer commit": {during: func(p *plumbing) { commit(p.T, p.other, "k07", "other") }, want: tikv.ErrWriteConflict},
		"newer lock": {during: func(p *plumbing) {
			tx := begin(p.T, p.other, tikv.WithPessimistic())
			must(p.T, tx.Lock(p.Context(), ks("k07")))
		}, want: tikv.ErrWriteConflict},
		"exists": {before: func(p *plumbing) { commit(p.T, p.other, "k08", "other") }, want: tikv.ErrAlreadyExists},
		"away": {during: func(p *plumbing) {
			p.cluster.Inject(playground.Fault{Method: "KvFlush", Key: b("k07"), DropRequest: true})
		}, want: tikv.ErrUnavailable},
		"disk full": {during: func(p *plumbing) {
			p.cluster.Inject(playground.Fault{Method: "KvFlush", Key: b("k07"), RegionError: playground.DiskFull})
		}, want: tikv.ErrDiskFull},
	} {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				if c.before != nil {
					c.before(p)
				}
				was := p.all(p.snapshot(p.other))
				tx := p.begin(3)
				p.put(tx, "v", 0, 6)
				synctest.Wait()
				if p.locks() != 3 {
					p.Fatalf("%d locks", p.locks())
				}
				if c.during != nil {
					c.during(p)
					was = p.all(p.snapshot(p.other))
				}
				p.put(tx, "v", 6, 2)
				must(p.T, tx.Insert(b("k08"), b("v")))
				p.put(tx, "v", 9, 1)
				<-time.After(2 * time.Minute)
				if p.locks() > 1 { // but for the other's
					p.Errorf("%d locks while nobody has asked", p.locks())
				}
				_, read := tx.Get(p.Context(), b("k00"))
				for what, err := range map[string]error{"Put": tx.Put(b("k14"), nil), "Get": read, "Commit": tx.Commit(p.Context())} {
					if !errors.Is(err, c.want) || !tikv.NotSent(err) || errors.Is(err, tikv.ErrUndetermined) {
						p.Errorf("%s: %v", what, err)
					}
				}
				must(p.T, tx.Rollback(p.Context()))
				if rest := tx.Progress().Rest; rest != nil {
					p.Errorf("%q are left", rest)
				}
				if got := p.all(p.snapshot(p.other)); !maps.Equal(got, was) {
					p.Errorf("%v, before %v", got, was)
				}
			})
		})
	}
}

// An older lock is waited for, or resolved if its owner is dead; what is in no lock's way
// is written meanwhile.
func TestPipelinedMeetsLocks(t *testing.T) {
	for name, dies := range map[string]bool{"alive": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				mortal := p.open(tikv.WithCloseTimeout(0))
				owner := begin(p.T, mortal, tikv.WithPessimistic())
				must(p.T, owner.Lock(p.Context(), ks("k02", "k07")))
				tx := p.begin(3, tikv.WithRetryFor(time.Minute))
				p.put(tx, "v", 1, 6)
				if dies {
					must(p.T, mortal.Close())
				} else {
					<-time.After(10 * time.Second)
					must(p.T, owner.Rollback(p.Context()))
				}
				p.put(tx, "v", 7, 3)
				must(p.T, tx.Commit(p.Context()))
				p.over(tx)
				if got := p.all(p.snapshot(p.other)); len(got) != 9 {
					p.Errorf("%v", got)
				}
			})
		})
	}
}

// A client that ends in the middle leaves locks, which are over when they have expired.
func TestPipelinedClientDies(t *testing.T) {
	piping(t, func(p *plumbing) {
		commit(p.T, p.other, "k01", "old")
		mortal := p.open(tikv.WithCloseTimeout(0))
		p.c = mortal
		tx := p.begin(3)
		p.put(tx, "new", 0, 13)
		synctest.Wait()
		if err := mortal.Close(); err != nil {
			p.Error(err) // nothing was under way
		}
		if p.locks() != 12 {
			p.Fatalf("%d locks", p.locks())
		}
		if got := p.all(p.snapshot(p.other)); !maps.Equal(got, map[string]string{"k01": "old"}) { // pushes
			p.Errorf("%v", got)
		}
		<-time.After(30 * time.Second)
		for range 4 { // each removes the locks of a region
			if got := p.all(p.snapshot(p.other)); !maps.Equal(got, map[string]string{"k01": "old"}) {
				p.Errorf("%v", got)
			}
			<-time.After(time.Second)
		}
		if p.locks() != 0 {
			p.Errorf("%d locks are left", p.locks())
		}
		for _, err := range []error{tx.Put(b("k14"), nil), tx.Commit(p.Context())} {
			if !errors.Is(err, tikv.ErrClosed) {
				p.Error(err)
			}
		}
	})
}

// stuck begins a transaction, of a client of its own, that has flushed six keys, and the
// next flush of which a store refuses as long as the fault stands.
func (p *plumbing) stuck() (*tikv.Txn, *playground.Injection) {
	p.c = p.open()
	tx := p.begin(3)
	p.put(tx, "new", 0, 6)
	synctest.Wait()
	return tx, p.cluster.Inject(playground.Fault{Method: "KvFlush", Key: b("k04"), RegionError: playground.ServerIsBusy})
}

// Close ends a flush that is under way, and removes what was flushed.
func TestPipelinedClose(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx, busy := p.stuck()
		p.put(tx, "new", 6, 1)
		<-time.After(time.Second)
		must(p.T, p.c.Close())
		if busy.Hits() == 0 || p.locks() != 0 {
			p.Errorf("%d locks are left", p.locks())
		}
		if err := tx.Commit(p.Context()); !errors.Is(err, tikv.ErrClosed) || errors.Is(err, tikv.ErrUndetermined) {
			p.Error(err)
		}
	})
}

// A write that waits for a flush ends with the client, which waits for what it leaves.
func TestPipelinedCloseDuringWrite(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx, busy := p.stuck()
		p.put(tx, "new", 6, 3)
		done := start(p.Context(), func(context.Context) error { return tx.Put(pipeKey(9), b("new")) })
		<-time.After(time.Second)
		must(p.T, p.c.Close())
		if p.locks() != 0 {
			p.Errorf("%d locks are left", p.locks())
		}
		if err := <-done; !errors.Is(err, tikv.ErrClosed) || errors.Is(err, tikv.ErrUndetermined) {
			p.Error(err)
		}
		busy.Remove()
	})
}

// Without PD a transaction is kept alive all the same.
func TestPipelinedWithoutPD(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx := p.begin(3)
		p.put(tx, "new", 0, 7)
		away := p.cluster.Inject(playground.Fault{Method: "Tso", DropRequest: true})
		<-time.After(3 * time.Minute)
		away.Remove()
		late := begin(p.T, p.other, tikv.WithPessimistic())
		if err := late.Lock(p.Context(), [][]byte{pipeKey(0)}, tikv.WithNoWait()); !errors.Is(err, tikv.ErrLocked) {
			p.Error(err)
		}
		must(p.T, late.Rollback(p.Context()), tx.Commit(p.Context()))
		p.over(tx)
	})
}

// A write that waits for a flush ends as soon as the transaction has failed.
func TestPipelinedFailsDuringWrite(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx := p.begin(3)
		p.put(tx, "new", 0, 6)
		synctest.Wait()
		busy := p.cluster.Inject(playground.Fault{Method: "KvFlush", RegionError: playground.ServerIsBusy})
		gone := p.cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", KeyError: playground.TxnNotFound})
		p.put(tx, "new", 6, 3)
		began := time.Now()
		for _, err := range []error{tx.Put(pipeKey(9), b("new")), tx.Put(pipeKey(10), b("new")), tx.Commit(p.Context())} {
			if !errors.Is(err, tikv.ErrTxnAborted) || !tikv.IsRetryable(err) {
				p.Error(err)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			p.Errorf("after %v", took)
		}
		busy.Remove()
		gone.Remove()
		p.over(tx)
	})
}

// When Commit has returned everybody sees all of it, though its locks are still there, and
// whatever becomes of the regions before they are dealt with.
func TestPipelinedResolves(t *testing.T) {
	for _, name := range []string{"commit", "rollback"} {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				tx := p.begin(3)
				p.put(tx, "new", 0, 15)
				held := p.cluster.Inject(playground.Fault{Method: "KvResolveLock", StartTS: uint64(tx.StartTS()), Hold: true})
				var rolled chan error
				n, regions := 15, 8
				if name == "commit" {
					must(p.T, tx.Commit(p.Context()))
				} else {
					synctest.Wait()
					rolled = start(p.Context(), func(ctx context.Context) error { return tx.Rollback(ctx) })
					n, regions = 0, 6 // the last keys were not flushed
				}
				synctest.Wait()
				if got := p.all(p.snapshot(p.other)); len(got) != n || p.locks() < 11 {
					p.Errorf("%d keys are seen, %d locked", len(got), p.locks())
				}
				want(p.T, p.other.Latest(), "k12", map[bool]string{true: "new", false: "-"}[n > 0])
				for _, at := range ks("k02", "k03", "k07", "k12", "k14") {
					_, err := p.cluster.Split(playground.KeyTxn, at)
					must(p.T, err)
				}
				for _, r := range p.cluster.Regions(playground.KeyTxn) {
					must(p.T, p.cluster.TransferLeader(r.ID, r.Stores[(slices.Index(r.Stores, r.Leader)+1)%len(r.Stores)]))
				}
				if rest := tx.Progress().Rest; len(rest) != 1 || string(rest[0].Start) != "k00" {
					p.Errorf("%q", rest)
				}
				held.Remove()
				if rolled != nil {
					must(p.T, <-rolled)
					if p.locks() > 0 {
						p.Errorf("%d locks when Rollback has returned", p.locks())
					}
				}
				p.over(tx)
				if got := len(p.all(p.snapshot(p.other))); got != n || tx.Progress().Regions != regions {
					p.Errorf("%d keys are seen, %+v", got, tx.Progress())
				}
			})
		})
	}
}

// The heart beats from the first flush on, for as long as it takes. Readers are not in the
// transaction's way, nor it in theirs: what they have read is not changed by its commit.
func TestPipelinedLivesLong(t *testing.T) {
	piping(t, func(p *plumbing) {
		commit(p.T, p.other, "k01", "old", "k11", "old")
		tx := p.begin(2)
		<-time.After(30 * time.Minute)
		p.put(tx, "new", 0, 14)
		var read []*tikv.Snapshot
		for minute := range 90 {
			if minute == 30 || minute == 60 { // the primary lock is written anew
				p.put(tx, "newer", 0, 4)
			}
			<-time.After(time.Minute)
			s := p.snapshot(p.other)
			read = append(read, s)
			if got := p.all(s); len(got) != 2 {
				p.Fatalf("after %d minutes: %v", minute, got)
			}
			primary := p.cluster.Locks(nil, nil)[0]
			if left := time.Until(tikv.Timestamp(primary.StartTS).Time().Add(primary.TTL)); left < 5*time.Second || left > time.Minute {
				p.Fatalf("after %d minutes the primary lock lives for %v", minute, left)
			}
			if !slices.Equal(primary.Key, primary.Primary) || primary.MinCommitTS <= uint64(s.Timestamp()) {
				p.Fatalf("%+v, read at %d", primary, s.Timestamp())
			}
		}
		calls := p.cluster.Counts().Calls
		if n := calls["KvTxnHeartBeat"]; n < 535 || n > 545 {
			p.Errorf("%d heartbeats in 90 minutes", n)
		}
		if n := calls["BroadcastTxnStatus"]; n < 3*calls["KvTxnHeartBeat"]-3 {
			p.Errorf("%d broadcasts to three stores", n)
		}
		must(p.T, tx.Commit(p.Context()))
		ts, _ := tx.CommitTS()
		for _, s := range read {
			if got := p.all(s); len(got) != 2 || s.Timestamp() >= ts {
				p.Fatalf("read at %d, committed at %d: %v", s.Timestamp(), ts, got)
			}
		}
		p.over(tx)
		if got := p.all(p.snapshot(p.other)); len(got) != 14 || got["k01"] != "newer" || got["k11"] != "new" {
			p.Errorf("%v", got)
		}
		if n := p.cluster.Counts().Calls["KvTxnHeartBeat"]; n > 546 {
			p.Error("it beats on")
		}
	})
}

// Stale reads do not wait for a pipelined transaction: stores know from it that it commits
// later.
func TestPipelinedAndStaleReads(t *testing.T) {
	piping(t, func(p *plumbing) {
		commit(p.T, p.other, "k01", "old")
		tx := p.begin(2)
		p.put(tx, "new", 0, 4)
		<-time.After(5 * time.Minute)
		now, err := p.other.Timestamp(p.Context())
		must(p.T, err)
		<-time.After(15 * time.Second)
		trace := p.cluster.Trace()
		stale := p.other.SnapshotAt(now, tikv.WithStaleRead(), tikv.WithReplicaRead(tikv.ReadFollower))
		want(p.T, stale, "k04", "-") // it is in the region of the locks
		for _, call := range trace.Calls() {
			if call.RegionError != 0 {
				p.Errorf("%+v", call)
			}
		}
		must(p.T, tx.Commit(p.Context()))
		p.over(tx)
	})
}

// A transaction whose primary lock is gone fails at once, whatever it does.
func TestPipelinedLosesItsLock(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx := p.begin(3)
		p.put(tx, "new", 0, 9)
		away := p.cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", DropRequest: true})
		<-time.After(25 * time.Second)
		if got := p.all(p.snapshot(p.other)); len(got) != 0 {
			p.Errorf("%v", got)
		}
		<-time.After(time.Second)
		away.Remove()
		<-time.After(time.Minute)
		if p.locks() != 0 {
			p.Errorf("%d locks while nobody has asked", p.locks())
		}
		for _, err := range []error{tx.Put(b("k14"), nil), tx.Commit(p.Context())} {
			if !errors.Is(err, tikv.ErrTxnAborted) || !tikv.IsRetryable(err) {
				p.Error(err)
			}
		}
	})
}

// A transaction does not live for ever.
func TestPipelinedLimitOfLife(t *testing.T) {
	piping(t, func(p *plumbing) {
		started, err := p.c.Timestamp(p.Context())
		must(p.T, err)
		<-time.After(24*time.Hour - 10*time.Minute)
		tx := p.begin(3, tikv.WithStartTS(started))
		p.put(tx, "new", 0, 9)
		<-time.After(9 * time.Minute)
		if p.locks() == 0 {
			p.Error("it has ended before")
		}
		<-time.After(2 * time.Minute)
		if err := tx.Commit(p.Context()); !errors.Is(err, tikv.ErrTxnAborted) {
			p.Error(err)
		}
		p.over(tx)
	})
}

// A transaction whose handle is dropped removes its locks.
func TestPipelinedHandleDropped(t *testing.T) {
	piping(t, func(p *plumbing) {
		func() { p.put(p.begin(3), "new", 0, 9) }()
		synctest.Wait()
		if p.locks() == 0 {
			p.Error("nothing was flushed")
		}
		for range 10 {
			runtime.GC()
			<-time.After(10 * time.Second)
		}
		if p.locks() != 0 {
			p.Errorf("%d locks", p.locks())
		}
	})
}

// RunTxn runs again what a flush found in conflict.
func TestPipelinedRunTxn(t *testing.T) {
	piping(t, func(p *plumbing) {
		attempts := 0
		must(p.T, p.c.RunTxn(p.Context(), func(_ context.Context, tx *tikv.Txn) error {
			if attempts++; attempts < 3 {
				commit(p.T, p.other, "k01", "other")
			}
			for i := range 9 {
				if err := tx.Put(pipeKey(i), b("new")); err != nil {
					return err
				}
			}
			return nil
		}, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(2, 1<<20)))
		<-time.After(time.Second)
		if got := p.all(p.snapshot(p.other)); attempts != 3 || len(got) != 9 || got["k01"] != "new" || p.locks() > 0 {
			p.Errorf("%d attempts, %v, %d locks", attempts, got, p.locks())
		}
	})
}

// A flush that has failed is an error of RunTxn, though fn has not met it.
func TestPipelinedRunTxnUnnoticed(t *testing.T) {
	for _, tries := range []int{1, 2} {
		t.Run(fmt.Sprint(tries), func(t *testing.T) {
			piping(t, func(p *plumbing) {
				attempts := 0
				err := p.c.RunTxn(p.Context(), func(_ context.Context, tx *tikv.Txn) error {
					if attempts++; attempts == 1 {
						commit(p.T, p.other, "k01", "other")
					}
					p.put(tx, "new", 0, 3) // two are flushed
					synctest.Wait()
					return nil
				}, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(2, 1<<20), tikv.WithMaxAttempts(tries))
				<-time.After(time.Second)
				got := p.all(p.snapshot(p.other))
				if tries == 1 && (!errors.Is(err, tikv.ErrWriteConflict) || len(got) != 1) {
					p.Errorf("%v, %v", err, got)
				}
				if tries == 2 && (err != nil || attempts != 2 || len(got) != 3) {
					p.Errorf("%v after %d attempts, %v", err, attempts, got)
				}
			})
		})
	}
}

// A read that was under way while a flush failed, and what was flushed before was removed, is
// an error: it may have missed that.
func TestPipelinedReadBesideAFailure(t *testing.T) {
	reads := map[string]func(p *plumbing, tx *tikv.Txn) error{
		"Get":      func(p *plumbing, tx *tikv.Txn) error { return second(tx.Get(p.Context(), b("k00"))) },
		"BatchGet": func(p *plumbing, tx *tikv.Txn) error { return second(tx.BatchGet(p.Context(), ks("k00", "k06"))) },
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				commit(p.T, p.other, "k00", "old")
				tx := p.begin(2)
				p.put(tx, "new", 0, 4)
				synctest.Wait()
				commit(p.T, p.other, "k03", "other") // the next flush is in conflict
				flush := p.cluster.Inject(playground.Fault{Method: "KvFlush", Hold: true})
				p.put(tx, "new", 4, 1)
				look := p.cluster.Inject(playground.Fault{Method: "KvBufferBatchGet", Hold: true})
				done := start(p.Context(), func(context.Context) error { return read(p, tx) })
				synctest.Wait()
				flush.Remove()
				synctest.Wait() // it has failed, and the locks are removed
				if look.Waiting() == 0 || p.locks() > 0 {
					p.Errorf("%d reads are under way, %d locks are left", look.Waiting(), p.locks())
				}
				look.Remove()
				if err := <-done; !errors.Is(err, tikv.ErrWriteConflict) {
					p.Errorf("it read what was before: %v", err)
				}
			})
		})
	}
}

// What such a transaction cannot do is refused, and changes nothing.
func TestPipelinedRefuses(t *testing.T) {
	piping(t, func(p *plumbing) {
		ctx := p.Context()
		tx := p.begin(3)
		p.put(tx, "new", 0, 4)
		_, scan := tikv.Collect(tx.Scan(ctx, tikv.Range{}))
		_, get := tx.GetForUpdate(ctx, b("k01"))
		_, batch := tx.BatchGetForUpdate(ctx, ks("k01"))
		_, fair := tx.FairLock()
		for what, err := range map[string]error{
			"Scan": scan, "GetForUpdate": get, "BatchGetForUpdate": batch, "FairLock": fair,
			"Lock": tx.Lock(ctx, ks("k01")), "RollbackTo": tx.RollbackTo(tx.Savepoint()),
			"WithTxnSource":      tx.Commit(ctx, tikv.WithTxnSource(1)),
			"WithDiskFull":       tx.Commit(ctx, tikv.WithDiskFull(tikv.DiskFullAllow)),
			"WithPessimistic":    second(p.c.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithPessimistic())),
			"FlushConcurrency":   second(p.c.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{FlushConcurrency: -1}))),
			"ResolveConcurrency": second(p.c.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{ResolveConcurrency: 1025}))),
			"Throttle":           second(p.c.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{Throttle: 1}))),
			"WithPessimisticAfter": p.c.RunTxn(ctx, func(context.Context, *tikv.Txn) error { return nil },
				tikv.WithPipelined(tikv.Pipeline{}), tikv.WithPessimisticAfter(1)),
		} {
			var arg *tikv.ArgumentError
			if !errors.As(err, &arg) || !errors.Is(err, tikv.ErrInvalid) {
				p.Errorf("%s: %v", what, err)
			}
		}
		for range tx.Writes() {
			p.Error("Writes yields something")
		}
		if plain := begin(p.T, p.c); len(plain.Progress().Rest) > 0 || plain.Progress().Elapsed != 0 {
			p.Errorf("%+v", plain.Progress())
		}
		must(p.T, tx.Commit(ctx))
		p.over(tx)
	})
}

// The options of the commit that are given to Begin hold for flushes.
func TestPipelinedOptions(t *testing.T) {
	piping(t, func(p *plumbing) {
		must(p.T, p.cluster.SetStore(1, playground.StoreState{Disk: playground.DiskAlmostFull}),
			p.cluster.SetStore(2, playground.StoreState{Disk: playground.DiskAlmostFull}), p.cluster.SetStore(3, playground.StoreState{Disk: playground.DiskAlmostFull}))
		now, err := p.c.Timestamp(p.Context())
		must(p.T, err)
		var asked []tikv.Timestamp
		tx := p.begin(3, tikv.WithDiskFull(tikv.DiskFullAllowAlmost), tikv.WithCommitAfter(now+1<<30, time.Minute),
			tikv.WithCommitCheck(func(ts tikv.Timestamp) error { asked = append(asked, ts); return nil }))
		p.put(tx, "new", 0, 9)
		must(p.T, tx.Commit(p.Context()))
		if ts, _ := tx.CommitTS(); ts <= now+1<<30 || !slices.Equal(asked, []tikv.Timestamp{ts}) {
			p.Errorf("%d, asked %d, after %d", ts, asked, now+1<<30)
		}
		p.over(tx)
		no := errors.New("no")
		tx = p.begin(3, tikv.WithDiskFull(tikv.DiskFullAllowAlmost), tikv.WithCommitCheck(func(tikv.Timestamp) error { return no }))
		p.put(tx, "newer", 0, 9)
		if err := tx.Commit(p.Context()); !errors.Is(err, no) {
			p.Error(err)
		}
		p.over(tx)
		want(p.T, p.other.Latest(), "k01", "new")
	})
}

// A flush has as many requests under way as it is allowed, and fewer when stores say that
// they are busy.
func TestPipelinedConcurrency(t *testing.T) {
	piping(t, func(p *plumbing) {
		tx := begin(p.T, p.c, tikv.WithPipelined(tikv.Pipeline{FlushConcurrency: 5}), tikv.WithTxnLimits(64, 1<<30))
		held := p.cluster.Inject(playground.Fault{Method: "KvFlush", Hold: true})
		for i := range 65 {
			must(p.T, tx.Put(fmt.Appendf(nil, "k%03d", i), make([]byte, 16<<10)))
		}
		var waves []int
		for range 40 {
			synctest.Wait()
			if held.Waiting() == 0 {
				break
			}
			waves = append(waves, held.Waiting())
			held.Release()
		}
		// The primary key alone, then the 63 others.
		if fmt.Sprint(waves) != "[1 5 5 5 5 5 5 5 5 5 5 5 5 3]" {
			p.Errorf("%d requests at a time", waves)
		}
		held.Remove()
		must(p.T, tx.Commit(p.Context()))
		p.over(tx)
	})
}

// Throttled, a transaction spends that part of its time waiting between flushes.
func TestPipelinedThrottle(t *testing.T) {
	for throttle, want := range map[float64]time.Duration{0: 10, 0.5: 19, 0.75: 37} {
		t.Run(fmt.Sprint(throttle), func(t *testing.T) {
			piping(t, func(p *plumbing) {
				p.cluster.Inject(playground.Fault{Method: "KvFlush", Delay: time.Second, Skip: 1})
				tx := begin(p.T, p.c, tikv.WithPipelined(tikv.Pipeline{Throttle: throttle}), tikv.WithTxnLimits(2, 1<<20))
				must(p.T, tx.Put(b("k00"), nil), tx.Put(b("k01"), nil))
				began := time.Now()
				for i := range 19 {
					must(p.T, tx.Put(pipeKey(i%5), nil))
				}
				must(p.T, tx.Commit(p.Context()))
				if took := time.Since(began).Round(time.Second / 2); took < want*time.Second-time.Second || took > want*time.Second+2*time.Second {
					p.Errorf("ten flushes take %v", took)
				}
				p.over(tx)
			})
		})
	}
}

// A late copy of a flush changes nothing, before the commit or after.
func TestPipelinedLateCopies(t *testing.T) {
	piping(t, func(p *plumbing) {
		commit(p.T, p.c, "k01", "old")
		late := p.cluster.Inject(playground.Fault{Method: "KvFlush", Key: b("k01"), Delay: 40 * time.Second, Times: 1})
		tx := p.begin(2)
		p.put(tx, "first", 0, 2)
		p.put(tx, "second", 3, 1) // waits for nobody: the first attempt at the flush is late
		<-time.After(22 * time.Second)
		p.put(tx, "third", 0, 4)
		synctest.Wait()
		must(p.T, tx.Commit(p.Context()))
		<-time.After(time.Minute)
		if late.Hits() != 1 {
			p.Error("nothing was late")
		}
		if got := p.all(p.snapshot(p.other)); len(got) != 4 || got["k01"] != "third" {
			p.Errorf("%v", got)
		}
		p.over(tx)
	})
}
