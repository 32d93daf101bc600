package check

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// A schedule is what befalls the cluster, or its clients, while a history is made. What
// comes when is drawn from the seed.
type schedule struct {
	name    string
	members int // of PD
	every   int // operations, in the mean, between two
	events  []event
}

type event func(n *nemesis)

// schedules are gone through in turn, seed by seed.
var schedules = func() []schedule {
	groups := []schedule{
		{"calm", 1, 1000, []event{(*nemesis).nothing}},
		{"regions", 1, 15, []event{(*nemesis).split, (*nemesis).split, (*nemesis).merge, (*nemesis).moveLeader, (*nemesis).moveLeader}},
		{"stores", 1, 20, []event{(*nemesis).restart, (*nemesis).pause, (*nemesis).kill, (*nemesis).moveLeader, (*nemesis).lag, (*nemesis).fullDisk}},
		{"losses", 1, 10, []event{(*nemesis).loseAnswers, (*nemesis).loseAnswers, (*nemesis).leaveInDoubt, (*nemesis).storm, (*nemesis).loseRequests, (*nemesis).disconnect, (*nemesis).duplicate, (*nemesis).refuse}},
		{"delays", 1, 20, []event{(*nemesis).delay, (*nemesis).delayBeyondTTL, (*nemesis).delayBeyondTTL, (*nemesis).storm, (*nemesis).leaveInDoubt}},
		{"clocks", 1, 25, []event{(*nemesis).jumpTimestamps, (*nemesis).stallTimestamps, (*nemesis).moveClock, (*nemesis).delay}},
		{"members", 3, 20, []event{(*nemesis).movePD, (*nemesis).restartMember, (*nemesis).pauseMember, (*nemesis).jumpTimestamps}},
		{"networks", 1, 20, []event{(*nemesis).cutClients, (*nemesis).cutStores, (*nemesis).moveLeader}},
		{"clients", 1, 30, []event{(*nemesis).replaceClient, (*nemesis).loseAnswers, (*nemesis).split}},
	}
	all := schedule{name: "all", members: 3, every: 10}
	for _, g := range groups {
		all.events = append(all.events, g.events...)
	}
	return append(groups, all)
}()

// nemesis disturbs one run.
type nemesis struct {
	r       *run
	ctx     context.Context
	rng     *rand.Rand
	cluster *tikvtest.Cluster
	faults  []*playground.Injection
	events  int
}

// run disturbs until ctx ends, and then mends everything.
func (n *nemesis) run() error {
	defer n.mend()
	for n.pass(int64(n.rng.ExpFloat64() * float64(n.r.schedule.every))) {
		n.r.schedule.events[n.rng.IntN(len(n.r.schedule.events))](n)
		n.events++
		if len(n.faults) > 20 { // what has not hit anybody by now
			n.faults[0].Remove()
			n.faults = n.faults[1:]
		}
	}
	return nil
}

// pass lets the workers do some more. It reports whether there is anything left to disturb.
func (n *nemesis) pass(ops int64) bool { return n.passWithin(nil, ops) }

func (n *nemesis) passWithin(end <-chan time.Time, ops int64) bool {
	for until := n.r.done.Load() + ops; n.r.done.Load() < until; {
		select {
		case <-n.ctx.Done():
			return false
		case <-end:
			return true
		case <-n.r.progress:
		}
	}
	return n.ctx.Err() == nil
}

// hold lets a disturbance last: for a time, or, mostly, only until those that it does not
// reach have done some more.
func (n *nemesis) hold(low, high time.Duration) {
	ops := int64(10 + n.rng.IntN(90))
	if n.rng.IntN(5) == 0 {
		ops = 400
	}
	n.passWithin(time.After(n.between(low, high)), ops)
}

// between is a random time.
func (n *nemesis) between(low, high time.Duration) time.Duration {
	return low + time.Duration(n.rng.Int64N(int64(high-low)))
}

// calm ends what has not hit anybody by now.
func (n *nemesis) calm() {
	for _, f := range n.faults {
		f.Remove()
	}
	n.faults = nil
}

func (n *nemesis) mend() {
	n.calm()
	n.cluster.Heal()
	n.cluster.StallTSO(false)
}

// must ends the run at a change that the cluster refused and should not have.
func (n *nemesis) must(err error) {
	if err != nil {
		n.r.fail(fmt.Errorf("a disturbance: %w", err))
	}
}

func (n *nemesis) nothing() {}

func (n *nemesis) region() playground.Region {
	regions := n.cluster.Regions(n.r.mode)
	return regions[n.rng.IntN(len(regions))]
}

