package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
)

// outcome names the result of a call.
func outcome(err error) string {
	var un *Undetermined
	var away *Unavailable
	var no *Refused
	var gone *Canceled
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &un):
		return "undetermined"
	case errors.As(err, &away):
		return "unavailable"
	case errors.As(err, &no):
		return "refused"
	case errors.As(err, &gone):
		return "canceled"
	case err == ErrClosed:
		return "closed"
	}
	return err.Error()
}

// Sequences of answers, and what a call makes of them: the stores asked ("!": marked as
// a retry, "/2": of region 2), the result, the time it took. A "read" is sent again, a
// "write" too but must know its outcome, "once" is never sent again after it may have
// run.
func TestSequences(t *testing.T) {
	for _, c := range []struct{ kind, answers, asked, result, took string }{
		{"read", "ok", "1", "ok", "0s"},
		// Leaders.
		{"read", "notleader=2 ok", "1 2!", "ok", "0s"},
		{"once", "notleader=3 notleader=2 ok", "1 3! 2!", "ok", "0s"},
		{"read", "notleader ok", "1 2!", "ok", "2ms"},
		{"read", "notleader notleader notleader ok", "1 2! 3! 2!", "ok", "14ms"},
		{"read", "notleader=2 notleader=1 notleader=2 notleader=1 notleader=2 ok", "1 2! 1! 2! 1! 2!", "ok", "30ms"},
		{"read", "notleader=9 ok", "1 1!", "ok", "2ms"},
		// Stores that cannot be reached: the others know, or have been elected.
		{"once", "dial ok", "1 2", "ok", "0s"},
		{"once", "unsent ok", "1 2", "ok", "0s"},
		{"read", "lost ok", "1 2!", "ok", "0s"},
		{"once", "dial notleader=3 ok", "1 2 3!", "ok", "0s"},
		{"read", "dial notleader=1 dial notleader=1 ok", "1 2 1<2! 3! 1<3!", "ok", "0s"},
		{"read", "dial dial ok", "1 2 3", "ok", "0s"},
		{"read", "full ok", "1 1", "ok", "50ms-100ms"},
		// Regions that changed.
		{"once", "epoch=split ok", "1 1/2!", "ok", "0s"},
		{"once", "epoch ok", "1 1!", "ok", "2ms"},
		{"once", "epoch=behind ok", "1 1!", "ok", "2ms"},
		{"once", "notfound notfound ok", "1 1! 1!", "ok", "6ms"},
		{"once", "store ok", "1 1!", "ok", "2ms"},
		{"once", "buckets=7 ok", "1 1!", "ok", "2ms"},
		// Stores that are busy, full, or have nothing but words.
		{"once", "busy ok", "1 1!", "ok", "250ms-500ms"},
		{"once", "busy=20 ok", "1 1!", "ok", "20ms"},
		{"read", "busy=20 busy=20 busy=20 ok", "1 1! 2! 2!", "ok", "140ms"},
		{"once", "disk disk ok", "1 1! 1!", "ok", "1500ms"},
		{"read", "message=TiKV_is_Closing ok", "1 2!", "ok", "0s"},
		{"read", "stale ok", "1 1!", "ok", "2ms"},
		// Refusals.
		{"read", "large", "1", "refused", "0s"},
		{"once", "flashback", "1", "refused", "0s"},
		{"once", "status=3", "1", "refused", "0s"},
		{"once", "encoding", "1", "refused", "0s"},
		{"read", "status=2 ok", "1 2!", "ok", "0s"},
		// What may have run.
		{"once", "lost", "1", "undetermined", "0s"},
		{"once", "stale", "1", "undetermined", "0s"},
		{"once", "unsure", "1", "undetermined", "0s"},
		{"once", "message=timeout", "1", "undetermined", "0s"},
		{"once", "future", "1", "refused", "0s"},
		{"write", "lost future", "1 2!", "undetermined", "0s"},
		{"once", "status=2", "1", "undetermined", "0s"},
		{"once", "dial notleader=1 lost", "1 2 1<2!", "undetermined", "0s"},
		{"once", "hang", "1", "undetermined", "20s"},
		{"once", "hang=1 ok", "1 2", "ok", "20s"},
		{"write", "lost ok", "1 2!", "ok", "0s"},
		{"write", "lost large", "1 2!", "undetermined", "0s"},
		{"write", "lost closed", "1 2!", "undetermined", "0s"},
		{"write", "lost epoch=split flashback", "1 2! 2/2!", "undetermined", "0s"},
		{"write", "hang ok", "1 2!", "ok", "20s"},
		{"read", "hang ok", "1 2!", "ok", "30s"},
		// The end of the client.
		{"read", "closed", "1", "closed", "0s"},
		{"write", "closed", "1", "closed", "0s"},
		{"write", "closed=1", "1", "undetermined", "0s"},
	} {
		t.Run(c.kind+" "+c.answers, func(t *testing.T) {
			inWorld(t, c.answers, func(t *testing.T, w *world) {
				start := time.Now()
				_, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall(c.kind), []byte("k"), put())
				if got := strings.Join(w.script.asked, " "); got != c.asked || outcome(err) != c.result || !within(t, time.Since(start), c.took) {
					t.Fatalf("asked %q, %s in %v (%v)", got, outcome(err), time.Since(start), err)
				}
				if len(w.script.words) > 0 {
					t.Fatalf("not all was asked for: %q is left", w.script.words)
				}
			})
		})
	}
}

