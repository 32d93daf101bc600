package playground

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

const forever = time.Duration(1<<63 - 1)

// onStore is the context of a request to the peer of a region on a store.
func (c *testCluster) onStore(region, store uint64) (*kvrpcpb.Context, tikvpb.TikvClient) {
	r := c.topo.ByID(region)
	return c.context(r.Meta, r.Peer(store)), c.tikv(store)
}

// followers are the stores that have a peer of a key's region and do not lead it.
func (c *testCluster) followers(key string) (region uint64, stores []uint64) {
	at, _ := c.at(KeyRaw, key)
	for _, p := range c.topo.ByID(at.RegionId).Meta.Peers {
		if p.StoreId != at.Peer.StoreId {
			stores = append(stores, p.StoreId)
		}
	}
	return at.RegionId, stores
}

// rawOn reads a key on a store as the context says.
func (c *testCluster) rawOn(key string, region, store uint64, set func(*kvrpcpb.Context)) (string, *errorpb.Error) {
	c.t.Helper()
	at, kv := c.onStore(region, store)
	set(at)
	resp, err := kv.RawGet(c.t.Context(), &kvrpcpb.RawGetRequest{Context: at, Key: []byte(key)})
	if err != nil || resp.Error != "" {
		c.t.Fatal(resp, err)
	}
	return string(resp.Value), resp.RegionError
}

// getOn is rawOn for a transactional key.
func (c *testCluster) getOn(key string, ts, region, store uint64, set func(*kvrpcpb.Context)) *kvrpcpb.GetResponse {
	c.t.Helper()
	at, kv := c.onStore(region, store)
	set(at)
	resp, err := kv.KvGet(c.t.Context(), &kvrpcpb.GetRequest{Context: at, Key: []byte(key), Version: ts})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func stale(at *kvrpcpb.Context)   { at.StaleRead = true }
func replica(at *kvrpcpb.Context) { at.ReplicaRead = true }

func (c *testCluster) set(store uint64, s StoreState) {
	c.t.Helper()
	if err := c.SetStore(store, s); err != nil {
		c.t.Fatal(err)
	}
}

// putOnePhase writes a value in one phase, and returns when it was committed.
func (c *testCluster) putOnePhase(key, value string) (commitTS uint64) {
	c.t.Helper()
	start := c.timestamp()
	at, kv := c.at(KeyTxn, key)
	resp, err := kv.KvPrewrite(c.t.Context(), &kvrpcpb.PrewriteRequest{
		Context: at, StartVersion: start, PrimaryLock: []byte(key), LockTtl: 3000, TryOnePc: true, MinCommitTs: start + 1,
		Mutations: []*kvrpcpb.Mutation{{Key: []byte(key), Value: []byte(value)}},
	})
	if err != nil || resp.RegionError != nil || len(resp.Errors) > 0 || resp.OnePcCommitTs == 0 {
		c.t.Fatal(resp, err)
	}
	return resp.OnePcCommitTs
}

// A follower that is behind serves what it has to who does not ask its leader, and makes
// who does wait.
func TestApplyLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		if _, err := c.Split(KeyRaw, []byte("m")); err != nil {
			t.Fatal(err)
		}
		c.rawPut("a", "old")
		c.rawPut("z", "other")
		region, followers := c.followers("a")
		late, prompt := followers[0], followers[1]
		look := func(store uint64, set func(*kvrpcpb.Context), want string, wait time.Duration) {
			t.Helper()
			began := time.Now()
			got, e := c.rawOn("a", region, store, set)
			if e != nil || got != want || time.Since(began) != wait {
				t.Fatalf("%q, %v after %v; want %q after %v", got, e, time.Since(began), want, wait)
			}
		}
		c.set(late, StoreState{ApplyLag: 10 * time.Second})
		c.rawPut("a", "new")
		look(late, stale, "old", 0)
		look(prompt, stale, "new", 0)
		look(prompt, replica, "new", 0)
		if got, _ := c.rawGet("a"); got != "new" {
			t.Fatal(got)
		}
		<-time.After(4 * time.Second)
		look(late, replica, "new", 6*time.Second)
		look(late, stale, "new", 0)

		// What was written elsewhere is not waited for.
		c.rawPut("z", "newer")
		look(late, replica, "new", 0)
		// Nor what comes after the read.
		c.rawPut("a", "newer")
		time.AfterFunc(time.Second, func() { c.rawPut("a", "newest") })
		look(late, replica, "newer", 10*time.Second)
		// A leader has everything.
		if err := c.TransferLeader(region, late); err != nil {
			t.Fatal(err)
		}
		if got, _ := c.rawGet("a"); got != "newest" {
			t.Fatal(got)
		}
		// Who waits for a follower that becomes the leader need not wait on.
		if err := c.TransferLeader(region, prompt); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		c.rawPut("a", "last")
		time.AfterFunc(time.Second, func() {
			if err := c.TransferLeader(region, late); err != nil {
				t.Error(err)
			}
		})
		look(late, replica, "last", time.Second)
	})
}

