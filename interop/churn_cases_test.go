package interop

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
)

// churn does something again and again while regions split, leaders move and stores stop
// and start, until the changes are over.
func churn(mode string, work func(e *env, round int) error, check func(e *env, rounds int)) func(*env) {
	return func(e *env) {
		var mu sync.Mutex
		over, rounds := false, 0
		done := async(func() error {
			for {
				if err := work(e, rounds); err != nil {
					return fmt.Errorf("round %d: %w", rounds, err)
				}
				rounds++
				mu.Lock()
				end := over
				mu.Unlock()
				if end {
					return nil
				}
			}
		})
		for i := range 6 {
			e.post("split", map[string]any{"mode": mode, "key": e.key(fmt.Sprintf("k%d", i))})
			for n, r := range e.c.regions(e.T, mode) {
				others := slices.DeleteFunc(slices.Clone(r.Stores), func(s uint64) bool { return s == r.Leader })
				if n%2 == i%2 && r.Leader != 0 {
					e.post("transfer-leader", map[string]any{"region": r.ID, "store": others[i%len(others)]})
				}
			}
			store := map[string]any{"store": i%3 + 1}
			e.post("stop", store)
			e.post("wait", nil)
			<-time.After(30 * time.Millisecond) // some work goes on with two stores
			e.post("start", store)
			e.post("wait", nil)
		}
		mu.Lock()
		over = true
		mu.Unlock()
		e.must(<-done)
		check(e, rounds)
	}
}

