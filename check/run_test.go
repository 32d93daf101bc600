package check

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

var (
	onlySeed     = flag.Uint64("check.seed", 0, "make the histories of this seed alone")
	firstSeed    = flag.Uint64("check.first", 1, "the first seed")
	onlySchedule = flag.String("check.schedule", "", "disturb by this schedule, whatever the seed")
	runs         = flag.Int("check.runs", 0, "how many histories of each kind to make; default as many as the test wants")
	operations   = flag.Int("check.ops", 2000, "reads and writes of keys in a history")
	failedDir    = flag.String("check.dir", "", "where histories go that are wrong; default the folder of temporary files")
	fromFile     = flag.String("check.file", "", "the history that TestFile checks again")
)

const (
	stores  = 3
	clients = 3
	workers = 10
	keys    = 14
	limit   = 5 * time.Minute // of real time, to decide about one key, which takes moments
)

// run makes one history.
type run struct {
	t        *testing.T
	seed     uint64
	schedule schedule
	mode     playground.KeyMode
	methods  []string // that disturbances may befall

	cluster *tikvtest.Cluster
	clients [clients]atomic.Pointer[tikv.Client]
	times   atomic.Int64
	value   atomic.Int64 // the last that was written

	done     atomic.Int64  // operations
	progress chan struct{} // has a token when that has grown

	mu      sync.Mutex
	history History
	err     error

	statements   atomic.Int64 // of fair locking
	above        atomic.Int64 // those that locked above a newer commit
	shared       atomic.Int64 // keys locked in share mode
	together     atomic.Int64 // those that others shared already
	counts       playground.Counts
	disturbances int
	took         time.Duration // fake
	cancel       context.CancelFunc
}

// tick is the time: before what is called afterwards, after what has returned.
func (r *run) tick() int64 { return r.times.Add(1) }

// did counts operations.
func (r *run) did(n int) {
	r.done.Add(int64(n))
	select {
	case r.progress <- struct{}{}:
	default:
	}
}

// fail ends the run.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.cancel()
}

// keyOf is a key's name.
func keyOf(i int) []byte { return fmt.Appendf(nil, "key/%02d", i) }