// A lag of for ever is one until further notice: by SetStore or by the clock.
func TestApplyLagForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.rawPut("a", "0")
		region, followers := c.followers("a")
		id := followers[0]
		c.set(id, StoreState{ApplyLag: forever})
		for i := range 3000 {
			c.rawPut("a", fmt.Sprint(i+1))
		}
		<-time.After(24 * time.Hour)
		if got, e := c.rawOn("a", region, id, stale); got != "0" || e != nil {
			t.Fatal(got, e)
		}
		if n := c.lag.States(); n > 8 {
			t.Fatal(n, "states are kept for a store that does not move")
		}
		time.AfterFunc(time.Hour, func() { c.set(id, StoreState{}) })
		began := time.Now()
		if got, e := c.rawOn("a", region, id, replica); got != "3000" || e != nil || time.Since(began) != time.Hour {
			t.Fatal(got, e, time.Since(began))
		}
		if n := c.lag.States(); n != 0 {
			t.Fatal(n, "states are kept for no one")
		}
		c.set(id, StoreState{ApplyLag: 1000 * time.Hour})
		c.rawPut("a", "x")
		c.set(id, StoreState{ApplyLag: 2000 * time.Hour}) // it does not come nearer by that
		if got, _ := c.rawOn("a", region, id, stale); got != "3000" {
			t.Fatal(got)
		}
		time.AfterFunc(time.Second, func() { c.Advance(2000 * time.Hour) })
		began = time.Now()
		if got, e := c.rawOn("a", region, id, replica); got != "x" || e != nil || time.Since(began) != time.Second {
			t.Fatal(got, e, time.Since(began))
		}
	})
}

// A store that is cut off from a leader follows it no more.
func TestCutFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.rawPut("a", "old")
		region, followers := c.followers("a")
		leader, id := c.topo.ByID(region).LeaderStore(), followers[0]
		before := c.timestamp()
		if err := c.Cut(Store(leader), Store(id)); err != nil {
			t.Fatal(err)
		}
		if c.topo.ByID(region).LeaderStore() != leader {
			t.Fatal("the leader moved")
		}
		c.rawPut("a", "new")
		commit := c.putOnePhase("k", "v")
		_, e := c.rawOn("a", region, id, replica)
		if e.GetNotLeader() == nil || e.NotLeader.Leader != nil {
			t.Fatal(e)
		}
		if got, e := c.rawOn("a", region, id, stale); got != "old" || e != nil {
			t.Fatal(got, e)
		}
		if resp := c.getOn("k", before, region, id, stale); resp.RegionError != nil || !resp.NotFound {
			t.Fatal(resp)
		}
		ready := c.getOn("k", commit, region, id, stale).RegionError.GetDataIsNotReady()
		if ready == nil || ready.SafeTs < before || ready.SafeTs >= commit || ready.RegionId != region ||
			ready.PeerId != c.topo.ByID(region).Peer(id).Id {
			t.Fatal(ready, before, commit)
		}
		<-time.After(time.Hour)
		if again := c.getOn("k", commit, region, id, stale).RegionError.GetDataIsNotReady(); again.GetSafeTs() != ready.SafeTs {
			t.Fatal("it did not stand still", again, ready)
		}
		c.Heal()
		if resp := c.getOn("k", commit, region, id, stale); string(resp.Value) != "v" {
			t.Fatal(resp)
		}
		if got, e := c.rawOn("a", region, id, replica); got != "new" || e != nil {
			t.Fatal(got, e)
		}
	})
}

