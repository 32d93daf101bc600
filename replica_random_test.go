package tikv_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

var replicaSeeds = flag.Int("replica.seeds", 3, "how many schedules TestReplicaReadsAreRight runs")

// replicaWeather is what befalls a cluster while replicas are read: they lag, in data and in
// what is safe to read, leaders move, regions split, stores restart.
func replicaWeather(ctx context.Context, t *testing.T, cluster *tikvtest.Cluster, mode playground.KeyMode, restarts bool, r *rand.Rand) {
	lag := func() time.Duration { return time.Duration(r.IntN(3)) * time.Duration(r.IntN(1500)) * time.Millisecond }
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(20+r.IntN(150)) * time.Millisecond):
		}
		regions := cluster.Regions(mode)
		store := r.Uint64N(3) + 1
		switch r.IntN(6) {
		case 0:
			if _, err := cluster.Split(mode, fmt.Appendf(nil, "k%d/%d", r.IntN(4), r.IntN(9))); err != nil {
				t.Error(err)
			}
		case 1:
			if restarts && r.IntN(3) == 0 {
				must(t, cluster.Stop(playground.Store(store)))
				<-time.After(time.Duration(1+r.IntN(300)) * time.Millisecond)
				must(t, cluster.Start(playground.Store(store)))
				continue
			}
			fallthrough
		case 2:
			_ = cluster.TransferLeader(regions[r.IntN(len(regions))].ID, store) // may be there
		default:
			must(t, cluster.SetStore(store, playground.StoreState{ApplyLag: lag(), ResolvedLag: lag(), ReadWait: lag()}))
		}
	}
}

// randomRoute is a way to read.
func randomRoute(r *rand.Rand) []tikv.ReplicaOption {
	opts := []tikv.ReplicaOption{tikv.WithReplicaRead(tikv.ReplicaPolicy(r.IntN(int(tikv.ReadLearner) + 1)))}
	for _, o := range []tikv.ReplicaOption{
		tikv.WithReplicaStores(r.Uint64N(3) + 1), tikv.WithBusyThreshold(time.Second), tikv.WithReadTimeout(200 * time.Millisecond), tikv.WithHedging(10 * time.Millisecond),
	} {
		if r.IntN(3) == 0 {
			opts = append(opts, o)
		}
	}
	return opts
}

// TestReplicaReadsAreRight reads from all replicas, in all ways, while they lag and lose
// their regions and leaders: a snapshot has at each key exactly what was committed last up
// to its timestamp, fresh or stale.
func TestReplicaReadsAreRight(t *testing.T) {
	for seed := range uint64(*replicaSeeds) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { readAtRandom(t, seed) })
		})
	}
}

// committed is what was written to a key, in order.
type committed struct {
	ts    tikv.Timestamp
	value string
}

