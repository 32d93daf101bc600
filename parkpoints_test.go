package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// hold parks requests of the methods at PD.
func hold(methods ...string) func(*testing.T, *parkTest) (func(), func() int) {
	return func(_ *testing.T, p *parkTest) (func(), func() int) {
		var all []*playground.Injection
		for _, m := range methods {
			all = append(all, p.cluster.Inject(playground.Fault{Method: m, Hold: true}))
		}
		return removeAll(all), sum(all, (*playground.Injection).Waiting)
	}
}

func removeAll(all []*playground.Injection) func() {
	return func() {
		for _, i := range all {
			i.Remove()
		}
	}
}

func sum(all []*playground.Injection, count func(*playground.Injection) int) func() int {
	return func() int {
		n := 0
		for _, i := range all {
			n += count(i)
		}
		return n
	}
}

func holdEverything(t *testing.T, p *parkTest) (func(), func() int) {
	all := []*playground.Injection{p.cluster.Inject(playground.Fault{Hold: true})}
	return removeAll(all), sum(all, (*playground.Injection).Waiting)
}

// jam fills the store's stream until writes of n requests wait: the first is taken by
// the connection, the second waits to be written, those behind it in the queue.
func jam(n int) func(*testing.T, *parkTest) (func(), func() int) {
	return func(t *testing.T, p *parkTest) (func(), func() int) {
		p.gate.hold(false, true)
		big := make([]byte, 1<<20)
		var fillers []chan error
		for i := range n {
			key := fmt.Appendf(nil, "filler%d", i)
			fillers = append(fillers, start(t.Context(), func(ctx context.Context) error { return p.client.Raw().Put(ctx, key, big) }))
			synctest.Wait()
		}
		return func() {
			p.gate.release()
			for _, done := range fillers {
				if err := <-done; err != nil {
					t.Errorf("a request in the queue: %v", err)
				}
			}
		}, p.gate.writesHeld
	}
}

// lockKeys leaves the keys locked by a transaction of another client that is alive.
func lockKeys(t *testing.T, p *parkTest) (func(), func() int) {
	owner, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := owner.Begin(t.Context(), inTwoPhases)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range parkKeys {
		if err := tx.Put(key, []byte("locked")); err != nil {
			t.Fatal(err)
		}
	}
	held := p.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), Hold: true})
	done := start(t.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
	synctest.Wait()
	return func() {
		held.Remove()
		if err := <-done; err != nil {
			t.Errorf("the owner of the locks: %v", err)
		}
		if err := owner.Close(); err != nil {
			t.Errorf("the owner of the locks: %v", err)
		}
	}, held.Waiting
}

var (
	atTimestamp   = &parkPoint{name: "timestamp", park: hold("Tso")}
	atSharedTS    = &parkPoint{name: "another's timestamp", park: hold("Tso"), share: true}
	atLookup      = &parkPoint{name: "lookup", cold: true, park: hold("GetRegion", "GetPrevRegion", "BatchScanRegions", "QueryRegion")}
	atRegionByID  = &parkPoint{name: "lookup by id", park: hold("GetRegionByID", "QueryRegion")}
	atStore       = &parkPoint{name: "store lookup", cold: true, park: hold("GetStore")}
	atSharedLoad  = &parkPoint{name: "another's load", cold: true, park: hold("GetRegion", "GetPrevRegion", "BatchScanRegions", "QueryRegion"), share: true}
	atStreamWrite = &parkPoint{name: "stream write", park: jam(1)}
	atQueue       = &parkPoint{name: "queue", park: jam(2)}
	// A transaction that is older than the lock conflicts at once.
	atLock = &parkPoint{name: "lock", park: lockKeys, fresh: true}
	atDial = &parkPoint{name: "dial", cold: true, park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		p.gate.hold(true, false)
		return p.gate.release, p.gate.dialsHeld
	}}
	atResponse = &parkPoint{name: "response", park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		all := []*playground.Injection{p.cluster.Inject(playground.Fault{Node: playground.Store(1), Hold: true})}
		return removeAll(all), sum(all, (*playground.Injection).Waiting)
	}}
	atBackoff = &parkPoint{name: "backoff", park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		all := []*playground.Injection{p.cluster.Inject(playground.Fault{Node: playground.Store(1), RegionError: playground.ServerIsBusy})}
		return removeAll(all), sum(all, (*playground.Injection).Hits)
	}}
	// A lock whose owner's fate is being asked for.
	atStatus       = &parkPoint{name: "status of a lock", fresh: true, park: holdStatus}
	atSharedStatus = &parkPoint{name: "another's question", fresh: true, park: holdStatus, share: true}
	atSafePoint    = &parkPoint{name: "safe point", cold: true, park: hold("GetGCState")}
	atMembers      = &parkPoint{name: "members", park: hold("GetMembers")}
	atKeyspace     = &parkPoint{name: "keyspace", park: hold("LoadKeyspace")}
)