func (n *nemesis) store() uint64 { return 1 + n.rng.Uint64N(stores) }

// split cuts at a key, or between two.
func (n *nemesis) split() {
	key := keyOf(n.rng.IntN(keys))
	if n.rng.IntN(2) == 0 {
		key = append(key, byte('a'+n.rng.IntN(26)))
	}
	if len(n.cluster.Regions(n.r.mode)) < 12 {
		_, err := n.cluster.Split(n.r.mode, key)
		n.must(err)
	}
}

func (n *nemesis) merge() {
	regions := n.cluster.Regions(n.r.mode)
	if len(regions) < 2 {
		return
	}
	i := n.rng.IntN(len(regions) - 1)
	from, into := regions[i], regions[i+1]
	if n.rng.IntN(2) == 0 {
		from, into = into, from
	}
	_ = n.cluster.Merge(from.ID, into.ID) // one of them may have no leader now
}

func (n *nemesis) moveLeader() {
	r := n.region()
	_ = n.cluster.TransferLeader(r.ID, r.Stores[n.rng.IntN(len(r.Stores))]) // may be there, or away
}

// down takes a node away for a while, one at a time.
func (n *nemesis) down(node playground.Node, away func(playground.Node) error, low, high time.Duration) {
	n.must(away(node))
	n.hold(low, high)
	n.must(n.cluster.Start(node))
}

func (n *nemesis) restart() {
	n.down(playground.Store(n.store()), n.cluster.Stop, 0, 50*time.Millisecond)
}

func (n *nemesis) kill() {
	n.down(playground.Store(n.store()), n.cluster.Stop, time.Second, 5*time.Second)
}

func (n *nemesis) pause() {
	n.down(playground.Store(n.store()), n.cluster.Pause, 10*time.Millisecond, 5*time.Second)
}

// lag lets a store's followers be behind, and its disk be slow.
func (n *nemesis) lag() {
	id := n.store()
	n.must(n.cluster.SetStore(id, playground.StoreState{
		ApplyLag: n.between(0, 500*time.Millisecond), DiskDelay: n.between(0, 20*time.Millisecond), SlowScore: 1 + 99*n.rng.Float64(),
	}))
	n.hold(10*time.Millisecond, 300*time.Millisecond)
	n.must(n.cluster.SetStore(id, playground.StoreState{}))
}

func (n *nemesis) fullDisk() {
	id := n.store()
	n.must(n.cluster.SetStore(id, playground.StoreState{Disk: playground.Disk(1 + n.rng.IntN(2))}))
	n.hold(10*time.Millisecond, 500*time.Millisecond)
	n.must(n.cluster.SetStore(id, playground.StoreState{}))
}

func (n *nemesis) inject(f playground.Fault) {
	n.faults = append(n.faults, n.cluster.Inject(f))
}

// method is a random one of those that the run calls; of those that write twice as often.
func (n *nemesis) method() string { return n.r.methods[n.rng.IntN(len(n.r.methods))] }

func (n *nemesis) loseAnswers() {
	n.inject(playground.Fault{Method: n.method(), DropAnswer: true, Times: 1 + n.rng.IntN(3)})
}

func (n *nemesis) loseRequests() {
	n.inject(playground.Fault{Method: n.method(), DropRequest: true, Times: 1 + n.rng.IntN(3)})
}

// storm loses all answers of a kind for a while, so that those who do not wait for its end
// never hear what became of their work.
func (n *nemesis) storm() {
	f := n.cluster.Inject(playground.Fault{Method: n.r.storeMethod(n.rng), DropAnswer: true})
	n.hold(100*time.Millisecond, 5*time.Second)
	f.Remove()
}

// leaveInDoubt loses some answers to writes, and has stores too busy for those who ask again.
func (n *nemesis) leaveInDoubt() {
	method := n.r.methods[n.rng.IntN(2)]
	lost := 1 + n.rng.IntN(4)
	n.inject(playground.Fault{Method: method, DropAnswer: true, Times: lost})
	f := n.cluster.Inject(playground.Fault{Method: method, Skip: lost, RegionError: playground.ServerIsBusy})
	n.passWithin(time.After(n.between(500*time.Millisecond, 12*time.Second)), 200)
	f.Remove()
}

func (n *nemesis) disconnect() {
	n.inject(playground.Fault{Method: n.method(), Disconnect: true, Times: 1})
}

// duplicate lets requests of transactions come twice, which must not matter; a raw write
// would happen twice. Nothing else goes on meanwhile: no network has one copy done and
// answers for another, which was refused.
func (n *nemesis) duplicate() {
	if n.r.mode == playground.KeyRaw {
		return
	}
	n.calm()
	n.inject(playground.Fault{Method: n.method(), Duplicate: true, Times: 1 + n.rng.IntN(5)})
	n.hold(10*time.Millisecond, time.Second)
	n.calm()
}

