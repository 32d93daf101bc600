package txn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

// answers adds scripted answers to requests of one name.
func (f *fake) answer(name string, responses ...any) {
	for _, r := range responses {
		s := scripted{name: name}
		switch r := r.(type) {
		case transport.Message:
			s.do = func(*fake, transport.Message) (transport.Response, error) { return r, nil }
		case func(*fake, transport.Message) (transport.Response, error):
			s.do = r
		}
		f.answers = append(f.answers, s)
	}
}

// pairs are those of an answer: "k=v", or "k!start" for a lock.
func pairs(all ...string) []*kvrpcpb.KvPair {
	var out []*kvrpcpb.KvPair
	for _, s := range all {
		if k, v, ok := strings.Cut(s, "="); ok {
			out = append(out, &kvrpcpb.KvPair{Key: []byte(k), Value: []byte(v)})
			continue
		}
		k, start, _ := strings.Cut(s, "!")
		var ms uint64
		fmt.Sscan(start, &ms)
		out = append(out, &kvrpcpb.KvPair{Error: &kvrpcpb.KeyError{Locked: lockInfo(k, "p", ms, 3000)}})
	}
	return out
}

func got(all ...string) *kvrpcpb.BatchGetResponse {
	return &kvrpcpb.BatchGetResponse{Pairs: pairs(all...)}
}

func page(all ...string) *kvrpcpb.ScanResponse { return &kvrpcpb.ScanResponse{Pairs: pairs(all...)} }

func locked(key string, start uint64) func(*fake, transport.Message) (transport.Response, error) {
	return keyErr(&kvrpcpb.KeyError{Locked: lockInfo(key, "p", start, 3000)})
}

var (
	committedAt = func(ms uint64) *kvrpcpb.CheckTxnStatusResponse {
		return &kvrpcpb.CheckTxnStatusResponse{CommitVersion: at(ms)}
	}
	pushed = &kvrpcpb.CheckTxnStatusResponse{LockTtl: 3000, Action: kvrpcpb.Action_MinCommitTSPushed}
	alive  = &kvrpcpb.CheckTxnStatusResponse{LockTtl: 3000}
	dead   = &kvrpcpb.CheckTxnStatusResponse{Action: kvrpcpb.Action_TTLExpireRollback}
)

// foreground is the log without what is done behind a reader's back, and without the
// mark of a retry, which says nothing about a read.
func (f *fake) foreground() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := slices.DeleteFunc(slices.Clone(f.log), func(s string) bool { return strings.Contains(s, " Resolve ") })
	return strings.ReplaceAll(strings.Join(log, "\n"), " retry", "")
}

// show is values in one line; "-" is absent.
func show(values []Value) string {
	var out []string
	for _, v := range values {
		if v.Bytes == nil {
			out = append(out, "-")
		} else {
			out = append(out, string(v.Bytes))
		}
	}
	return strings.Join(out, " ")
}

func abc(ks ...string) [][]byte {
	var out [][]byte
	for _, k := range ks {
		out = append(out, []byte(k))
	}
	return out
}

