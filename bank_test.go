package tikv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

var bankSeed = flag.Uint64("bank.seed", 1, "seed of TestBank's schedule")

const (
	bankAccounts  = 40
	bankWorkers   = 8
	bankOpening   = 1000
	bankTransfers = 5000            // in all modes together
	bankTimeout   = 8 * time.Second // of one transfer; shorter than an RPC's, so that a lost answer is an unknown outcome
)

// bankMode is a way to book transfers.
type bankMode struct {
	name    string
	options []tikv.RunOption
	locks   bool   // the accounts are locked first
	decides string // the request whose answer tells what became of a transfer
	whole   bool   // regions do not split
}

var bankModes = []bankMode{
	{"two-phase", []tikv.RunOption{inTwoPhases}, false, "KvCommit", false},
	{"pessimistic", []tikv.RunOption{tikv.WithPessimistic(), inTwoPhases}, true, "KvCommit", false},
	{"asynchronous", []tikv.RunOption{tikv.WithCommitMode(tikv.CommitAsync)}, false, "KvPrewrite", false},
	{"one-phase", nil, false, "KvPrewrite", true},
}

// What happens to the cluster while the banks are open, and how often in all.
var bankEvents = []struct {
	name  string
	times int
	do    func(b *bank, rng *rand.Rand) error
}{
	{"split", 55, (*bank).split},
	{"leader move", 55, (*bank).moveLeader},
	{"store restart", 22, (*bank).restartStore},
	{"lost commit answer", 40, (*bank).loseCommitAnswer},
	{"lost commit request", 6, (*bank).loseCommitRequest},
	{"lost prewrite answer", 6, (*bank).losePrewriteAnswer},
}

// TestBank moves money between accounts while regions split, leaders move, stores
// restart and answers are lost, in each mode a share of the transfers. Every transfer writes an entry into a ledger in the same
// transaction; at any moment the accounts hold what was put into them, and in the end
// the ledger explains every balance.
func TestBank(t *testing.T) {
	for _, mode := range bankModes {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := openBank(t, *bankSeed, mode)
				t.Logf("seed %d (replay with -bank.seed), %d events", *bankSeed, len(b.schedule))
				b.run(t)
				b.audit(t)
				b.assertCounts(t)
			})
		})
	}
}

// The schedule is the seed's alone.
func TestBankScheduleIsReplayed(t *testing.T) {
	mode := bankModes[0]
	a, b, other := bankSchedule(7, mode), bankSchedule(7, mode), bankSchedule(8, mode)
	if !slices.Equal(a, b) || slices.Equal(a, other) {
		t.Fatal("a seed does not determine the schedule")
	}
}

type bankEvent struct {
	kind int
	seed uint64
}

func bankSchedule(seed uint64, mode bankMode) []bankEvent {
	rng := rand.New(rand.NewPCG(seed, 0))
	var events []bankEvent
	for kind, e := range bankEvents {
		if mode.whole && e.name == "split" {
			continue
		}
		for range share(e.times) {
			events = append(events, bankEvent{kind, rng.Uint64()})
		}
	}
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	return events
}

// share is a mode's of something, rounded up.
func share(of int) int { return (of + len(bankModes) - 1) / len(bankModes) }

type bank struct {
	mode     bankMode
	seed     uint64
	schedule []bankEvent
	cluster  *tikvtest.Cluster
	client   *tikv.Client

	committed, undetermined, settled atomic.Int64
	retried                          atomic.Int64
	lostAnswers                      atomic.Int64
	progress                         chan struct{} // one token a transfer
	losses                           chan playground.Fault

	mu   sync.Mutex
	done map[string]bool // ledger keys known to be committed
}