// make runs the workers and the nemesis in a cluster of their own, in fake time.
func (r *run) make(work func(w *worker) error, last func(ctx context.Context, c *tikv.Client) error) {
	rng, began := rand.New(rand.NewPCG(r.seed, 1)), time.Now()
	r.cluster = tikvtest.NewCluster(r.t, playground.WithStores(stores), playground.WithMembers(r.schedule.members),
		playground.WithSeed(r.seed), playground.WithSplitKeys(r.mode, keyOf(keys/3), keyOf(2*keys/3)))
	for store := range uint64(stores) { // a request takes its time, or the fake clock stands still
		n := playground.Store(store + 1)
		r.cluster.Inject(playground.Fault{Node: n, Delay: time.Duration(300+rng.IntN(1500)) * time.Microsecond})
		r.cluster.Inject(playground.Fault{Node: n, Chance: 0.1, Delay: time.Duration(1+rng.IntN(8)) * time.Millisecond})
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	r.cancel = cancel
	for i := range r.clients {
		c, err := r.open(ctx)
		if err != nil {
			r.fail(err)
			return
		}
		r.clients[i].Store(c)
	}
	defer r.close()
	nemesisCtx, stop := context.WithCancel(ctx)
	n := &nemesis{r: r, ctx: nemesisCtx, rng: rand.New(rand.NewPCG(r.seed, 2)), cluster: r.cluster}
	var disturbing, working sync.WaitGroup
	disturbing.Go(func() { n.run() })
	for i := range workers {
		w := &worker{run: r, id: i, ctx: ctx, rng: rand.New(rand.NewPCG(r.seed, uint64(100+i)))}
		working.Go(func() {
			for r.done.Load() < int64(*operations) && ctx.Err() == nil {
				if err := work(w); err != nil {
					r.fail(err)
				}
			}
		})
	}
	working.Wait()
	stop()
	disturbing.Wait()
	r.counts, r.disturbances, r.took = r.cluster.Counts(), n.events, time.Since(began)
	if r.err == nil {
		r.err = r.finish(ctx, last)
	}
}

// finish reads what is there in the end, with a client that knows nothing.
func (r *run) finish(ctx context.Context, last func(ctx context.Context, c *tikv.Client) error) error {
	<-time.After(time.Second)
	c, err := tikv.Open(ctx, r.cluster.PD(), r.cluster.ClientOptions()...)
	if err != nil {
		return err
	}
	defer r.forget(c)
	return last(ctx, c)
}

// open makes a client, which gives attempts up after a time of the seed's, and calls without
// a deadline soon after.
func (r *run) open(ctx context.Context) (*tikv.Client, error) {
	timeouts := []time.Duration{300 * time.Millisecond, time.Second, 5 * time.Second}
	d := timeouts[r.seed%uint64(len(timeouts))]
	opts := append(r.cluster.ClientOptions(), tikv.WithRPCTimeout(d), tikv.WithRetryFor(d*3/2))
	return tikv.Open(ctx, r.cluster.PD(), opts...)
}

// replaceClient closes a client, whatever it does, and opens another.
func (r *run) replaceClient(i int) error {
	c, err := r.open(r.t.Context())
	if err != nil {
		return err
	}
	r.forget(r.clients[i].Swap(c))
	return nil
}

// forget closes a client; what it could not finish others resolve.
func (r *run) forget(c *tikv.Client) { _ = c.Close() }

func (r *run) close() {
	for i := range r.clients {
		r.forget(r.clients[i].Load())
	}
}

// worker makes one call, or transaction, after the other.
type worker struct {
	*run
	id  int
	ctx context.Context
	rng *rand.Rand
}

// client is the one to use next; workers change it now and then.
func (w *worker) client() *tikv.Client {
	i := w.id % clients
	if w.rng.IntN(5) == 0 {
		i = w.rng.IntN(clients)
	}
	return w.clients[i].Load()
}

// key is a random one; some are popular.
func (w *worker) key() int {
	if w.rng.IntN(3) == 0 {
		return w.rng.IntN(4) * (keys / 4)
	}
	return w.rng.IntN(keys)
}

// timeout is how long a caller waits: most are patient.
func (w *worker) timeout() (context.Context, context.CancelFunc) {
	d := 10 * time.Second
	switch w.rng.IntN(12) {
	case 0:
		d = time.Duration(1+w.rng.IntN(30)) * time.Millisecond
	case 1, 2, 3:
		d = 250 * time.Millisecond
	case 4, 5, 6:
		return context.WithCancel(w.ctx)
	}
	return context.WithTimeout(w.ctx, d)
}

// outcome is what an error of a write says.
func outcome(err error) Outcome {
	switch {
	case err == nil:
		return Done
	case errors.Is(err, tikv.ErrUndetermined):
		return Unknown
	}
	return Failed
}

func note(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return text[:min(len(text), 300)]
}

// summary counts what all histories of a test met.
type summary struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *summary) add(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = make(map[string]int)
	}
	s.n[what] += n
}

func (s *summary) addHistory(h *History) {
	s.add("histories", 1)
	s.add("operations", h.Operations())
	for i := range h.Txns {
		t := &h.Txns[i]
		s.add(t.Outcome.String(), 1)
		switch {
		case t.Outcome != Done || !t.writes():
		case t.Pessimistic:
			s.add("pessimistic", 1)
		case t.Pipelined:
			s.add("pipelined", 1)
		}
	}
	for i := range h.Calls {
		s.add(h.Calls[i].Outcome.String(), 1)
	}
}

// addCluster adds what befell a cluster, and tells it.
func (s *summary) addCluster(c playground.Counts, disturbances int, took time.Duration) string {
	story := fmt.Sprintf("in %v:", took.Round(time.Millisecond))
	for _, f := range []struct {
		what string
		n    int
	}{
		{"disturbances", disturbances}, {"splits", c.Splits}, {"merges", c.Merges}, {"leader moves", c.LeaderMoves},
		{"starts", c.Starts}, {"lost", c.Dropped}, {"commits", c.Commits}, {"conflicts", c.Conflicts}, {"rollbacks", c.Rollbacks},
		{"flushes", c.Calls["KvFlush"]}, {"reads of flushed keys", c.Calls["KvBufferBatchGet"]}, {"looks at flushed locks", c.Calls["KvScanLock"]},
	} {
		s.add(f.what, f.n)
		story += fmt.Sprintf(" %d %s", f.n, f.what)
	}
	return story
}