func TestReads(t *testing.T) {
	get := func(key string) func(context.Context, *Snapshot) (string, error) {
		return func(ctx context.Context, s *Snapshot) (string, error) {
			v, err := s.Get(ctx, "Get", []byte(key))
			return string(v), err
		}
	}
	batch := func(versions bool, ks ...string) func(context.Context, *Snapshot) (string, error) {
		return func(ctx context.Context, s *Snapshot) (string, error) {
			v := make([]Value, len(ks))
			err := s.BatchGet(ctx, "BatchGet", abc(ks...), versions, func(i int, got Value) { v[i] = got })
			return show(v), err
		}
	}
	scan := func(from, to string, o ScanOptions) func(context.Context, *Snapshot) (string, error) {
		return func(ctx context.Context, s *Snapshot) (string, error) {
			var out []string
			p := s.Pages("Scan", keys.Range{Start: []byte(from), End: []byte(to)}, o)
			for {
				page, err := p.Next(ctx)
				if err != nil || len(page) == 0 {
					return strings.Join(out, " "), err
				}
				for _, pair := range page {
					out = append(out, string(pair.Key)+"="+string(pair.Value))
				}
			}
		}
	}
	for _, tt := range []struct {
		name  string
		ts    uint64 // 0: the newest
		split []string
		setup func(f *fake)
		read  func(context.Context, *Snapshot) (string, error)
		want  string
		log   string
	}{{
		name: "a lock that was committed before is read through", ts: 100, read: get("a"), want: "v",
		setup: func(f *fake) {
			f.answer("Get", locked("a", 50), &kvrpcpb.GetResponse{Value: []byte("v")})
			f.answer("Check", committedAt(90))
		},
		log: `r1 Get a at 100
r1 Check p@50 caller=100
r1 Get a at 100 through=50`,
	}, {
		name: "a lock that was pushed is ignored, an empty value is one", ts: 100, read: get("a"), want: "",
		setup: func(f *fake) {
			f.answer("Get", locked("a", 50), &kvrpcpb.GetResponse{})
			f.answer("Check", pushed)
		},
		log: `r1 Get a at 100
r1 Check p@50 caller=100
r1 Get a at 100 ignore=50`,
	}, {
		name: "a lock that cannot be looked behind is waited for", ts: 100, read: get("a"), want: "v",
		setup: func(f *fake) {
			f.answer("Get", locked("a", 50), locked("a", 50), &kvrpcpb.GetResponse{Value: []byte("v")})
			f.answer("Check", committedAt(90))
		},
		log: `r1 Get a at 100
r1 Check p@50 caller=100
r1 Get a at 100 through=50
r1 Get a at 100 through=50`,
	}, {
		name: "a batch asks again for the locked keys alone", ts: 100, read: batch(false, "c", "a", "b", "a"), want: "C A B A",
		setup: func(f *fake) {
			f.answer("BatchGet", got("a=A", "b!50", "c!60"), got("b=B", "c=C"))
			f.answer("Check", committedAt(90), pushed)
		},
		log: `r1 BatchGet [c a b a] at 100
r1 Check p@50 caller=100
r1 Check p@60 caller=100
r1 BatchGet [b c] at 100 ignore=60 through=50`,
	}, {
		name: "a batch of the newest is read anew as a whole", read: batch(false, "a", "b"), want: "- B",
		setup: func(f *fake) {
			f.answer("BatchGet", got("a=A", "b!50"), got("b=B"))
			f.answer("Check", committedAt(90))
		},
		log: `r1 BatchGet [a b] latest
r1 Check p@50 caller=0
r1 BatchGet [a b] latest through=50`,
	}, {
		name: "an error for the whole batch", ts: 100, read: batch(false, "a", "b"), want: "A B",
		setup: func(f *fake) {
			f.answer("BatchGet", locked("b", 50), got("a=A", "b=B"))
			f.answer("Check", dead)
		},
		log: `r1 BatchGet [a b] at 100
r1 Check p@50 caller=100
r1 BatchGet [a b] at 100 ignore=50`,
	}, {
		name: "regions split under a batch", ts: 100, split: []string{"m"}, read: batch(false, "a", "b", "x"), want: "A - X",
		setup: func(f *fake) {
			f.answers = append(f.answers, scripted{name: "BatchGet", region: 1, do: split("b")})
			f.answers = append(f.answers, scripted{name: "BatchGet", region: 2, do: func(*fake, transport.Message) (transport.Response, error) { return got("x=X"), nil }})
			f.answers = append(f.answers, scripted{name: "BatchGet", region: 1, do: func(*fake, transport.Message) (transport.Response, error) { return got("a=A"), nil }})
		},
		log: `r1 BatchGet [a b] at 100
r2 BatchGet [x] at 100
r1 BatchGet [a] at 100
r2 BatchGet [b] at 100`,
	}, {
		name: "a scan stops before the first lock and goes on from there", ts: 100, read: scan("a", "", ScanOptions{PageSize: 4}), want: "a=A c=C d=D e=E",
		setup: func(f *fake) {
			f.answer("Scan", page("a=A", "b!50", "c!60", "d=D"), page("c=C", "d=D", "e=E"))
			f.answer("Check", dead, committedAt(70))
		},
		log: `r1 Scan [a,) limit=4 at 100
r1 Check p@50 caller=100
r1 Check p@60 caller=100
r1 Scan [a` + "\x00" + `,) limit=4 at 100 ignore=50 through=60`,
	}, {
		name: "an error for the whole page", ts: 100, read: scan("a", "", ScanOptions{}), want: "a=A",
		setup: func(f *fake) {
			f.answer("Scan", locked("b", 50), page("a=A"))
			f.answer("Check", pushed)
		},
		log: `r1 Scan [a,) limit=256 at 100
r1 Check p@50 caller=100
r1 Scan [a,) limit=256 at 100 ignore=50`,
	}, {
		name: "regions in order", ts: 100, split: []string{"h", "p"}, read: scan("c", "t", ScanOptions{PageSize: 2}), want: "d=1 e=1 q=1",
		setup: func(f *fake) { f.answer("Scan", page("d=1", "e=1"), page(), page(), page("q=1")) },
		log: `r1 Scan [c,h) limit=2 at 100
r1 Scan [e` + "\x00" + `,h) limit=2 at 100
r2 Scan [h,p) limit=2 at 100
r3 Scan [p,t) limit=2 at 100`,
	}, {
		name: "regions against the order, from the end of all keys", ts: 100, split: []string{"h", "p"}, read: scan("c", "", ScanOptions{PageSize: 2, Reverse: true}), want: "x=1 q=1 p=1 d=1",
		setup: func(f *fake) { f.answer("Scan", page("x=1", "q=1"), page("p=1"), page(), page("d=1")) },
		log: `r3 Scan [max,p) limit=2 at 100 reverse
r3 Scan [q,p) limit=2 at 100 reverse
r2 Scan [p,h) limit=2 at 100 reverse
r1 Scan [h,c) limit=2 at 100 reverse`,
	}, {
		name: "a limit", ts: 100, read: scan("a", "", ScanOptions{Limit: 3, PageSize: 2}), want: "a=1 b=1 c=1",
		setup: func(f *fake) { f.answer("Scan", page("a=1", "b=1"), page("c=1")) },
		log: `r1 Scan [a,) limit=2 at 100
r1 Scan [b` + "\x00" + `,) limit=1 at 100`,
	}, {
		name: "a split under a scan", ts: 100, read: scan("a", "z", ScanOptions{}), want: "a=1 x=1",
		setup: func(f *fake) { f.answer("Scan", split("m"), page("a=1"), page("x=1")) },
		log: `r1 Scan [a,z) limit=256 at 100
r1 Scan [a,m) limit=256 at 100
r2 Scan [m,z) limit=256 at 100`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{now: 200, splits: tt.split}
				tt.setup(f)
				e, _ := newEngine(t, f)
				ts := at(tt.ts)
				if ts == 0 {
					ts = Latest
				}
				got, err := tt.read(t.Context(), e.Snapshot(ts, true, &ReadOptions{}))
				if err != nil || got != tt.want {
					t.Errorf("got %q, %v; want %q", got, err, tt.want)
				}
				synctest.Wait()
				if log := f.foreground(); log != tt.log {
					t.Errorf("sent\n%s\nwant\n%s", log, tt.log)
				}
				if len(f.answers) > 0 {
					t.Errorf("%d answers are left", len(f.answers))
				}
			})
		})
	}
}