// After a success elsewhere, the next call goes there at once.
func TestSuccessElsewhereMovesTheLeader(t *testing.T) {
	inWorld(t, "dial ok ok", func(t *testing.T, w *world) {
		for range 2 {
			if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("read"), nil, put()); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(w.script.asked, " "); got != "1 2 2" {
			t.Fatal(got)
		}
	})
}

func TestRequestIsAddressed(t *testing.T) {
	inWorld(t, "notleader=2 ok", func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		call := newCall("read")
		call.Priority, call.RequestSource = kvrpcpb.CommandPri_High, "test"
		if _, err := Do[*kvrpcpb.RawPutResponse](ctx, w.Router, call, nil, put()); err != nil {
			t.Fatal(err)
		}
		c := w.script.reqs[1]
		if c.RegionId != 1 || c.Peer.Id != 12 || c.RegionEpoch.Version != 1 || c.ClusterId != 7 || c.MaxExecutionDurationMs != 1500 ||
			c.Priority != kvrpcpb.CommandPri_High || c.RequestSource != "test" || !c.IsRetryRequest || w.script.reqs[0].IsRetryRequest {
			t.Fatalf("%+v", c)
		}
	})
	inWorld(t, "ok", func(t *testing.T, w *world) {
		if _, err := w.Send(t.Context(), newCall("read"), nil, &kvrpcpb.RawPutRequest{}); err != ErrNoContext {
			t.Fatal(err)
		}
	})
}

// Without a deadline the budget ends the call, by sleep and by waiting alike; with one,
// the deadline does.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		answer         string
		retryFor       time.Duration
		deadline       time.Duration
		lowest, higest time.Duration
	}{
		{"busy", 0, 0, 20 * time.Second, 20 * time.Second},
		{"busy", time.Second, 0, time.Second, time.Second},
		{"busy", time.Second, time.Minute, time.Minute, time.Minute},
		{"dial", 0, 0, 20 * time.Second, 20 * time.Second},
		{"notleader=2", 0, 3 * time.Second, 3 * time.Second, 3 * time.Second},
		{"epoch", 0, 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"epoch=same", 0, 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"epoch=stranger", 0, 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"hang", 0, 0, 30 * time.Second, 60 * time.Second},
		{"hang", 0, 5 * time.Second, 5 * time.Second, 5 * time.Second},
	} {
		t.Run(fmt.Sprint(c.answer, c.retryFor, c.deadline), func(t *testing.T) {
			inWorld(t, strings.Repeat(c.answer+" ", 3000), func(t *testing.T, w *world) {
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				call, start := newCall("read"), time.Now()
				call.RetryFor = c.retryFor
				_, err := Do[*kvrpcpb.RawPutResponse](ctx, w.Router, call, []byte("k"), put())
				var away *Unavailable
				took := time.Since(start)
				if !errors.As(err, &away) || took < c.lowest || took > c.higest {
					t.Fatal(err, took)
				}
				if c.deadline > 0 != errors.Is(err, context.DeadlineExceeded) || c.deadline == 0 != errors.Is(err, backoff.ErrExhausted) {
					t.Fatal(err, away.Causes)
				}
				if len(away.Attempts) > keptAttempts || away.Total < len(w.script.asked) || away.RegionID != 1 || string(away.Key) != "k" {
					t.Fatalf("%+v", away)
				}
			})
		})
	}
}

