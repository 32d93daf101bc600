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
	"github.com/tikv-go/tikv/tikvtest"
)

// A commit whose answers are lost is undetermined; whoever asks, the client itself or
// another, is told what the cluster then shows for good.
func TestResolveOutcome(t *testing.T) {
	for _, tt := range []struct {
		name      string
		fault     playground.Fault
		committed bool
		after     func(t *testing.T, cluster *tikvtest.Cluster, tx *tikv.Txn) // before it is asked for
	}{
		{"the request was lost", playground.Fault{DropRequest: true}, false, nil},
		{"the answer was lost", playground.Fault{DropAnswer: true}, true, nil},
		{"the request comes late", playground.Fault{Delay: time.Hour}, false, nil},
		{"the locks have expired", playground.Fault{DropRequest: true}, false, func(t *testing.T, _ *tikvtest.Cluster, _ *tikv.Txn) {
			pause(t, time.Minute)
		}},
		{"another has rolled it back", playground.Fault{DropRequest: true}, false, func(t *testing.T, cluster *tikvtest.Cluster, _ *tikv.Txn) {
			pause(t, time.Minute)
			commit(t, cluster.Open(), "a", "other", "z", "other")
		}},
		{"another has written since", playground.Fault{DropAnswer: true}, true, func(t *testing.T, cluster *tikvtest.Cluster, _ *tikv.Txn) {
			commit(t, cluster.Open(), "a", "other", "z", "other")
		}},
		{"its region has split", playground.Fault{DropAnswer: true}, true, func(t *testing.T, cluster *tikvtest.Cluster, _ *tikv.Txn) {
			_, err := cluster.Split(playground.KeyTxn, b("Z"))
			must(t, err)
		}},
	} {
		for _, who := range []string{"itself", "another"} {
			t.Run(tt.name+", asked by "+who, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
					c := cluster.Open()
					tx := begin(t, c)
					must(t, tx.Put(b("a"), b("new")), tx.Put(b("z"), b("new")))
					fault := tt.fault
					fault.Method, fault.StartTS = "KvCommit", uint64(tx.StartTS())
					lost := cluster.Inject(fault)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					err := tx.Commit(ctx)
					var unknown *tikv.UndeterminedError
					if !errors.As(err, &unknown) || unknown.StartTS != tx.StartTS() || string(unknown.Primary) != "a" {
						t.Fatal(err)
					}
					if fault.Delay == 0 {
						lost.Remove()
					}
					if tt.after != nil {
						tt.after(t, cluster, tx)
					}
					asker := c
					if who == "another" {
						asker = cluster.Open()
					}
					at, err := asker.ResolveOutcome(t.Context(), fmt.Errorf("wrapped: %w", err))
					must(t, err)
					if (at != 0) != tt.committed {
						t.Fatalf("committed at %d", at)
					}
					// Again, from nothing but the data, and when everything late has come.
					pause(t, 2*time.Hour)
					again, err := cluster.Open().ResolveOutcome(t.Context(), &tikv.UndeterminedError{StartTS: unknown.StartTS, Primary: unknown.Primary})
					if err != nil || again != at {
						t.Fatal(again, err)
					}
					_, err = c.Latest().BatchGet(t.Context(), [][]byte{b("a"), b("z")})
					must(t, err)
					pause(t, time.Second) // locks go behind
					for _, k := range []string{"a", "z"} {
						if got := committedAt(t, cluster, k, tx.StartTS()); got != at {
							t.Errorf("%s is committed at %d, not %d", k, got, at)
						}
					}
				})
			})
		}
	}
}

// committedAt is when a transaction has committed a key, or 0.
func committedAt(t *testing.T, cluster *tikvtest.Cluster, key string, start tikv.Timestamp) tikv.Timestamp {
	t.Helper()
	vs, err := cluster.Versions(b(key))
	must(t, err)
	i := slices.IndexFunc(vs, func(v playground.Version) bool { return v.StartTS == uint64(start) && v.Kind == playground.WritePut })
	if i < 0 {
		return 0
	}
	return tikv.Timestamp(vs[i].CommitTS)
}