// Stale reads by the safe timestamp (TiKV raftstore/src/store/worker/read.rs,
// test_stale_read_local_leader_fallback).
func TestStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		first := c.putOnePhase("k", "1")
		region, followers := c.followers("k")
		leader, id := c.topo.ByID(region).LeaderStore(), followers[0]
		look := func(store, ts uint64, value string, set func(*kvrpcpb.Context)) {
			t.Helper()
			resp := c.getOn("k", ts, region, store, set)
			if resp.RegionError != nil || resp.Error != nil || string(resp.Value) != value {
				t.Fatal(resp)
			}
		}
		refused := func(store, ts uint64) *errorpb.DataIsNotReady {
			t.Helper()
			e := c.getOn("k", ts, region, store, stale).RegionError
			if e.GetDataIsNotReady() == nil {
				t.Fatal(e)
			}
			return e.DataIsNotReady
		}
		// Without a lag they go up to now; latest is above all.
		look(id, first, "1", stale)
		look(id, c.timestamp(), "1", stale)
		refused(id, ^uint64(0))
		look(leader, ^uint64(0), "1", stale)
		// At no timestamp it is an ordinary read.
		if e := c.getOn("k", 0, region, id, stale).RegionError; e.GetNotLeader() == nil {
			t.Fatal(e)
		}

		// A lock holds it back: the leader looks at the lock itself.
		start := c.timestamp()
		lock := &kvrpcpb.PrewriteRequest{StartVersion: start, PrimaryLock: []byte("l"), LockTtl: 3000,
			Mutations: []*kvrpcpb.Mutation{{Key: []byte("l"), Value: []byte("v")}}}
		at, kv := c.at(KeyTxn, "l")
		lock.Context = at
		if resp, err := kv.KvPrewrite(t.Context(), lock); err != nil || len(resp.Errors) > 0 || resp.RegionError != nil {
			t.Fatal(resp, err)
		}
		now := c.timestamp()
		// What was promised before stays.
		if e := refused(id, now); e.SafeTs >= now || e.SafeTs > start {
			t.Fatal(e, start)
		}
		look(id, start, "1", stale)
		look(leader, now, "1", stale)
		if resp := c.getOn("l", now, region, leader, stale); resp.Error.GetLocked() == nil {
			t.Fatal(resp)
		}
		commit, err := kv.KvCommit(t.Context(), &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: now, Keys: [][]byte{[]byte("l")}})
		if err != nil || commit.Error != nil || commit.RegionError != nil {
			t.Fatal(commit, err)
		}
		look(id, now, "1", stale)

		// An applied lag: it promises only what it has.
		c.set(id, StoreState{ApplyLag: 10 * time.Second})
		idle := c.timestamp()
		look(id, idle, "1", stale) // nothing was written
		second := c.putOnePhase("k", "2")
		if second <= idle {
			t.Fatal("committed at", second, "after", idle, "was promised")
		}
		refused(id, second)
		look(id, idle, "1", stale)
		look(followers[1], second, "2", stale)
		<-time.After(10*time.Second - 1)
		refused(id, second)
		<-time.After(1)
		look(id, second, "2", stale)
		look(id, c.timestamp(), "2", stale)

		// A replica read that has waited makes stale reads up to its timestamp possible.
		third := c.putOnePhase("k", "3")
		look(id, third, "3", replica)
		look(id, third, "3", stale)

		// A lag of the timestamps alone.
		c.set(id, StoreState{ResolvedLag: 10 * time.Second})
		<-time.After(time.Minute)
		ts := c.timestamp()
		e := refused(id, ts)
		if behind := int64(ts>>18 - e.SafeTs>>18); behind != 10_000 {
			t.Fatal(behind, "ms behind")
		}
		look(id, ts, "3", replica)
		<-time.After(10*time.Second + time.Millisecond)
		look(id, ts, "3", stale)
		c.set(id, StoreState{ResolvedLag: forever})
		ts = c.timestamp()
		e = refused(id, ts)
		<-time.After(time.Hour)
		if again := refused(id, ts); again.SafeTs != e.SafeTs {
			t.Fatal("it moved from", e, "to", again)
		}
		c.set(id, StoreState{})
		look(id, ts, "3", stale)

		// PD gives no timestamps: they stand still.
		c.StallTSO(true)
		e = refused(id, ts+1<<40)
		<-time.After(time.Hour)
		if again := refused(id, ts+1<<40); again.SafeTs != e.SafeTs {
			t.Fatal("it moved from", e, "to", again)
		}
		c.StallTSO(false)
	})
}