// A region of which stores, and PD, never tell what fits: the call ends with its time,
// says what it met, and has asked no more often than its pauses let it.
func TestStaleForEver(t *testing.T) {
	for answer, reason := range map[string]Reason{
		"epoch": EpochNotMatch, "epoch=split": EpochNotMatch, "epoch=behind": EpochNotMatch, "epoch=newer": EpochNotMatch,
		"notfound": RegionNotFound, "store": StoreNotMatch, "buckets=7": BucketVersion,
	} {
		for _, kind := range []string{"read", "write", "once"} {
			for _, deadline := range []time.Duration{0, 5 * time.Second} {
				t.Run(fmt.Sprint(answer, " ", kind, " ", deadline), func(t *testing.T) {
					inWorld(t, strings.Repeat(answer+" ", 3000), func(t *testing.T, w *world) {
						ctx, want, cause := t.Context(), 20*time.Second, backoff.ErrExhausted
						if deadline > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, deadline)
							defer cancel()
							want, cause = deadline, context.DeadlineExceeded
						}
						start := time.Now()
						_, err := Do[*kvrpcpb.RawPutResponse](ctx, w.Router, newCall(kind), []byte("k"), put())
						var away *Unavailable
						if took := time.Since(start); !errors.As(err, &away) || !errors.Is(err, cause) || took != want {
							t.Fatalf("%v after %v", err, took)
						}
						for _, a := range away.Attempts {
							if a.Reason != reason || a.StoreID != 1 {
								t.Fatalf("%+v", a)
							}
						}
						// Twice a second, once the pauses have grown.
						most := 12 + 2*int(want/time.Second)
						if n := len(w.script.asked); n > most || away.Total != n || w.pd.loads > most {
							t.Fatalf("asked %d times, PD %d times, in %v", n, w.pd.loads, want)
						}
					})
				})
			}
		}
	}
}

// Wherever a call waits, the end of ctx ends it at once; if a deciding write is out,
// nobody knows.
func TestCancel(t *testing.T) {
	for _, c := range []struct{ kind, answers, result string }{
		{"read", "hang", "canceled"},
		{"write", "hang", "undetermined"},
		{"once", "hang=1", "canceled"}, // never written to the wire
		{"read", "busy", "canceled"},
		{"write", "busy", "canceled"},
		{"write", "lost lost lost", "undetermined"},
		{"once", "disk", "canceled"},
	} {
		t.Run(c.kind+" "+c.answers, func(t *testing.T) {
			inWorld(t, c.answers, func(t *testing.T, w *world) {
				over := errors.New("over")
				ctx, cancel := context.WithCancelCause(t.Context())
				callers, start := task.New(t.Context()), time.Now()
				callers.Go("caller", func(context.Context) {
					_, err := Do[*kvrpcpb.RawPutResponse](ctx, w.Router, newCall(c.kind), nil, put())
					if outcome(err) != c.result || !errors.Is(err, over) || !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
						t.Errorf("%v after %v", err, time.Since(start))
					}
				})
				synctest.Wait()
				cancel(over)
				_ = callers.Wait(t.Context())
			})
		})
	}
}

// While the client closes, calls that wait end, and work that is owed goes on.
func TestShut(t *testing.T) {
	inWorld(t, "busy", func(t *testing.T, w *world) {
		callers, start := task.New(t.Context()), time.Now()
		callers.Go("caller", func(ctx context.Context) {
			if _, err := Do[*kvrpcpb.RawPutResponse](ctx, w.Router, newCall("write"), nil, put()); err != ErrClosed || time.Since(start) != 0 {
				t.Error(err, time.Since(start))
			}
		})
		synctest.Wait()
		w.Shut()
		_ = callers.Wait(t.Context())
		w.script.words = []string{"busy=10", "ok"}
		owed := newCall("write")
		owed.Owed = true
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, owed, nil, put()); err != nil {
			t.Fatal(err)
		}
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("write"), nil, put()); err != ErrClosed {
			t.Fatal(err)
		}
	})
}