// The scan's pages grow while they are full, and shrink when they are heavy.
func TestPagesAdapt(t *testing.T) {
	p := Pages{size: firstPage}
	for _, step := range []struct {
		full  bool
		heavy int
		want  int
	}{{true, 1000, 512}, {true, 1000, 1024}, {true, pageBytes + 1, 512}, {false, 10, 512}, {true, pageBytes * 3 / 4, 512}} {
		if p.adapt(step.full, step.heavy); p.size != step.want {
			t.Errorf("%+v: %d", step, p.size)
		}
	}
	p = Pages{size: 7, opts: ScanOptions{PageSize: 7}}
	if p.adapt(true, 0); p.size != 7 {
		t.Error("a given size is not kept")
	}
}

func TestSafePoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{now: 1000, safe: at(100)}
		e, _ := newEngine(t, f)
		read := func(ts uint64) error {
			_, err := e.Snapshot(at(ts), true, &ReadOptions{}).Get(t.Context(), "Get", []byte("a"))
			return err
		}
		var old *TooOld
		if err := read(100); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if err := read(99); !errors.As(err, &old) || old.SafePoint != at(100) || old.ReadTS != at(99) {
			t.Fatal(err)
		}
		if f.gcCalls != 1 {
			t.Fatalf("asked %d times", f.gcCalls)
		}
		// Refreshed when it is used, not before: an idle client does not ask.
		f.safe = at(200)
		wait(t, time.Hour)
		if f.gcCalls != 1 {
			t.Fatalf("asked %d times while idle", f.gcCalls)
		}
		if err := read(150); !errors.As(err, &old) || f.gcCalls != 2 {
			t.Fatal(err, f.gcCalls)
		}
		// In between the one known will do, though a fetch runs.
		f.gcErr = errors.New("no PD")
		wait(t, 30*time.Second)
		if err := read(200); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		synctest.Wait()
		if f.gcCalls != 3 {
			t.Fatalf("asked %d times", f.gcCalls)
		}
		// But not for ever.
		wait(t, time.Minute)
		if err := read(200); err != f.gcErr {
			t.Fatal(err)
		}
		// The newest is never behind it.
		if _, err := e.Snapshot(Latest, true, &ReadOptions{}).Get(t.Context(), "Get", []byte("a")); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		for i := range 3 {
			err := e.Snapshot(Latest-1, true, &ReadOptions{}).BatchGet(t.Context(), "BatchGet", abc("a"), false, func(int, Value) {})
			if err != f.gcErr {
				t.Fatal(i, err)
			}
		}
	})
}