// What a follower that is behind has of locks is as old as the rest.
func TestLocksOfALaggingFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, kv := c.at(KeyTxn, "l")
		start := c.timestamp()
		locked, err := kv.KvPrewrite(t.Context(), &kvrpcpb.PrewriteRequest{
			Context: at, StartVersion: start, PrimaryLock: []byte("l"), LockTtl: 3000,
			Mutations: []*kvrpcpb.Mutation{{Key: []byte("l"), Value: []byte("v")}},
		})
		if err != nil || locked.RegionError != nil || len(locked.Errors) > 0 {
			t.Fatal(locked, err)
		}
		region, followers := c.followers("l")
		id := followers[0]
		c.set(id, StoreState{ApplyLag: time.Minute})
		now := c.timestamp()
		commit, err := kv.KvCommit(t.Context(), &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: now, Keys: [][]byte{[]byte("l")}})
		if err != nil || commit.Error != nil || commit.RegionError != nil {
			t.Fatal(commit, err)
		}
		seen := func(set func(*kvrpcpb.Context)) *kvrpcpb.MvccInfo {
			at, kv := c.onStore(region, id)
			set(at)
			resp, err := kv.MvccGetByKey(t.Context(), &kvrpcpb.MvccGetByKeyRequest{Context: at, Key: []byte("l")})
			if err != nil || resp.RegionError != nil || resp.Error != "" {
				t.Fatal(resp, err)
			}
			return resp.Info
		}
		if info := seen(stale); info.Lock == nil || len(info.Writes) != 0 {
			t.Fatal(info)
		}
		// It may serve reads below the lock.
		if resp := c.getOn("l", start-1, region, id, stale); resp.RegionError != nil || !resp.NotFound {
			t.Fatal(resp)
		}
		if e := c.getOn("l", now, region, id, stale).RegionError.GetDataIsNotReady(); e == nil || e.SafeTs != start {
			t.Fatal(e, start)
		}
		if info := seen(replica); info.Lock != nil || len(info.Writes) != 1 {
			t.Fatal(info)
		}
	})
}

func TestStoreSafeTS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithSplitKeys(KeyTxn, []byte("m")))
		ask := func(store uint64, start, end []byte) uint64 {
			t.Helper()
			resp, err := c.tikv(store).GetStoreSafeTS(t.Context(), &kvrpcpb.StoreSafeTSRequest{KeyRange: &kvrpcpb.KeyRange{StartKey: start, EndKey: end}})
			if err != nil {
				t.Fatal(err)
			}
			return resp.SafeTs
		}
		bound := c.api.regionKey(KeyTxn, []byte("m"))
		at, kv := c.at(KeyTxn, "a")
		lockedAt := c.timestamp()
		resp, err := kv.KvPrewrite(t.Context(), &kvrpcpb.PrewriteRequest{Context: at, StartVersion: lockedAt, PrimaryLock: []byte("a"),
			LockTtl: 1, Mutations: []*kvrpcpb.Mutation{{Key: []byte("a"), Value: []byte("v")}}})
		if err != nil || resp.RegionError != nil || len(resp.Errors) > 0 {
			t.Fatal(resp, err)
		}
		now := c.timestamp()
		left, right := c.topo.ByKey(nil), c.topo.ByKey(bound)
		for _, id := range []uint64{1, 2, 3, 4} {
			all, before, behind := ask(id, nil, nil), ask(id, nil, bound), ask(id, bound, nil)
			if want := left.Peer(id) != nil; (before == lockedAt) != want || (before == 0) == want {
				t.Errorf("store %d: %d before the bound", id, before)
			}
			if want := right.Peer(id) != nil; (behind > now) != want || (behind == 0) == want {
				t.Errorf("store %d: %d behind the bound", id, behind)
			}
			if left.Peer(id) != nil && all != lockedAt || left.Peer(id) == nil && all <= now {
				t.Errorf("store %d: %d in all", id, all)
			}
		}
	})
}