// Owed work ends when the client's own tasks do.
func TestOwedEndsWithTheTasks(t *testing.T) {
	inWorld(t, "", func(t *testing.T, w *world) {
		w.pd.err = errors.New("down")
		callers := task.New(w.tasks.Context())
		callers.Go("owed", func(ctx context.Context) {
			call := newCall("read")
			call.Owed = true
			if _, err := w.Locate(ctx, call, []byte("k")); err != ErrClosed {
				t.Error(err)
			}
		})
		synctest.Wait()
		w.tasks.Close(ErrClosed)
		_ = callers.Wait(t.Context())
	})
}

func TestPDAway(t *testing.T) {
	inWorld(t, "", func(t *testing.T, w *world) {
		w.pd.err = errors.New("down")
		call := newCall("once")
		_, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, call, []byte("k"), put())
		var away *Unavailable
		if !errors.As(err, &away) || away.Attempts[0].Reason != PD || !errors.Is(err, w.pd.err) || len(w.script.asked) > 0 {
			t.Fatal(err)
		}
		w.pd.err = nil
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("once"), []byte("k"), put()); err != nil {
			t.Fatal(err)
		}
	})
}

// The budget of a call bounds its waits for PD, whatever it waits for.
func TestBudgetBoundsPD(t *testing.T) {
	send := func(route *Route) func(*world, context.Context, *Call) error {
		return func(w *world, ctx context.Context, call *Call) error {
			call.Route = route
			_, err := Do[*kvrpcpb.GetResponse](ctx, w.Router, call, []byte("k"), get())
			return err
		}
	}
	for name, c := range map[string]struct {
		silent string
		do     func(*world, context.Context, *Call) error
	}{
		"region":      {"regions", send(nil)},
		"store":       {"stores", send(nil)},
		"any replica": {"stores", send(&Route{Policy: ReadAny})},
		"regions": {"regions", func(w *world, ctx context.Context, call *Call) error {
			_, err := w.Group(ctx, call, [][]byte{[]byte("a"), []byte("b")})
			return err
		}},
		"a store": {"stores", func(w *world, ctx context.Context, call *Call) error {
			return SendStore(ctx, w.Router, call, 1, put(), &kvrpcpb.RawPutResponse{})
		}},
	} {
		for _, deadline := range []time.Duration{0, time.Second} {
			t.Run(fmt.Sprint(name, deadline), func(t *testing.T) {
				inWorld(t, "", func(t *testing.T, w *world) {
					w.pd.silent = c.silent
					ctx, cancel := context.WithCancel(t.Context())
					if deadline > 0 {
						ctx, cancel = context.WithTimeout(t.Context(), deadline)
					}
					defer cancel()
					call, began := newCall("read"), time.Now()
					if deadline == 0 {
						call.RetryFor = 3 * time.Second
						timer := time.AfterFunc(time.Minute, cancel) // so that it ends
						defer timer.Stop()
					}
					err := c.do(w, ctx, call)
					want := cmp.Or(deadline, call.RetryFor)
					if took := time.Since(began); outcome(err) != "unavailable" || took != want {
						t.Fatal(err, took)
					}
				})
			})
		}
	}
}

// What PD says although it is behind is used at last: the store knows.
func TestStaleRegionIsTriedAtTheStore(t *testing.T) {
	inWorld(t, "epoch=split ok", func(t *testing.T, w *world) {
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("once"), []byte("x"), put()); err != nil {
			t.Fatal(err)
		}
		w.cfg.Regions.Invalidate(w.cfg.Regions.Lookup([]byte("a")), region.Other) // region 2, which PD has never heard of
		w.script.words, w.script.asked = []string{"epoch=split", "ok"}, nil
		start := time.Now()
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("once"), []byte("a"), put()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(w.script.asked, " "); got != "1 1/2!" || time.Since(start) != 2*time.Millisecond {
			t.Fatal(got, time.Since(start))
		}
	})
}