// least is what a whole test has to have met, for each of its histories.
var least = map[Kind]map[string]float64{
	Lists: {"operations": 2000, "done": 200, "failed": 20, "unknown": 0.5, "disturbances": 20, "splits": 2, "merges": 1,
		"leader moves": 2, "starts": 0.3, "lost": 10, "commits": 100, "conflicts": 20, "rollbacks": 1,
		"pessimistic": 50, "fair statements": 20, "locked above a commit": 0.5, "shared keys": 30, "shared together": 1,
		"pipelined": 5, "flushes": 70, "reads of flushed keys": 4, "looks at flushed locks": 1},
	Registers: {"operations": 2000, "done": 1500, "failed": 1, "unknown": 5, "disturbances": 20, "splits": 2, "merges": 1,
		"leader moves": 2, "starts": 0.3, "lost": 10},
}

func (s *summary) check(t *testing.T, kind Kind) {
	for what, each := range least[kind] {
		if got, want := s.n[what], int(each*float64(s.n["histories"])); got < want {
			t.Errorf("%d %s, at least %d are meant", got, what, want)
		}
	}
}

// histories makes and checks as many as want, or the flags, say.
func histories(t *testing.T, kind Kind, want int, do func(r *run)) {
	if *runs > 0 {
		want = *runs
	}
	seeds := make([]uint64, want)
	for i := range seeds {
		seeds[i] = *firstSeed + uint64(i)
	}
	if *onlySeed != 0 {
		seeds = []uint64{*onlySeed}
	}
	var sum summary
	t.Run("seed", func(t *testing.T) {
		for _, seed := range seeds {
			s, err := scheduleOf(seed)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprintf("%d_%s", seed, s.name), func(t *testing.T) {
				t.Parallel()
				oneHistory(t, kind, seed, s, do, &sum)
			})
		}
	})
	t.Log(sum.n)
	if len(seeds) == want && *onlySchedule == "" && *operations == 2000 && *runs == 0 {
		sum.check(t, kind)
	}
}

func scheduleOf(seed uint64) (schedule, error) {
	if *onlySchedule == "" {
		return schedules[seed%uint64(len(schedules))], nil
	}
	i := slices.IndexFunc(schedules, func(s schedule) bool { return s.name == *onlySchedule })
	if i < 0 {
		return schedule{}, fmt.Errorf("no schedule is called %q", *onlySchedule)
	}
	return schedules[i], nil
}

func oneHistory(t *testing.T, kind Kind, seed uint64, s schedule, do func(r *run), sum *summary) {
	var r *run
	var journal []byte
	synctest.Test(t, func(t *testing.T) {
		r = &run{t: t, seed: seed, schedule: s, progress: make(chan struct{}, 1)}
		r.history.Head = Head{Kind: kind, Seed: seed, Schedule: s.name}
		do(r)
		if r.cluster != nil {
			journal = r.cluster.Journal()
		}
	})
	if r.err != nil {
		t.Errorf("seed %d: %v", seed, r.err)
	}
	found, err := r.history.Check(limit)
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	sum.addHistory(&r.history)
	t.Log(sum.addCluster(r.counts, r.disturbances, r.took))
	sum.add("fair statements", int(r.statements.Load()))
	sum.add("locked above a commit", int(r.above.Load()))
	sum.add("shared keys", int(r.shared.Load()))
	sum.add("shared together", int(r.together.Load()))
	if len(found) > 0 || err != nil {
		r.history.Found = found
		t.Error(failed(&r.history, journal))
	}
}

// failed writes a history that is wrong to a file, and says what is wrong with it.
func failed(h *History, journal []byte) string {
	dir := *failedDir
	if dir == "" {
		dir = os.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d.history", h.Kind, h.Seed))
	text := fmt.Sprintf("seed %d, schedule %s:\n", h.Seed, h.Schedule)
	for _, a := range h.Found[:min(len(h.Found), 5)] {
		text += a.String() + "\n"
	}
	f, err := os.Create(path)
	if err != nil {
		return text + err.Error()
	}
	if err := errors.Join(h.Write(f), f.Close(), os.WriteFile(path+".journal", journal, 0o644)); err != nil {
		return text + err.Error()
	}
	return text + fmt.Sprintf("%d anomalies; check it again:  go test -run TestFile -check.file=%s\nmake it again:  go test -run 'Test%s$' -check.seed=%d\nwhat was done to the cluster: %[2]s.journal",
		len(h.Found), path, map[Kind]string{Lists: "Lists", Registers: "Registers"}[h.Kind], h.Seed)
}

// TestFile checks a history again that a run has left.
func TestFile(t *testing.T) {
	if *fromFile == "" {
		t.Skip("no -check.file")
	}
	f, err := os.Open(*fromFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := ReadHistory(f)
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.Check(limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		t.Error(a)
	}
}

func itoa(i int) []byte { return strconv.AppendInt(nil, int64(i), 10) }