// Whatever state a transaction of any protocol is in when its client loses it, asking
// settles it at once, alive or not: for good, and alike for all of its keys.
func TestResolveOutcomeOfEveryProtocol(t *testing.T) {
	kinds := slices.Clone(remains)
	for i := range kinds {
		// To ask is to decide: that a lock is gone which was to be asked for, too.
		kinds[i].committed = kinds[i].committed && kinds[i].name != "shared, prewritten"
	}
	kinds = append(kinds, kinds[0])
	none := &kinds[len(kinds)-1]
	none.name, none.leave, none.committed = "nothing written", func(*dead) {}, false
	kinds = append(kinds, kinds[0])
	one := &kinds[len(kinds)-1]
	one.name, one.committed, one.leave = "in one phase", true, func(d *dead) { d.onePhase("a") }
	for _, r := range kinds {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				c := cluster.Open()
				d := newDead(t, c)
				r.leave(d)
				began := time.Now()
				err := error(&tikv.UndeterminedError{StartTS: tikv.Timestamp(d.start), Primary: b(d.primary)})
				at, err := c.ResolveOutcome(t.Context(), err)
				must(t, err)
				if time.Since(began) > time.Second {
					t.Errorf("it took %v", time.Since(began))
				}
				if (at != 0) != r.committed {
					t.Fatalf("committed at %d", at)
				}
				pause(t, time.Second) // its locks go behind
				// What comes late finds it settled.
				if at == 0 && len(d.send(d.mutate(d.primary)).Errors) == 0 {
					t.Error("a late prewrite passed")
				}
				commit(t, c, "a", "mine", "z", "mine", d.primary, "mine")
				if got := committedAt(t, cluster, d.primary, tikv.Timestamp(d.start)); got != at {
					t.Errorf("the primary key is committed at %d, not %d", got, at)
				}
				for _, k := range d.async {
					if got := committedAt(t, cluster, k, tikv.Timestamp(d.start)); got != at {
						t.Errorf("%s is committed at %d, not %d", k, got, at)
					}
				}
			})
		})
	}
}

// onePhase writes a key in one phase.
func (d *dead) onePhase(key string) {
	d.t.Helper()
	req := d.mutate(key)
	req.TryOnePc = true
	if resp := d.send(req); resp.OnePcCommitTs == 0 {
		d.t.Fatal(resp)
	}
}

// What cannot be asked for is refused, before anything is sent.
func TestResolveOutcomeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		now, err := c.Timestamp(t.Context())
		must(t, err)
		trace := cluster.Trace()
		for name, tt := range map[string]struct {
			err  error
			want error
		}{
			"nothing":        {nil, tikv.ErrInvalid},
			"another error":  {tikv.ErrWriteConflict, tikv.ErrInvalid},
			"the sentinel":   {tikv.ErrUndetermined, tikv.ErrInvalid},
			"a raw write":    {&tikv.UndeterminedError{Key: b("a")}, tikv.ErrUnsupported},
			"no primary key": {&tikv.UndeterminedError{StartTS: now}, tikv.ErrInvalid},
			"no timestamp":   {&tikv.UndeterminedError{StartTS: ^tikv.Timestamp(0), Primary: b("a")}, tikv.ErrInvalid},
			"the future":     {&tikv.UndeterminedError{StartTS: now + 1<<40, Primary: b("a")}, tikv.ErrInvalid},
			"an empty key":   {&tikv.UndeterminedError{StartTS: now, Primary: b("a"), Secondaries: [][]byte{nil}}, tikv.ErrInvalid},
			"a raw batch":    {&tikv.BatchError{Outcomes: []tikv.Outcome{tikv.OutcomeUnknown}, Errs: []error{&tikv.UndeterminedError{Key: b("a")}}}, tikv.ErrUnsupported},
		} {
			if at, err := c.ResolveOutcome(t.Context(), tt.err); at != 0 || !errors.Is(err, tt.want) {
				t.Errorf("%s: %d, %v", name, at, err)
			}
		}
		trace.Stop()
		if sent := resolving(trace); sent != "" {
			t.Error(sent)
		}

		// A lost commit of another cluster.
		other := tikvtest.NewCluster(t, playground.WithSeed(7))
		tx := begin(t, other.Open())
		must(t, tx.Put(b("a"), b("1")))
		other.Inject(playground.Fault{Method: "KvCommit", DropRequest: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = tx.Commit(ctx)
		if at, err2 := c.ResolveOutcome(t.Context(), err); !errors.Is(err, tikv.ErrUndetermined) || at != 0 || !errors.Is(err2, tikv.ErrInvalid) {
			t.Error(err, at, err2)
		}
		must(t, c.Close())
		if _, err := c.ResolveOutcome(t.Context(), err); !errors.Is(err, tikv.ErrClosed) {
			t.Error(err)
		}
	})
}

// The answer to a commit is lost: whether it happened is asked of the cluster.
func ExampleClient_ResolveOutcome() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	// The caller gives up while the answer is on its way, which never comes.
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := cluster.Inject(playground.Fault{Method: "KvCommit", After: cancel, DropAnswer: true})
	err = client.RunTxn(short, func(ctx context.Context, tx *tikv.Txn) error {
		return tx.Put([]byte("balance"), []byte("100"))
	}, tikv.WithCommitCheck(func(tikv.Timestamp) error { return nil }))
	lost.Remove()

	if errors.Is(err, tikv.ErrUndetermined) { // not repeated: it may have happened
		at, err := client.ResolveOutcome(ctx, err)
		fmt.Println("committed:", at != 0, err)
	}
	// Output: committed: true <nil>
}