func TestGroup(t *testing.T) {
	inWorld(t, "", func(t *testing.T, w *world) {
		w.pd.regions = nil
		for i := range 300 {
			end := fmt.Sprintf("%03d", i+1)
			if i == 299 {
				end = ""
			}
			w.pd.regions = append(w.pd.regions, regionMeta(uint64(i+1), fmt.Sprintf("%03d", i)[:min(i, 1)*3], end, 1))
		}
		check := func(name string, keys [][]byte, loads, scans int) []Group {
			t.Helper()
			w.pd.loads, w.pd.scans = 0, 0
			groups, err := w.Group(t.Context(), newCall("read"), keys)
			if err != nil || w.pd.loads != loads || w.pd.scans != scans {
				t.Fatalf("%s: %d loads and %d scans: %v", name, w.pd.loads, w.pd.scans, err)
			}
			seen := make(map[int]bool)
			for _, g := range groups {
				for n, i := range g.Index {
					if !g.Region.Contains(keys[i]) || seen[i] || n > 0 && g.Index[n-1] >= i {
						t.Fatalf("%s: key %q in %+v", name, keys[i], g.Region.Range)
					}
					seen[i] = true
				}
			}
			if len(seen) != len(keys) {
				t.Fatalf("%s: %d of %d keys", name, len(seen), len(keys))
			}
			return groups
		}
		key := func(i int) []byte { return fmt.Appendf(nil, "%03dx", i) }
		check("one key", [][]byte{key(7)}, 1, 0)
		check("known", [][]byte{key(7), key(7)}, 0, 0)
		check("neighbours", [][]byte{key(12), key(10), key(11), key(10)}, 0, 1)
		if got := check("order", [][]byte{key(12), key(7), key(12), key(10)}, 0, 0); len(got) != 3 || got[0].Region.ID != 13 || got[1].Region.ID != 8 {
			t.Fatal(got)
		}
		var all [][]byte
		for i := range 300 {
			all = append(all, key(299-i))
		}
		check("all", all, 0, 3)
		w.cfg.Regions = region.New(w.pd, w.tasks)
		check("sparse", [][]byte{key(0), key(100), key(200)}, 1, 2)
	})
}

func TestPartInheritsWhatWasLost(t *testing.T) {
	c := newCall("write")
	c.lose(errors.New("gone"))
	c.sends = 1
	p := c.Part()
	if !p.Lost() || p.sends != 1 || p.Op != c.Op {
		t.Fatal(p)
	}
	p.lose(errors.New("too"))
	if len(c.lost) != 1 {
		t.Fatal("a part's loss is its own")
	}
	var un *Undetermined
	if err := p.Refuse("no"); !errors.As(err, &un) || len(un.Causes) != 3 {
		t.Fatal(err)
	}
}

// An address at which another store answers gets a new connection, once for all who find
// out.
func TestMisledConnectionIsRenewed(t *testing.T) {
	inWorld(t, "store store ok store ok", func(t *testing.T, w *world) {
		for range 2 {
			if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("once"), nil, put()); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(w.script.renewed); got != "[s1]" {
				t.Fatal(got)
			}
			w.script.renewed = nil
			<-time.After(2 * time.Second)
		}
	})
}

// Buckets that a store tells of are taken over; the region stays, and a request that names
// a version goes on with theirs.
func TestBucketsAreLearned(t *testing.T) {
	inWorld(t, "buckets=7 ok", func(t *testing.T, w *world) {
		req := put()
		req.Context.BucketsVersion = 3
		if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("read"), []byte("k"), req); err != nil {
			t.Fatal(err)
		}
		reg := w.cfg.Regions.Lookup([]byte("k"))
		if reg == nil || reg.BucketVersion() != 7 || string(reg.Bucket([]byte("x")).Start) != "k" || w.script.reqs[1].BucketsVersion != 7 || w.pd.loads != 1 {
			t.Fatalf("%+v, %d loads", w.script.reqs, w.pd.loads)
		}
	})
}

// A store that PD does not know any more: the region is asked for again, and reads of other
// replicas leave it out.
func TestStoreThatIsGone(t *testing.T) {
	for _, c := range []struct {
		route *Route
		asked string
	}{
		{nil, "2"},
		{&Route{Policy: ReadPreferLeader, Stores: []uint64{3}}, "3r"},
	} {
		inWorld(t, "", func(t *testing.T, w *world) {
			w.pd.gone = 1
			call, start := newCall("read"), time.Now()
			call.Route = c.route
			if _, err := Do[*kvrpcpb.GetResponse](t.Context(), w.Router, call, []byte("k"), get()); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(w.script.asked, " "); got != c.asked || time.Since(start) > 2*time.Millisecond {
				t.Fatal(got, time.Since(start))
			}
		})
	}
}
