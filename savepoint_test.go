package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// writes are the buffered writes of tx, "-" standing for a deletion.
func writes(tx *tikv.Txn) (out []string) {
	for w := range tx.Writes() {
		value := string(w.Value)
		if w.Delete {
			value = "-"
		}
		out = append(out, string(w.Key)+"="+value)
	}
	return out
}

func TestSavepoint(t *testing.T) {
	for name, opts := range map[string][]playground.Option{"V1": nil, "V2": {playground.WithAPIVersion(playground.APIV2)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := tikvtest.NewCluster(t, opts...).Open()
				commit(t, c, "a", "0", "b", "0")
				tx := begin(t, c)
				must(t, tx.Put([]byte("a"), []byte("1")), tx.Put([]byte("c"), nil))
				outer := tx.Savepoint()
				must(t, tx.Put([]byte("a"), []byte("2")), tx.Delete([]byte("b")), tx.Put([]byte("d"), []byte("2")))
				inner := tx.Savepoint()
				must(t, tx.Put([]byte("a"), []byte("3")), tx.Delete([]byte("c")), tx.CheckAbsent([]byte("e")))
				if got := fmt.Sprint(writes(tx)); got != "[a=3 b=- c=- d=2]" {
					t.Error(got)
				}
				must(t, tx.RollbackTo(inner))
				if got := fmt.Sprint(writes(tx)); got != "[a=2 b=- c= d=2]" || tx.Len() != 4 || tx.Size() != 6 {
					t.Error(got, tx.Len(), tx.Size())
				}
				must(t, tx.Delete([]byte("d")), tx.RollbackTo(inner), tx.RollbackTo(outer), tx.RollbackTo(outer))
				want(t, tx, "a", "1")
				want(t, tx, "b", "0")
				want(t, tx, "d", "-")
				if err := tx.RollbackTo(inner); !errors.Is(err, tikv.ErrInvalid) {
					t.Error("went to an ended savepoint:", err)
				}
				if got := fmt.Sprint(writes(tx)); got != "[a=1 c=]" || tx.Len() != 2 || tx.Size() != 3 {
					t.Error(got, tx.Len(), tx.Size())
				}
				commit(t, c, "e", "0") // the claim that it is absent was discarded
				must(t, tx.Commit(t.Context()))
				for key, value := range map[string]string{"a": "1", "b": "0", "c": "", "d": "-"} {
					want(t, c.Latest(), key, value)
				}
			})
		})
	}
}

// What a savepoint can not be used for, and what it says then.
func TestSavepointMisuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		one, two := begin(t, c), begin(t, c)
		must(t, one.Put([]byte("a"), []byte("1")))
		sp := one.Savepoint()
		for name, err := range map[string]error{"another's": two.RollbackTo(sp), "none": one.RollbackTo(tikv.Savepoint{})} {
			if !errors.Is(err, tikv.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, one.Commit(t.Context()))
		if err := one.RollbackTo(sp); !errors.Is(err, tikv.ErrTxnDone) {
			t.Error(err)
		}
		if err := one.RollbackTo(one.Savepoint()); !errors.Is(err, tikv.ErrTxnDone) {
			t.Error(err)
		}
		if got := writes(one); len(got) > 0 {
			t.Error("an ended transaction yields", got)
		}
		want(t, c.Latest(), "a", "1")
	})
}

// Going back keeps locks: the commit still finds that another wrote the key.
func TestRollbackToKeepsLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		tx := begin(t, c)
		sp := tx.Savepoint()
		must(t, tx.Lock(t.Context(), [][]byte{[]byte("a")}), tx.Put([]byte("a"), []byte("1")), tx.Put([]byte("b"), []byte("1")))
		must(t, tx.RollbackTo(sp))
		if got := writes(tx); len(got) > 0 || tx.Len() != 1 {
			t.Error(got, tx.Len())
		}
		commit(t, c, "a", "other")
		if err := tx.Commit(t.Context()); !errors.Is(err, tikv.ErrWriteConflict) {
			t.Error(err)
		}
	})
}

// Loops over scans and writes see what was there when they began, whatever is written or
// taken back meanwhile.
func TestWritesWhileLooping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		tx := begin(t, c)
		for i := range 200 {
			must(t, tx.Put(fmt.Appendf(nil, "%03d", i), []byte("x")))
		}
		sp, n := tx.Savepoint(), 0
		for w := range tx.Writes() {
			if string(w.Key) != fmt.Sprintf("%03d", n) || string(w.Value) != "x" {
				t.Fatalf("write %d is %q=%q", n, w.Key, w.Value)
			}
			must(t, tx.Put(w.Key, []byte("y")), tx.Put(append(w.Key, '!'), []byte("y")))
			if n++; n%50 == 0 {
				must(t, tx.RollbackTo(sp))
			}
		}
		must(t, tx.Put([]byte("000"), []byte("z")))
		for pair, err := range tx.Scan(t.Context(), tikv.Range{}) {
			must(t, err, tx.RollbackTo(sp), tx.Put(append(pair.Key, '?'), []byte("y")))
			n++
		}
		if n != 400 || tx.Len() != 201 {
			t.Error(n, tx.Len())
		}
	})
}

// Random statements, nested and taken back, against a map; in the end the cluster has
// what the map has.
func TestSavepointModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		rng, cluster := rand.New(rand.NewPCG(1, 2)), map[string]string{}
		for range 6 {
			type level struct {
				sp    tikv.Savepoint
				model map[string]string
			}
			tx, model := begin(t, c), maps.Clone(cluster)
			var levels []level
			for i := range 300 {
				k := fmt.Sprintf("%02d", rng.IntN(60))
				switch rng.IntN(8) {
				case 0:
					levels = append(levels, level{tx.Savepoint(), maps.Clone(model)})
				case 1:
					if n := len(levels); n > 0 {
						at := rng.IntN(n)
						must(t, tx.RollbackTo(levels[at].sp))
						model, levels = maps.Clone(levels[at].model), levels[:at+1]
					}
				case 2:
					must(t, tx.Delete([]byte(k)))
					delete(model, k)
				case 3:
					value, ok := model[k]
					if !ok {
						value = "-"
					}
					want(t, tx, k, value)
				default:
					model[k] = fmt.Sprint(i)
					must(t, tx.Put([]byte(k), []byte(model[k])))
				}
			}
			checkAll(t, tx, model)
			must(t, tx.Commit(t.Context()))
			cluster = model
			checkAll(t, c.Latest(), cluster)
		}
	})
}

func checkAll(t *testing.T, r tikv.Reader, model map[string]string) {
	t.Helper()
	var got []string
	for pair, err := range r.Scan(t.Context(), tikv.Range{}) {
		must(t, err)
		got = append(got, string(pair.Key))
		if model[string(pair.Key)] != string(pair.Value) {
			t.Errorf("%s is %q, want %q", pair.Key, pair.Value, model[string(pair.Key)])
		}
	}
	if !slices.Equal(got, slices.Sorted(maps.Keys(model))) {
		t.Errorf("keys %v, want those of %v", got, model)
	}
}

func ExampleTxn_RollbackTo() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	err = client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		if err := tx.Put([]byte("order"), []byte("17")); err != nil {
			return err
		}
		sp := tx.Savepoint()
		if err := tx.Put([]byte("voucher"), []byte("expired")); err != nil {
			return err
		}
		if err := tx.RollbackTo(sp); err != nil { // the order, without the voucher
			return err
		}
		for w := range tx.Writes() {
			fmt.Printf("%s=%s\n", w.Key, w.Value)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: order=17
}