func churnArea() area {
	// keys are in the regions that come to be.
	key := func(i int) string { return fmt.Sprintf("k%d", i%7) }
	add := func(async, onePC bool) func(e *env, round int) error {
		return func(e *env, round int) error {
			for {
				tx, err := e.txn.Begin()
				if err != nil {
					return err
				}
				tx.SetEnableAsyncCommit(async)
				tx.SetEnable1PC(onePC)
				for _, k := range []string{"n", key(round)} {
					n := 0
					switch v, err := tx.Get(e.Context(), e.key(k)); {
					case err == nil:
						fmt.Sscan(string(v), &n)
					case !tikverr.IsErrNotFound(err):
						return err
					}
					if err := tx.Set(e.key(k), fmt.Append(nil, n+1)); err != nil {
						return err
					}
				}
				if err = tx.Commit(e.Context()); err == nil || !again(err) {
					return err
				}
			}
		}
	}
	added := func(e *env, rounds int) {
		e.want(nil, fmt.Sprintf("n=%d", rounds))
		sum := 0
		for i := range 7 {
			if v, err := e.snapshot().Get(e.ctx(), e.key(key(i))); err == nil {
				var n int
				fmt.Sscan(string(v), &n)
				sum += n
			} else if !tikverr.IsErrNotFound(err) {
				e.Fatal(err)
			}
		}
		e.same("sum", sum, rounds)
		e.unlocked()
	}
	return area{name: "splits, leader moves, restarts", cases: []kase{
		{name: "optimistic", alone: true, run: churn("txn", add(false, false), added)},
		{name: "async commit", alone: true, run: churn("txn", add(true, false), added)},
		{name: "one phase", alone: true, run: churn("txn", add(false, true), added)},
		{name: "pessimistic", alone: true, run: churn("txn", func(e *env, round int) error {
			if round == 0 {
				e.put("n=0")
			}
			return e.count("n", round%2 == 0)
		}, func(e *env, rounds int) { e.want(nil, fmt.Sprintf("n=%d", rounds)) })},
		{name: "pipelined", alone: true, run: churn("txn", func(e *env, round int) error {
			tx := e.pipe()
			for i := range 7 {
				e.set(tx, fmt.Sprintf("%s=%d", key(i), round))
				if i == 3 {
					if _, err := tx.GetMemBuffer().Flush(true); err != nil {
						return err
					}
				}
			}
			return tx.Commit(e.Context())
		}, func(e *env, rounds int) {
			for i := range 7 {
				e.want(nil, fmt.Sprintf("%s=%d", key(i), rounds-1))
			}
			e.unlocked()
		})},
		{name: "raw", alone: true, run: churn("raw", func(e *env, round int) error {
			k := e.key(key(round))
			if err := e.raw.Put(e.Context(), k, fmt.Append(nil, round)); err != nil {
				return err
			}
			v, err := e.raw.Get(e.Context(), k)
			if err == nil && string(v) != fmt.Sprint(round) {
				err = fmt.Errorf("%s is %q", k, v)
			}
			return err
		}, func(e *env, rounds int) { e.rawWant(fmt.Sprintf("%s=%d", key(rounds-1), rounds-1)) })},
		{name: "raw batches and scans", alone: true, run: churn("raw", func(e *env, round int) error {
			var keys, values [][]byte
			for i := range 7 {
				keys, values = append(keys, e.key(key(i))), append(values, fmt.Append(nil, round))
			}
			if err := e.raw.BatchPut(e.Context(), keys, values); err != nil {
				return err
			}
			got, vals, err := e.raw.Scan(e.Context(), e.key(""), e.end(), 100)
			if err == nil && (len(got) != 7 || fmt.Sprintf("%s", vals) != fmt.Sprintf("%s", values)) {
				err = fmt.Errorf("%d keys, %s", len(got), vals)
			}
			return err
		}, func(e *env, rounds int) {
			e.must(e.raw.DeleteRange(e.ctx(), e.key(""), e.end()))
			e.same("left", e.rawScan(), "")
		})},
		{name: "reads of one moment", alone: true, run: func(e *env) {
			all := e.numbers(40)
			at := e.now()
			churn("txn", func(e *env, round int) error {
				snap := e.txn.GetSnapshot(at)
				snap.SetReplicaRead([]kv.ReplicaReadType{kv.ReplicaReadLeader, kv.ReplicaReadMixed, kv.ReplicaReadFollower}[round%3])
				snap.SetScanBatchSize(7)
				if got := e.scan(snap); got != strings.Join(all, " ") {
					return fmt.Errorf("%s", got)
				}
				got, err := e.txn.GetSnapshot(at).BatchGet(e.Context(), e.keys("00", "20", "39"))
				if err == nil && len(got) != 3 {
					err = fmt.Errorf("%d of 3", len(got))
				}
				tx := e.begin()
				e.set(tx, fmt.Sprintf("20=%d", round))
				if err == nil {
					err = tx.Commit(e.Context())
				}
				return err
			}, func(e *env, rounds int) { e.want(e.txn.GetSnapshot(at), "20=20") })(e)
		}},
		{name: "transfers keep their sum", alone: true, run: func(e *env) {
			e.put("k0=100", "k1=100", "k2=100", "k3=100")
			churn("txn", func(e *env, round int) error {
				tx := e.begin()
				tx.SetEnableAsyncCommit(round%3 == 0)
				from, to := e.key(fmt.Sprintf("k%d", round%4)), e.key(fmt.Sprintf("k%d", (round+1)%4))
				var a, b int
				v, err := tx.Get(e.Context(), from)
				if err != nil {
					return err
				}
				fmt.Sscan(string(v), &a)
				if v, err = tx.Get(e.Context(), to); err != nil {
					return err
				}
				fmt.Sscan(string(v), &b)
				e.must(tx.Set(from, fmt.Append(nil, a-1)))
				e.must(tx.Set(to, fmt.Append(nil, b+1)))
				return tx.Commit(e.Context())
			}, func(e *env, rounds int) {
				got, err := e.snapshot().BatchGet(e.ctx(), e.keys("k0", "k1", "k2", "k3"))
				e.must(err)
				sum := 0
				for _, v := range got {
					var n int
					fmt.Sscan(string(v), &n)
					sum += n
				}
				e.same("sum", sum, 400)
			})(e)
		}},
	}}
}