// Points that only some calls are parked at, or that take more than one store.
var (
	// A store that has as many requests as it may.
	atFull = &parkPoint{name: "full store", options: []tikv.Option{tikv.WithMaxInFlight(1)}, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		release, held := holdStores(p, 1)
		filler := start(t.Context(), func(ctx context.Context) error { _, err := p.client.Raw().Get(ctx, parkKeys[0]); return err })
		synctest.Wait()
		return func() {
				release()
				must(t, <-filler)
			}, func() int {
				if held() != 1 || p.client.Stores()[0].InFlight != 1 {
					return 0 // the call has come through
				}
				return 1
			}
	}}
	// A store to which nothing is sent, since it does not answer.
	atAway = &parkPoint{name: "store away", park: func(t *testing.T, p *parkTest) (func(), func() int) {
		must(t, p.cluster.Stop(playground.Store(1)))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := p.client.Raw().Get(ctx, parkKeys[0]); !errors.Is(err, tikv.ErrUnavailable) {
			t.Fatal(err)
		}
		return func() { must(t, p.cluster.Start(playground.Store(1))) }, func() int {
			if p.client.Stores()[0].Open {
				return 1
			}
			return 0
		}
	}}
	// PD cannot be connected to: between two attempts.
	atPDAway = &parkPoint{name: "PD away", park: stopPD}
	atPDCold = &parkPoint{name: "PD away", cold: true, park: stopPD}
	// A call to PD has failed, and its members are asked who leads them.
	atSearch = &parkPoint{name: "search for PD's leader", cold: true, park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		// Nonsense, since a broken connection would take the search with it that another
		// part of the call has begun.
		var lost []*playground.Injection
		for _, method := range []string{"BatchScanRegions", "GetRegion", "GetRegionByID"} {
			lost = append(lost, p.cluster.Inject(playground.Fault{Method: method, Mangle: func([]byte) []byte { return []byte{0xff} }}))
		}
		release, asked := hold("GetMembers")(nil, p)
		return func() { removeAll(lost)(); release() }, asked
	}}
	// A lookup that shares a stream with others.
	atQuery = &parkPoint{name: "shared lookup", cold: true, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		release, _ := hold("GetRegion")(t, p)
		shared := p.cluster.Inject(playground.Fault{Method: "QueryRegion", Hold: true})
		alone := start(t.Context(), func(ctx context.Context) error { _, err := p.client.Raw().Get(ctx, parkKeys[0]); return err })
		synctest.Wait()
		return func() {
			release()
			shared.Remove()
			must(t, <-alone)
		}, shared.Waiting
	}}
	// A leader that another store passes on to.
	atForwarded = &parkPoint{name: "forwarded", stores: 3, options: []tikv.Option{tikv.WithRPCTimeout(time.Second)}, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		must(t, p.cluster.Cut(playground.Client(), playground.Store(1)))
		must(t, p.client.Raw().Put(t.Context(), parkKeys[0], []byte("1"))) // which finds the way
		must(t, p.client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("other"), nil) }, inTwoPhases))
		synctest.Wait() // for its heart to stop: the way took long to be found
		release, held := holdStores(p, 2, 3)
		return func() { p.cluster.Heal(); release() }, held
	}}
	// A second attempt beside the first, then after it.
	atHedge = &parkPoint{name: "two attempts", stores: 3, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		_, first := holdStores(p, 1)
		_, second := holdStores(p, 2, 3)
		return func() { releaseStores(p) }, func() int { return first() * second() }
	}, then: later}
	atHedgeAlone = &parkPoint{name: "second attempt", stores: 3, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		_, first := holdStores(p, 1)
		_, second := holdStores(p, 2, 3)
		return func() { releaseStores(p); must(t, p.cluster.Start(playground.Store(1))) }, func() int { return second() * (1 - first()) }
	}, then: func(t *testing.T, p *parkTest) {
		later(t, p)
		must(t, p.cluster.Stop(playground.Store(1)))
	}}
	atReplica = &parkPoint{name: "replica", stores: 3, park: func(_ *testing.T, p *parkTest) (func(), func() int) { return holdStores(p, 1, 2, 3) }}
	// A leader that is asked because the replica is behind.
	atFallback = &parkPoint{name: "leader, for a stale read", stores: 3, fresh: true, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		for _, id := range []uint64{2, 3} {
			must(t, p.cluster.SetStore(id, playground.StoreState{ResolvedLag: time.Hour}))
		}
		<-time.After(time.Second)
		return holdStores(p, 1)
	}}
	// An answer on a connection that has been replaced.
	atDrain = &parkPoint{name: "draining connection", tls: true, park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		release, held := holdStores(p, 1)
		dials := p.gate.dialled()
		return release, func() int {
			if p.gate.dialled() == dials {
				return 0
			}
			return held()
		}
	}, then: func(t *testing.T, p *parkTest) {
		must(t, p.cluster.RenewTLS())
		<-time.After(15 * time.Second)
	}}
	// A stream behind its first message.
	atNextMessage = &parkPoint{name: "next message", fresh: true, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		must(t, p.client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
			for i := range 300 {
				if err := tx.Put(fmt.Appendf(nil, "row%d", i), []byte("v")); err != nil {
					return err
				}
			}
			return nil
		}))
		return p.pages.hold(), p.pages.held
	}}
	// Between two attempts at a transaction.
	atConflict = &parkPoint{name: "conflict", park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		lost := p.cluster.Inject(playground.Fault{Method: "KvPrewrite", KeyError: playground.WriteConflict})
		return lost.Remove, lost.Hits
	}}
	// Behind another commit of the client.
	atLatch = &parkPoint{name: "latch", options: []tikv.Option{tikv.WithLocalLatches(16)}, park: func(t *testing.T, p *parkTest) (func(), func() int) {
		first, err := p.client.Begin(t.Context())
		must(t, err, first.Put(parkKeys[0], []byte("first")))
		held := p.cluster.Inject(playground.Fault{Method: "KvPrewrite", Hold: true})
		done := start(t.Context(), func(ctx context.Context) error { return first.Commit(ctx) })
		synctest.Wait()
		return func() { held.Remove(); must(t, <-done) }, func() int {
			if held.Waiting() != 1 {
				return 0 // the call has come through
			}
			return 1
		}
	}}
	// Between two attempts to compare and swap.
	atSwap = &parkPoint{name: "lost race", park: func(t *testing.T, p *parkTest) (func(), func() int) {
		rival, err := p.open(t.Context())
		must(t, err)
		races := 0
		race := p.cluster.Inject(playground.Fault{Method: "RawCompareAndSwap", Before: func() {
			races++
			must(t, rival.Raw().Put(t.Context(), parkKeys[0], fmt.Append([]byte("rival"), races)))
		}})
		return func() { race.Remove(); must(t, rival.Close()) }, race.Hits
	}}
	// The cache is behind PD.
	atBehind = &parkPoint{name: "new region", park: func(t *testing.T, p *parkTest) (func(), func() int) {
		_, err := p.cluster.Split(playground.KeyRaw, parkKeys[1])
		must(t, err)
		asked := p.cluster.Inject(playground.Fault{Method: "GetRegionByID"})
		return asked.Remove, asked.Hits
	}}
)