// Readers on all stores, stale ones and such that ask the leader, while stores lag, are
// cut off from each other, and leaders move: a replica read sees what was acknowledged
// before it began, a stale read is refused or sees what there is at its timestamp for good.
func TestRandomLag(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomLag(t, seed, counts) })
		})
	}
	for _, what := range []string{"not ready", "not led", "locked", "stale", "replica"} {
		if counts[what] == 0 {
			t.Errorf("nothing was %s in %v", what, counts)
		}
	}
}

func randomLag(t *testing.T, seed uint64, counts map[string]int) {
	c := start(t)
	region := c.topo.ByKey(nil).ID()
	type seen struct {
		key   string
		ts    uint64
		value string
	}
	var (
		mu     sync.Mutex
		random = rand.New(rand.NewPCG(seed, 2))
		acked  = map[string]int{}
		checks []seen
	)
	n := func(n int) int { mu.Lock(); defer mu.Unlock(); return random.IntN(n) }
	count := func(what string) { mu.Lock(); defer mu.Unlock(); counts[what]++ }
	for id := range uint64(3) { // connections are made by one
		c.tikv(id + 1)
	}
	c.pdc()
	write := func(key string, i int) {
		for {
			r := c.topo.ByID(region)
			if r.Leader == nil {
				<-time.After(time.Millisecond)
				continue
			}
			at, kv := c.onStore(region, r.LeaderStore())
			start := c.timestamp()
			req := &kvrpcpb.PrewriteRequest{
				Context: at, StartVersion: start, PrimaryLock: []byte(key), LockTtl: 3000, TryOnePc: i%2 == 0, MinCommitTs: start + 1,
				Mutations: []*kvrpcpb.Mutation{{Key: []byte(key), Value: []byte(fmt.Sprint(i))}},
			}
			resp, err := kv.KvPrewrite(t.Context(), req)
			if err != nil || len(resp.Errors) > 0 {
				t.Error(resp, err)
				return
			}
			if resp.RegionError != nil {
				<-time.After(time.Millisecond)
				continue
			}
			<-time.After(time.Duration(1+n(20)) * time.Millisecond)
			for resp.OnePcCommitTs == 0 {
				r := c.topo.ByID(region)
				if r.Leader == nil {
					<-time.After(time.Millisecond)
					continue
				}
				at, kv := c.onStore(region, r.LeaderStore())
				commit, err := kv.KvCommit(t.Context(), &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: c.timestamp(), Keys: [][]byte{[]byte(key)}})
				if err != nil || commit.Error.GetCommitTsExpired() == nil && commit.Error != nil {
					t.Error(commit, err)
					return
				}
				if commit.RegionError == nil && commit.Error == nil {
					break
				}
				<-time.After(time.Millisecond)
			}
			mu.Lock()
			acked[key] = i
			mu.Unlock()
			return
		}
	}
	read := func(key string) {
		mu.Lock()
		known := acked[key]
		mu.Unlock()
		ts := c.timestamp()
		how := []func(*kvrpcpb.Context){stale, replica}[n(2)]
		at, kv := c.onStore(region, uint64(n(3)+1))
		how(at)
		if back := uint64(n(3)*10) << 18; at.StaleRead && back < ts {
			ts -= back
		}
		at.MaxExecutionDurationMs = 200
		resp, err := kv.KvGet(t.Context(), &kvrpcpb.GetRequest{Context: at, Key: []byte(key), Version: ts})
		switch {
		case err != nil:
			t.Error(err)
		case resp.RegionError.GetDataIsNotReady() != nil:
			count("not ready")
		case resp.RegionError.GetNotLeader() != nil:
			count("not led")
		case resp.RegionError.GetServerIsBusy() != nil:
			count("too late")
		case resp.RegionError != nil:
			t.Error(resp.RegionError)
		case resp.Error.GetLocked() != nil:
			count("locked")
		default:
			got := 0
			_, _ = fmt.Sscan(string(resp.Value), &got)
			if at.ReplicaRead && got < known {
				t.Errorf("a replica read at %d saw %s=%d, not %d or more", ts, key, got, known)
			}
			count(map[bool]string{true: "stale", false: "replica"}[at.StaleRead])
			mu.Lock()
			checks = append(checks, seen{key, ts, string(resp.Value)})
			mu.Unlock()
		}
	}
	disturb := func() {
		switch id := uint64(n(3) + 1); n(5) {
		case 0:
			_ = c.TransferLeader(region, id) // not if it is cut off
		case 1:
			if err := c.Cut(Store(id), Store(id%3+1)); err != nil {
				t.Error(err)
			}
		case 2:
			c.Heal()
		default:
			lag := []time.Duration{0, 3 * time.Millisecond, 100 * time.Millisecond, forever}[n(4)]
			resolved := []time.Duration{0, 0, 50 * time.Millisecond}[n(3)]
			if err := c.SetStore(id, StoreState{ApplyLag: lag, ResolvedLag: resolved}); err != nil {
				t.Error(err)
			}
		}
	}
	var work, others sync.WaitGroup
	stop := make(chan struct{})
	repeat := func(every int, f func()) {
		others.Add(1)
		go func() {
			defer others.Done()
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(n(every)+1) * time.Millisecond):
					f()
				}
			}
		}()
	}
	keys := []string{"a", "b", "c"}
	for _, key := range keys {
		work.Add(1)
		go func() {
			defer work.Done()
			for i := range 60 {
				write(key, i+1)
				<-time.After(time.Duration(1+n(10)) * time.Millisecond)
			}
		}()
		for range 2 {
			repeat(10, func() { read(keys[n(3)]) })
		}
	}
	repeat(30, disturb)
	work.Wait()
	close(stop)
	others.Wait()
	c.Heal()
	leader := c.topo.ByID(region).LeaderStore()
	for _, s := range checks {
		if resp := c.getOn(s.key, s.ts, region, leader, func(*kvrpcpb.Context) {}); resp.RegionError != nil || resp.Error != nil || string(resp.Value) != s.value {
			t.Errorf("%s was %q at %d, and is %v", s.key, s.value, s.ts, resp)
		}
	}
}