// TestSafePointArrivesLate: a fetch that ends when a check has seen that nothing is known,
// and has not yet asked whether one runs, is no reason to refuse.
func TestSafePointArrivesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(t, &fake{})
		for range 100 {
			fetch := make(chan struct{})
			e.safe.running = fetch
			checked := make(chan error, 1)
			go func() { checked <- e.checkSafe(t.Context(), at(100), time.Now()) }()
			synctest.Wait() // it waits for the fetch
			e.safe.mu.Lock()
			close(fetch) // as if it had failed; the check goes on, to the mutex
			for range 100 {
				runtime.Gosched()
			}
			e.safe.running = nil
			e.safe.known.Store(&knownPoint{at(100), time.Now()}) // the next one has not
			e.safe.mu.Unlock()
			if err := <-checked; err != nil {
				t.Fatal(err)
			}
			e.safe.known.Store(nil)
		}
	})
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

func TestFutureIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{now: 100}
		e, _ := newEngine(t, f)
		s := e.Snapshot(at(115), false, &ReadOptions{})
		_, err := s.Get(t.Context(), "Get", []byte("a"))
		var future *Future
		if !errors.As(err, &future) || future.TS != at(115) || future.Now != at(110) || len(f.log) != 0 {
			t.Fatal(err, f.log)
		}
		if _, err := s.Get(t.Context(), "Get", []byte("a")); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		f.tsoErr = errors.New("not asked any more")
		if _, err := s.With(&ReadOptions{}).Get(t.Context(), "Get", []byte("a")); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	})
}

// A reader of the newest waits for a live lock as long as it may.
func TestLatestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{now: 100}
		for range 100 {
			f.answer("Get", locked("a", 90))
			f.answer("Check", alive)
		}
		e, _ := newEngine(t, f)
		begun := time.Now()
		_, err := e.Snapshot(Latest, true, &ReadOptions{}).Get(t.Context(), "Get", []byte("a"))
		var gone *router.Unavailable
		var blocked *Locked
		if !errors.As(err, &gone) || !errors.As(err, &blocked) || blocked.Lock.StartTS != at(90) || gone.Attempts[len(gone.Attempts)-1].Reason != router.Lock {
			t.Fatal(err)
		}
		if d := time.Since(begun); d < 19*time.Second || d > 21*time.Second {
			t.Error("gave up after", d)
		}
	})
}

// What a view learns is bounded.
func TestSeenIsBounded(t *testing.T) {
	var s seen
	for i := range uint64(3 * maxSeen) {
		if !s.learn(lock.Verdict{Ignore: []uint64{i}, Through: []uint64{i}}) || s.learn(lock.Verdict{Ignore: []uint64{i}}) {
			t.Fatal(i)
		}
	}
	ignore, through := s.lists()
	if len(ignore) != maxSeen || len(through) != maxSeen || ignore[0] != 2*maxSeen || through[maxSeen-1] != 3*maxSeen-1 {
		t.Fatal(len(ignore), len(through))
	}
}

func TestLockTTL(t *testing.T) {
	for size, want := range map[int]time.Duration{0: 3 * time.Second, 16 << 10: 3 * time.Second, 1 << 20: 6 * time.Second, 4 << 20: 12 * time.Second, math.MaxInt32: 20 * time.Second} {
		if got := lockTTL(size); got != want {
			t.Errorf("%d bytes: %v", size, got)
		}
	}
}