// holdStatus parks those who meet a lock where they ask for the fate of its owner.
func holdStatus(t *testing.T, p *parkTest) (func(), func() int) {
	unlock, _ := lockKeys(t, p)
	asked := p.cluster.Inject(playground.Fault{Method: "KvCheckTxnStatus", Hold: true})
	return func() { asked.Remove(); unlock() }, asked.Waiting
}

// holdStores parks all requests at the stores.
func holdStores(p *parkTest, ids ...uint64) (func(), func() int) {
	var all []*playground.Injection
	for _, id := range ids {
		all = append(all, p.cluster.Inject(playground.Fault{Node: playground.Store(id), Hold: true}))
	}
	p.held = append(p.held, all...)
	return removeAll(all), sum(all, (*playground.Injection).Waiting)
}

// releaseStores ends what holdStores began.
func releaseStores(p *parkTest) { removeAll(p.held)() }

// later lets a little time pass.
func later(*testing.T, *parkTest) { <-time.After(20 * time.Millisecond) }

// stopPD stops PD. Whoever needs it waits for nothing else.
func stopPD(t *testing.T, p *parkTest) (func(), func() int) {
	must(t, p.cluster.Stop(playground.Member(0)))
	return func() { must(t, p.cluster.Start(playground.Member(0))) }, func() int { return 1 }
}

// Points of one request over the stream of batched commands, of a call of its own, and
// of PD.
var (
	readPoints   = with(streamPoints, atStatus, atSharedStatus, atSafePoint)
	streamPoints = []*parkPoint{atLookup, atSharedLoad, atStore, atDial, atQueue, atStreamWrite, atResponse, atBackoff, atFull, atAway}
	flushPoints  = []*parkPoint{atStreamWrite, atQueue, atResponse, atBackoff, atFull, atAway} // of a client that knows all it needs
	unaryPoints  = []*parkPoint{atLookup, atSharedLoad, atStore, atDial, atResponse, atBackoff, atFull, atAway}
	tsPoints     = []*parkPoint{atTimestamp, atSharedTS, atPDAway}
	openPoints   = []*parkPoint{atDial, atMembers, atKeyspace, atPDAway}
)

func with(points []*parkPoint, more ...*parkPoint) []*parkPoint {
	return append(slices.Clone(points), more...)
}