func readAtRandom(t *testing.T, seed uint64) {
	cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("k2")), playground.WithSeed(seed))
	client := cluster.Open()
	cluster.Inject(playground.Fault{Method: "KvPrewrite", Delay: 15 * time.Millisecond}) // else no time passes
	const keys, writes, reads, readers = 4, 60, 90, 4
	var (
		mu      sync.Mutex
		history [keys][]committed
		seen    = make(map[tikv.Timestamp]map[string]string)
		stale   int
	)
	background := task.New(t.Context())
	background.Go("weather", func(ctx context.Context) {
		replicaWeather(ctx, t, cluster, playground.KeyTxn, true, rand.New(rand.NewPCG(seed, 1)))
	})
	writer := func(ctx context.Context, k int) error {
		for n := range writes {
			var tx *tikv.Txn
			err := client.RunTxn(ctx, func(_ context.Context, own *tikv.Txn) error {
				tx = own
				return own.Put(fmt.Appendf(nil, "k%d", k), strconv.AppendInt(nil, int64(n), 10))
			})
			if err != nil {
				return err
			}
			ts, _ := tx.CommitTS()
			mu.Lock()
			history[k] = append(history[k], committed{ts, strconv.Itoa(n)})
			mu.Unlock()
		}
		return nil
	}
	reader := func(ctx context.Context, r *rand.Rand) error {
		for range reads {
			snap, err := randomSnapshot(ctx, client, r)
			if err != nil {
				return err
			}
			got, err := readAll(ctx, snap, keys, r)
			if err != nil {
				return fmt.Errorf("at %v: %w", snap.Timestamp(), err)
			}
			mu.Lock()
			if before, ok := seen[snap.Timestamp()]; ok && fmt.Sprint(before) != fmt.Sprint(got) {
				t.Errorf("at %v: %v, and %v", snap.Timestamp(), before, got)
			}
			seen[snap.Timestamp()] = got
			if time.Since(snap.Timestamp().Time()) > 100*time.Millisecond {
				stale++
			}
			mu.Unlock()
			if err := sleep(ctx, time.Duration(r.IntN(20))*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	err := task.Each(t.Context(), 0, keys+readers, func(ctx context.Context, i int) error {
		if i < keys {
			return writer(ctx, i)
		}
		return reader(ctx, rand.New(rand.NewPCG(seed, uint64(i))))
	})
	background.Close(nil)
	if err != nil {
		t.Fatal(err)
	}
	for ts, got := range seen {
		for k := range keys {
			want := ""
			for _, c := range history[k] {
				if c.ts <= ts {
					want = c.value
				}
			}
			if key := fmt.Sprintf("k%d", k); got[key] != want {
				t.Errorf("at %v: %s is %q, not %q", ts, key, got[key], want)
			}
		}
	}
	if stale < readers {
		t.Errorf("%d stale reads of %d", stale, reads*readers)
	}
}

// randomSnapshot is of now, of a moment ago, or as stale as it may be.
func randomSnapshot(ctx context.Context, client *tikv.Client, r *rand.Rand) (*tikv.Snapshot, error) {
	var fresh []tikv.SnapshotOption
	var at []tikv.SnapshotAtOption
	for _, o := range randomRoute(r) {
		fresh, at = append(fresh, o), append(at, o)
	}
	switch r.IntN(3) {
	case 0:
		return client.Snapshot(ctx, append(fresh, tikv.WithMaxStaleness(time.Duration(1+r.IntN(1000))*time.Millisecond))...)
	case 1:
		now, err := client.Timestamp(ctx)
		if err != nil {
			return nil, err
		}
		ago := time.Duration(r.IntN(1000)) * time.Millisecond
		return client.SnapshotAt(tikv.TimestampAt(now.Time().Add(-ago)), append(at, tikv.WithStaleRead())...), nil
	}
	return client.Snapshot(ctx, fresh...)
}

// readAll reads all keys, in one of the ways that there are.
func readAll(ctx context.Context, view tikv.Reader, n int, r *rand.Rand) (map[string]string, error) {
	got := make(map[string]string)
	var keys [][]byte
	for k := range n {
		keys = append(keys, fmt.Appendf(nil, "k%d", k))
	}
	switch r.IntN(3) {
	case 0:
		for _, key := range keys {
			v, err := view.Get(ctx, key)
			if err != nil && !errors.Is(err, tikv.ErrNotFound) {
				return nil, err
			}
			if err == nil {
				got[string(key)] = string(v)
			}
		}
	case 1:
		values, err := view.BatchGet(ctx, keys)
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			if v != nil {
				got[string(keys[i])] = string(v)
			}
		}
	default:
		for kv, err := range view.Scan(ctx, tikv.Prefix([]byte("k"))) {
			if err != nil {
				return nil, err
			}
			got[string(kv.Key)] = string(kv.Value)
		}
	}
	return got, nil
}

// sleep waits for some time at least: docs/testing.md, what soaks found.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(max(1, d)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TestRawReplicaReadsAreRight is the same for raw reads, and those of Latest, which have no
// timestamp: each sees at least what was acknowledged before it began, and nothing that was
// begun after it ended.
func TestRawReplicaReadsAreRight(t *testing.T) {
	for _, mode := range []playground.KeyMode{playground.KeyRaw, playground.KeyTxn} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { readRegisters(t, mode) })
		})
	}
}

func readRegisters(t *testing.T, mode playground.KeyMode) {
	cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(mode, []byte("k2")))
	client := cluster.Open()
	for _, method := range []string{"KvPrewrite", "RawPut"} {
		cluster.Inject(playground.Fault{Method: method, Delay: 10 * time.Millisecond})
	}
	const keys, writes, reads, readers = 4, 80, 100, 4
	var begun, done [keys]counter
	put := func(ctx context.Context, k, n int) error {
		key, value := fmt.Appendf(nil, "k%d", k), strconv.AppendInt(nil, int64(n), 10)
		if mode == playground.KeyRaw {
			return client.Raw().Put(ctx, key, value)
		}
		return client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(key, value) })
	}
	view := func(r *rand.Rand) tikv.Reader {
		var raw []tikv.RawOption
		var latest []tikv.ReadOption
		for _, o := range randomRoute(r) {
			raw, latest = append(raw, o), append(latest, o)
		}
		if mode == playground.KeyRaw {
			return client.Raw(raw...)
		}
		return client.Latest(latest...)
	}
	background := task.New(t.Context())
	background.Go("weather", func(ctx context.Context) {
		replicaWeather(ctx, t, cluster, mode, false, rand.New(rand.NewPCG(7, 1)))
	})
	err := task.Each(t.Context(), 0, keys+readers, func(ctx context.Context, i int) error {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		for n := range writes + reads {
			switch {
			case i < keys && n < writes:
				begun[i].set(n + 1)
				if err := put(ctx, i, n+1); err != nil {
					return err
				}
				done[i].set(n + 1)
			case i >= keys && n < reads:
				var least [keys]int
				for k := range keys {
					least[k] = done[k].get()
				}
				got, err := readAll(ctx, view(r), keys, r)
				if err != nil {
					return err
				}
				for k := range keys {
					if v, _ := strconv.Atoi(got[fmt.Sprintf("k%d", k)]); v < least[k] || v > begun[k].get() {
						t.Errorf("k%d is %d, %d was written", k, v, least[k])
					}
				}
				if err := sleep(ctx, time.Duration(r.IntN(10))*time.Millisecond); err != nil {
					return err
				}
			}
		}
		return nil
	})
	background.Close(nil)
	if err != nil {
		t.Fatal(err)
	}
}

// counter is a number that grows.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) set(n int) { c.mu.Lock(); c.n = n; c.mu.Unlock() }
func (c *counter) get() int  { c.mu.Lock(); defer c.mu.Unlock(); return c.n }