func openBank(t *testing.T, seed uint64, mode bankMode) *bank {
	b := &bank{mode: mode, seed: seed, schedule: bankSchedule(seed, mode), progress: make(chan struct{}, 1), losses: make(chan playground.Fault, 100), done: make(map[string]bool)}
	b.cluster = tikvtest.NewCluster(t, playground.WithStores(3), playground.WithSeed(seed))
	// A request takes its time, or the fake clock would stand still and transactions
	// would hardly overlap.
	for store := range uint64(3) {
		b.cluster.Inject(playground.Fault{Node: playground.Store(store + 1), Delay: time.Millisecond})
	}
	b.client = b.cluster.Open()
	err := b.client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
		for i := range bankAccounts {
			if err := tx.Put(account(i), amount(bankOpening)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func account(i int) []byte { return fmt.Appendf(nil, "z-account/%03d", i) }

// The ledger sorts before the accounts, so that its entry is a transfer's primary.
func ledgerKey(worker, n int) []byte { return fmt.Appendf(nil, "a-ledger/%d/%06d", worker, n) }

func amount(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func toAmount(b []byte) int64 {
	if len(b) != 8 {
		return -1 << 40 // no balance: the sums will tell
	}
	return int64(binary.BigEndian.Uint64(b))
}

// run lets the workers transfer while the events happen, each when its share of the
// transfers is done.
func (b *bank) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, bankWorkers+1)
	for w := range bankWorkers {
		go func() { errs <- b.worker(ctx, w) }()
	}
	go func() { errs <- b.disturb(ctx) }()
	for range bankWorkers + 1 {
		if err := <-errs; err != nil {
			t.Error(err)
			cancel()
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (b *bank) disturb(ctx context.Context) error {
	for i, e := range b.schedule {
		for b.committed.Load() < int64(i*share(bankTransfers)/len(b.schedule)) {
			select {
			case <-b.progress:
			case <-ctx.Done():
				return nil
			}
		}
		if err := bankEvents[e.kind].do(b, rand.New(rand.NewPCG(e.seed, 1))); err != nil {
			return fmt.Errorf("%s: %w", bankEvents[e.kind].name, err)
		}
	}
	return nil
}

func (b *bank) split(rng *rand.Rand) error {
	key := fmt.Appendf(nil, "z-account/%03d/%x", rng.IntN(bankAccounts), rng.Uint32())
	if rng.IntN(2) == 0 {
		key = fmt.Appendf(nil, "a-ledger/%d/%06d/%x", rng.IntN(bankWorkers), rng.IntN(600), rng.Uint32())
	}
	_, err := b.cluster.Split(playground.KeyTxn, key)
	return err
}

func (b *bank) moveLeader(rng *rand.Rand) error {
	regions := b.cluster.Regions(playground.KeyTxn)
	region := regions[rng.IntN(len(regions))]
	for _, i := range rng.Perm(len(region.Stores)) {
		if store := region.Stores[i]; store != region.Leader {
			return b.cluster.TransferLeader(region.ID, store)
		}
	}
	return fmt.Errorf("region %d has nowhere to move", region.ID)
}

// restartStore stops a store for a while. Events come one after the other, so that two
// of three stores always run.
func (b *bank) restartStore(rng *rand.Rand) error {
	store := playground.Store(uint64(1 + rng.IntN(3)))
	if err := b.cluster.Stop(store); err != nil {
		return err
	}
	<-time.After(time.Duration(1+rng.IntN(300)) * time.Millisecond)
	return b.cluster.Start(store)
}

// A loss is handed to the next transfer, whose request that decides, or prewrite, it
// befalls.
func (b *bank) loseCommitAnswer(*rand.Rand) error {
	b.losses <- playground.Fault{Method: b.mode.decides, DropAnswer: true}
	return nil
}

func (b *bank) loseCommitRequest(*rand.Rand) error {
	b.losses <- playground.Fault{Method: b.mode.decides, DropRequest: true}
	return nil
}

func (b *bank) losePrewriteAnswer(*rand.Rand) error {
	b.losses <- playground.Fault{Method: "KvPrewrite", DropAnswer: true}
	return nil
}

// afflict takes a loss that waits, if one does, and injects it into the transaction.
func (b *bank) afflict(tx *tikv.Txn) (undo func()) {
	select {
	case loss := <-b.losses:
		loss.StartTS, loss.Times = uint64(tx.StartTS()), 1
		injected := b.cluster.Inject(loss)
		return func() {
			if injected.Hits() == 0 { // there was a conflict first: the next one takes it
				loss.StartTS = 0
				b.losses <- loss
			} else if loss.Method == b.mode.decides && loss.DropAnswer {
				b.lostAnswers.Add(1)
			}
			injected.Remove()
		}
	default:
		return func() {}
	}
}

// worker transfers until the bank has had enough, and looks at all accounts between.
func (b *bank) worker(ctx context.Context, w int) error {
	rng := rand.New(rand.NewPCG(b.seed, uint64(100+w)))
	for n := 0; b.committed.Load() < int64(share(bankTransfers)); n++ {
		if err := b.transfer(ctx, rng, ledgerKey(w, n)); err != nil {
			return fmt.Errorf("worker %d, transfer %d: %w", w, n, err)
		}
		if err := b.look(ctx, n); err != nil {
			return fmt.Errorf("worker %d, after transfer %d: %w", w, n, err)
		}
	}
	return nil
}

// transfer moves money once. A transfer whose outcome is unknown is settled by reading
// its primary, which is its own entry in the ledger; one that certainly did not happen
// may be given up.
func (b *bank) transfer(ctx context.Context, rng *rand.Rand, entry []byte) error {
	from, to := rng.IntN(bankAccounts), rng.IntN(bankAccounts-1)
	if rng.IntN(4) == 0 { // some accounts are popular
		from, to = rng.IntN(4), rng.IntN(3)
	}
	if to >= from {
		to++
	}
	sum := int64(1 + rng.IntN(20))
	attempts, undo := 0, func() {}
	defer func() { undo() }()
	tctx, cancel := context.WithTimeout(ctx, bankTimeout)
	defer cancel()
	err := b.client.RunTxn(tctx, func(ctx context.Context, tx *tikv.Txn) error {
		attempts++
		undo()
		undo = b.afflict(tx)
		return b.book(ctx, tx, entry, from, to, sum)
	}, b.mode.options...)
	b.retried.Add(int64(attempts - 1))
	switch {
	case err == nil:
		b.commit(entry)
		return nil
	case errors.Is(err, tikv.ErrUndetermined):
		b.undetermined.Add(1)
		return b.settle(ctx, entry, err)
	case tikv.NotSent(err), tikv.IsRetryable(err), errors.Is(err, tikv.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return b.mustBeAbsent(ctx, entry, err)
	}
	return err
}

func (b *bank) book(ctx context.Context, tx *tikv.Txn, entry []byte, from, to int, sum int64) error {
	values, err := b.balances(ctx, tx, account(from), account(to), sum)
	if err != nil {
		return err
	}
	if values[0] == nil || values[1] == nil {
		return fmt.Errorf("account %d or %d has vanished", from, to)
	}
	if err := tx.Put(account(from), amount(toAmount(values[0])-sum)); err != nil {
		return err
	}
	if err := tx.Put(account(to), amount(toAmount(values[1])+sum)); err != nil {
		return err
	}
	return tx.Insert(entry, fmt.Appendf(nil, "%d %d %d", from, to, sum))
}

// balances reads accounts, which it locks first where that is the mode: together, or one
// after the other, so that transfers get into circles.
func (b *bank) balances(ctx context.Context, tx *tikv.Txn, from, to []byte, sum int64) ([][]byte, error) {
	switch {
	case !b.mode.locks:
		return tx.BatchGet(ctx, [][]byte{from, to})
	case sum%2 == 0:
		first, err := tx.GetForUpdate(ctx, from)
		if err != nil {
			return nil, err
		}
		second, err := tx.GetForUpdate(ctx, to)
		return [][]byte{first, second}, err
	}
	got, err := tx.BatchGetForUpdate(ctx, [][]byte{from, to})
	if err != nil {
		return nil, err
	}
	return [][]byte{got[0].Value, got[1].Value}, nil
}

func (b *bank) commit(entry []byte) {
	b.mu.Lock()
	b.done[string(entry)] = true
	b.mu.Unlock()
	b.committed.Add(1)
	select {
	case b.progress <- struct{}{}:
	default:
	}
}

// settle finds out what became of a transfer: by reading its entry, or by asking for the
// outcome, with which the entry has to agree.
func (b *bank) settle(ctx context.Context, entry []byte, lost error) error {
	var un *tikv.UndeterminedError
	if !errors.As(lost, &un) || un.StartTS == 0 || b.mode.locks == (string(un.Primary) == string(entry)) {
		return fmt.Errorf("an undetermined commit does not name its transaction: %w", lost)
	}
	var at tikv.Timestamp
	ask := b.mode.name != "two-phase"
	if ask {
		var err error
		if at, err = b.client.ResolveOutcome(ctx, lost); err != nil {
			return err
		}
	}
	value, err := tikv.Optional(b.client.Latest().Get(ctx, entry))
	if err != nil {
		return err
	}
	if ask && (at != 0) != (value != nil) {
		return fmt.Errorf("committed at %d, but the entry is %q: %w", at, value, lost)
	}
	b.settled.Add(1)
	if value != nil {
		b.commit(entry)
	}
	return nil
}

// mustBeAbsent holds the client to its word: what it said did not happen, did not.
func (b *bank) mustBeAbsent(ctx context.Context, entry []byte, said error) error {
	value, err := tikv.Optional(b.client.Latest().Get(ctx, entry))
	if err == nil && value != nil {
		return fmt.Errorf("said not to have happened, but did: %w", said)
	}
	return err
}

// look reads all accounts at one moment, by keys or by scanning either way.
func (b *bank) look(ctx context.Context, n int) error {
	snap, err := b.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	balances, err := readBalances(ctx, snap, n%3)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, v := range balances {
		total += v
	}
	if len(balances) != bankAccounts || total != bankAccounts*bankOpening {
		return fmt.Errorf("%d accounts hold %d at %v", len(balances), total, snap.Timestamp())
	}
	return nil
}

func readBalances(ctx context.Context, r tikv.Reader, how int) ([]int64, error) {
	balances := make([]int64, 0, bankAccounts)
	if how == 0 {
		keys := make([][]byte, bankAccounts)
		for i := range keys {
			keys[i] = account(i)
		}
		values, err := r.BatchGet(ctx, keys)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			balances = append(balances, toAmount(v))
		}
		return balances, nil
	}
	opts := []tikv.ScanOption{tikv.WithPageSize(7)}
	if how == 2 {
		opts = append(opts, tikv.WithReverse())
	}
	for kv, err := range r.Scan(ctx, tikv.Prefix([]byte("z-account/")), opts...) {
		if err != nil {
			return nil, err
		}
		balances = append(balances, toAmount(kv.Value))
	}
	if how == 2 {
		slices.Reverse(balances)
	}
	return balances, nil
}

// audit compares the ledger with the balances, and with what the workers were told.
func (b *bank) audit(t *testing.T) {
	snap, err := b.client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	balances, err := readBalances(t.Context(), snap, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Repeat([]int64{bankOpening}, bankAccounts)
	entries := 0
	for kv, err := range snap.Scan(t.Context(), tikv.Prefix([]byte("a-ledger/"))) {
		if err != nil {
			t.Fatal(err)
		}
		if !b.done[string(kv.Key)] {
			t.Errorf("%s is in the ledger, but nobody was told that it committed", kv.Key)
		}
		var from, to int
		var sum int64
		if _, err := fmt.Sscan(string(kv.Value), &from, &to, &sum); err != nil {
			t.Fatal(err)
		}
		want[from] -= sum
		want[to] += sum
		entries++
	}
	if entries != len(b.done) {
		t.Errorf("the ledger has %d entries, %d transfers committed", entries, len(b.done))
	}
	if !slices.Equal(balances, want) {
		t.Errorf("balances %v, the ledger says %v", balances, want)
	}
}

// assertCounts checks that the cluster was disturbed as much as the test means to.
func (b *bank) assertCounts(t *testing.T) {
	c, conflicts, splits, undetermined := b.cluster.Counts(), share(100), share(50), share(10)
	if b.mode.locks { // who would conflict waits
		conflicts = 0
	}
	if b.mode.whole { // and the one store that leads restarts soon: what is sent again tells
		splits, undetermined = 0, 0
	}
	t.Logf("committed %d, retried %d, undetermined %d, settled %d; cluster: %d commits, %d conflicts, %d splits, %d leader moves, %d store starts, %d lost",
		b.committed.Load(), b.retried.Load(), b.undetermined.Load(), b.settled.Load(), c.Commits, c.Conflicts, c.Splits, c.LeaderMoves, c.Starts, c.Dropped)
	for _, v := range []struct {
		what      string
		got, want int
	}{
		{"committed transfers", int(b.committed.Load()), share(bankTransfers)},
		{"conflicts", c.Conflicts, conflicts},
		{"splits", c.Splits, splits},
		{"leader moves", c.LeaderMoves, share(50)},
		{"store restarts", c.Starts, share(20)},
		{"lost answers that decide", int(b.lostAnswers.Load()), share(20)},
		{"lost requests and answers", c.Dropped, share(30)},
		{"undetermined commits", int(b.undetermined.Load()), undetermined},
	} {
		if v.got < v.want {
			t.Errorf("%d %s, at least %d are meant", v.got, v.what, v.want)
		}
	}
}