// refuse answers with a region error; each of these says that nothing was done.
func (n *nemesis) refuse() {
	errs := []playground.RegionFault{
		playground.NotLeader, playground.RegionNotFound, playground.EpochNotMatch, playground.ServerIsBusy,
		playground.StaleCommand, playground.ProposalInMergingMode, playground.RecoveryInProgress, playground.UndeterminedResult,
	}
	n.inject(playground.Fault{
		Method: n.r.storeMethod(n.rng), RegionError: errs[n.rng.IntN(len(errs))], Times: 1 + n.rng.IntN(4),
	})
}

func (n *nemesis) delay() {
	n.inject(playground.Fault{Method: n.method(), Delay: n.between(time.Millisecond, 400*time.Millisecond), Times: 1 + n.rng.IntN(10)})
}

// delayBeyondTTL lets a request come when the locks of its transaction have expired, and
// its caller has given it up.
func (n *nemesis) delayBeyondTTL() {
	n.inject(playground.Fault{Method: n.r.storeMethod(n.rng), Delay: n.between(3*time.Second, 25*time.Second), Times: 1 + n.rng.IntN(2)})
}

func (n *nemesis) jumpTimestamps() { n.cluster.JumpTSO(n.between(time.Millisecond, 5*time.Second)) }

func (n *nemesis) stallTimestamps() {
	n.cluster.StallTSO(true)
	n.hold(time.Millisecond, 2*time.Second)
	n.cluster.StallTSO(false)
}

func (n *nemesis) moveClock() {
	n.cluster.Advance(n.between(-3*time.Second, 5*time.Second))
}

func (n *nemesis) movePD() {
	_ = n.cluster.TransferPD(n.rng.IntN(n.r.schedule.members)) // may be away
}

func (n *nemesis) restartMember() {
	n.down(playground.Member(n.rng.IntN(n.r.schedule.members)), n.cluster.Stop, 0, 2*time.Second)
}

func (n *nemesis) pauseMember() {
	n.down(playground.Member(n.rng.IntN(n.r.schedule.members)), n.cluster.Pause, 0, 7*time.Second)
}

// cutClients loses what clients and a store send each other, one way or both.
func (n *nemesis) cutClients() {
	store, how := playground.Store(n.store()), n.rng.IntN(3)
	if how != 1 {
		n.must(n.cluster.Cut(playground.Client(), store))
	}
	if how != 0 {
		n.must(n.cluster.Cut(store, playground.Client()))
	}
	n.hold(10*time.Millisecond, 3*time.Second)
	n.cluster.Heal()
}

func (n *nemesis) cutStores() {
	ids := n.rng.Perm(stores)
	a, b := playground.Store(uint64(1+ids[0])), playground.Store(uint64(1+ids[1]))
	n.must(n.cluster.Cut(a, b))
	if n.rng.IntN(2) == 0 {
		n.must(n.cluster.Cut(b, a))
	}
	n.hold(10*time.Millisecond, 2*time.Second)
	n.cluster.Heal()
}

// replaceClient closes a client, in the middle of what it does, and opens another.
func (n *nemesis) replaceClient() {
	n.must(n.r.replaceClient(n.rng.IntN(clients)))
}

// The calls that disturbances may befall, first the writes that decide.
var (
	pdMethods    = []string{"Tso", "QueryRegion", "GetRegion", "GetStore", "GetMembers"}
	listsMethods = slices.Concat(slices.Repeat([]string{"KvCommit", "KvPrewrite"}, 3),
		[]string{"KvGet", "KvBatchGet", "KvScan", "KvBatchRollback", "KvCheckTxnStatus", "KvCheckSecondaryLocks", "KvResolveLock", "KvTxnHeartBeat", "KvPessimisticLock", "KvPessimisticLock", "KVPessimisticRollback", "KvPrewrite", "KvCommit",
			"KvFlush", "KvFlush", "KvFlush", "KvBufferBatchGet", "KvScanLock", "BroadcastTxnStatus"})
	registersMethods = []string{"RawPut", "RawPut", "RawGet", "RawBatchGet", "RawDelete", "RawBatchPut", "RawCompareAndSwap", "RawCompareAndSwap"}
)

// storeMethod is one that stores serve.
func (r *run) storeMethod(rng *rand.Rand) string {
	return r.methods[rng.IntN(len(r.methods)-len(pdMethods))]
}