// A replica read waits no longer than it may.
func TestLimitOfAReplicaRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		region, followers := c.followers("k")
		c.set(followers[0], StoreState{ApplyLag: time.Minute})
		ts := c.putOnePhase("k", "v")
		limit := func(at *kvrpcpb.Context) { at.ReplicaRead, at.MaxExecutionDurationMs = true, 1500 }
		began := time.Now()
		e := c.getOn("k", ts, region, followers[0], limit).RegionError
		if e.GetServerIsBusy().GetReason() != "deadline is exceeded" || time.Since(began) != 1500*time.Millisecond {
			t.Fatal(e, time.Since(began))
		}
		if resp := c.getOn("k", ts, region, followers[1], limit); string(resp.Value) != "v" {
			t.Fatal(resp)
		}
		<-time.After(time.Minute - 2*time.Second)
		if resp := c.getOn("k", ts, region, followers[0], limit); string(resp.Value) != "v" {
			t.Fatal(resp)
		}
	})
}

// The refusals of states that are none.
func TestLagRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		expect(t, c.SetStore(1, StoreState{ApplyLag: -1}), "apply lag")
		expect(t, c.SetStore(1, StoreState{ResolvedLag: -1}), "lag of resolved")
		expect(t, c.SetStore(1, StoreState{ReadWait: -1}), "wait of reads")
		if err := c.Cut(Store(1), Store(2)); err != nil {
			t.Fatal(err)
		}
		if c.lag.Heal(); c.lag.Keeping() {
			t.Fatal("states are kept for no one")
		}
	})
}
