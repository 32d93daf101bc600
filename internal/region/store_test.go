package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/task"
)

func (p *fakePD) set(id uint64, s *metapb.Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stores[id] = s
}

func (p *fakePD) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// sleep waits for a time above 0. A timer that is due when it is made runs on the goroutine that
// waits for it; where many do at once in a bubble, Go 1.26's race detector breaks, since
// they share the bubble's context (runtime/time.go, unlockAndRun).
func sleep(d time.Duration) { <-time.After(d) }

func TestStores(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		if _, err := c.Store(t.Context(), 1); !errors.Is(err, ErrNoStore) || c.KnownStore(1) != nil {
			t.Fatal(err)
		}
		pd.set(1, &metapb.Store{Id: 1, Address: "a", PeerAddress: "p", Version: "9", Labels: []*metapb.StoreLabel{{Key: "zone", Value: "z"}}})
		pd.set(2, &metapb.Store{Id: 2, Address: "f", Labels: []*metapb.StoreLabel{{Key: "engine", Value: "tiflash"}}})
		pd.set(3, &metapb.Store{Id: 3, Address: "g", State: metapb.StoreState_Offline, Labels: []*metapb.StoreLabel{{Key: "engine", Value: "tiflash_compute"}}})
		s, err := c.Store(t.Context(), 1)
		if err != nil || s.Addr != "a" || s.PeerAddr != "p" || s.Version != "9" || s.Labels["zone"] != "z" || s.Engine != TiKV || s.Leaving {
			t.Fatal(s, err)
		}
		pd.took()
		if again, err := c.Store(t.Context(), 1); err != nil || again != s || c.KnownStore(1) != s || pd.took() != "" {
			t.Fatal("a known store is asked for again")
		}
		if f, err := c.Store(t.Context(), 2); err != nil || f.Engine != TiFlash {
			t.Fatal(f, err)
		}
		if f, err := c.Store(t.Context(), 3); err != nil || f.Engine != TiFlashCompute || !f.Leaving {
			t.Fatal(f, err)
		}
		if all := c.Stores(); len(all) != 3 || all[0] != s {
			t.Fatal(all)
		}
	})
}

func TestRefreshStore(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.set(1, &metapb.Store{Id: 1, Address: "a"})
		s, err := c.Store(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		s.Done(Broken, time.Now(), 0, errors.New("broken"))
		pd.took()
		c.RefreshStore(s)
		if synctest.Wait(); pd.took() != "" {
			t.Fatal("PD is asked twice in a moment")
		}
		sleep(refreshAgain)
		pd.fail(errors.New("down"))
		for range 5 {
			c.RefreshStore(s)
		}
		if old, err := c.Store(t.Context(), 1); err != nil || old != s {
			t.Fatal("what is known does not stand while PD is asked:", old, err)
		}
		sleep(2 * pd.delay)
		if got := pd.took(); got != "store 1" || c.KnownStore(1) != s {
			t.Fatal(got)
		}
		pd.fail(nil)
		pd.set(1, &metapb.Store{Id: 1, Address: "a", Version: "2"})
		c.RefreshStore(s)
		sleep(2 * pd.delay)
		next := c.KnownStore(1)
		if next.Version != "2" || next.LastErr() == nil {
			t.Fatal("the same address, and nothing is known of it:", next)
		}
		c.RefreshStore(s) // another caller, later: the news has been had
		sleep(2 * pd.delay)
		if got := pd.took(); got != "store 1" {
			t.Fatal(got)
		}
		pd.set(1, &metapb.Store{Id: 1, Address: "b"})
		c.RefreshStore(next)
		sleep(2 * pd.delay)
		if moved := c.KnownStore(1); moved.Addr != "b" || moved.LastErr() != nil {
			t.Fatal(moved, moved.LastErr())
		}
		pd.set(1, &metapb.Store{Id: 1, State: metapb.StoreState_Tombstone})
		c.RefreshStore(c.KnownStore(1))
		sleep(2 * pd.delay)
		if _, err := c.Store(t.Context(), 1); !errors.Is(err, ErrNoStore) {
			t.Fatal(err)
		}
	})
}

// While stores are used, PD is asked for all of them about once in a minute, and what it
// does not tell of any more is gone.
func TestAllStoresAreRefreshed(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		for id := range uint64(3) {
			pd.set(id+1, &metapb.Store{Id: id + 1, Address: fmt.Sprint("s", id+1)})
			if _, err := c.Store(t.Context(), id+1); err != nil {
				t.Fatal(err)
			}
		}
		pd.took()
		pd.mu.Lock()
		delete(pd.stores, 2)
		pd.stores[4] = &metapb.Store{Id: 4, Address: "s4"}
		pd.mu.Unlock()
		for range 600 {
			sleep(time.Second)
			for _, s := range c.Stores() {
				if s.Admit() == nil {
					s.Done(Answered, time.Now(), time.Millisecond, nil)
				}
			}
		}
		sleep(2 * pd.delay) // a request that has just begun
		if n := strings.Count(pd.took(), "stores"); n < 6 || n > 10 {
			t.Fatalf("asked %d times in ten minutes", n)
		}
		if c.KnownStore(2) != nil || c.KnownStore(4) == nil || len(c.Stores()) != 3 {
			t.Fatal(c.Stores())
		}
		sleep(time.Hour)
		if got := pd.took(); got != "" {
			t.Fatal("an idle client asks: ", got)
		}
	})
}

// breakerTable is the state machine, as a table: each evidence in each state.
const breakerTable = `
state     answered  refused   broken    silent    left      admitted  probed well  probed ill
up        up        away      up 1      away      up        up        up           up
up 1      up        away      up 2      away      up 1      up 1      up 1         up 1
up 2      up        away      away      away      up 2      up 2      up 2         up 2
away      up        away      away      away      away      away      trial        away x2
trial     up        away x2   away x2   away x2   trial     taken     trial        trial
taken     up        away x2   away x2   away x2   trial     taken     taken        taken
`

func TestBreaker(t *testing.T) {
	now := time.Minute
	at := []struct {
		name string
		breaker
	}{
		{"up", breaker{}},
		{"up 1", breaker{broke: 1, last: now - time.Second}},
		{"up 2", breaker{broke: 2, last: now - time.Second}},
		{"away", breaker{state: away, wait: firstProbe, due: now}},
		{"trial", breaker{state: trial, wait: firstProbe}},
		{"taken", breaker{state: trial, wait: firstProbe, taken: true}},
	}
	name := func(b breaker) string {
		switch {
		case b.state == trial && b.taken:
			return "taken"
		case b.state == up && b.broke > 0:
			return fmt.Sprint("up ", b.broke)
		case b.state == away && b.wait > firstProbe:
			return "away x2"
		}
		return stateNames[b.state]
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\n%-10s", "state")
	for _, e := range evidenceNames {
		fmt.Fprintf(&out, "%-*s", max(10, len(e)+2), e)
	}
	for _, row := range at {
		fmt.Fprintf(&out, "\n%-10s", row.name)
		for e, n := range evidenceNames {
			b := row.breaker
			b.on(evidence(e), now, 0.5)
			fmt.Fprintf(&out, "%-*s", max(10, len(n)+2), name(b))
			if b.state == away && row.state != away && (b.due < now+b.wait/2 || b.due > now+b.wait) {
				t.Errorf("%s, %s: the probe is due in %v", row.name, n, b.due-now)
			}
		}
	}
	got := trimRight(out.String() + "\n")
	if got != trimRight(breakerTable) {
		t.Errorf("the machine is%s", got)
	}
}

func trimRight(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestBreakerWaitsLongerAndLonger(t *testing.T) {
	var b breaker
	b.on(broken, time.Second, 0)
	for i := range 10 { // a burst is one break
		b.on(broken, time.Second+time.Duration(i)*oneBreak/11, 0)
	}
	if b.state != up || b.broke != 1 {
		t.Fatal(b)
	}
	b.on(refused, 0, 1)
	var waits []string
	for range 8 {
		waits = append(waits, b.wait.String())
		b.on(probedIll, 0, 1)
	}
	if got := strings.Join(waits, " "); got != "250ms 500ms 1s 2s 4s 8s 10s 10s" {
		t.Fatal(got)
	}
}

// storeIn returns a cache with one store in a bubble, whose probes end as serves says.
func storeIn(t *testing.T, test func(t *testing.T, pd *fakePD, c *Cache, s *Store, serves *probed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &fakePD{stores: map[uint64]*metapb.Store{1: {Id: 1, Address: "a"}}}
		p := &probed{}
		c := NewWith(pd, tasks, Config{Probe: p.probe, MaxInFlight: 3, Changed: p.changed})
		s, err := c.Store(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		pd.took()
		test(t, pd, c, s, p)
	})
}

// probed is how probes end, and what is probed and told.
type probed struct {
	mu   sync.Mutex
	err  error
	at   []time.Time
	told []ChangeKind
}

func (p *probed) probe(context.Context, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, time.Now())
	return p.err
}

func (p *probed) changed(c Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, c.Kind)
}

func (p *probed) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *probed) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.at)
}

func TestStoreGoesAndComesBack(t *testing.T) {
	storeIn(t, func(t *testing.T, pd *fakePD, c *Cache, s *Store, p *probed) {
		p.end(errors.New("refused"))
		dead := errors.New("no route")
		if s.Admit() != nil || s.Away() {
			t.Fatal("refused at first")
		}
		s.Done(Refused, time.Now(), 0, dead)
		if !s.Away() || s.LastErr() != dead || s.InFlight() != 0 {
			t.Fatal(s.LastErr(), s.InFlight())
		}
		sleep(time.Minute)
		if len(p.times()) != 0 {
			t.Fatal("a store that nobody wants is probed")
		}
		start := time.Now()
		for range 600 { // wanted for a minute
			if err := s.Admit(); !errors.Is(err, ErrAway) {
				t.Fatal(err)
			}
			sleep(100 * time.Millisecond)
		}
		if n := len(p.times()); n < 9 || n > 16 || p.times()[0] != start {
			t.Fatalf("%d probes in a minute, the first after %v", n, p.times()[0].Sub(start))
		}
		sleep(2 * wantedFor)
		synctest.Wait()
		if running := c.tasks.Running(); len(running) != 0 {
			t.Fatal("a store that nobody wants any more is probed:", running)
		}
		if got := pd.took(); strings.Count(got, "store 1") > 4 {
			t.Fatal(got)
		}
		p.end(nil)
		if !errors.Is(s.Admit(), ErrAway) {
			t.Fatal("not away")
		}
		sleep(lastProbe)
		if s.Away() || s.Admit() != nil || !s.Away() || !errors.Is(s.Admit(), ErrAway) {
			t.Fatal("of a store that is well again, one request is let through")
		}
		s.Done(Left, time.Now(), 0, nil)
		if s.Admit() != nil {
			t.Fatal("the trial was given up, and there is no other")
		}
		s.Done(Answered, time.Now(), 0, nil)
		if s.Away() || s.Admit() != nil || s.Admit() != nil {
			t.Fatal("still away after an answer")
		}
		if got := fmt.Sprint(p.told); got != fmt.Sprint([]ChangeKind{StoreFound, StoreDown, StoreUp}) {
			t.Fatal(got)
		}
	})
}

// A store that is back is used again although PD is not there to be asked for it.
func TestStoreComesBackWithoutPD(t *testing.T) {
	storeIn(t, func(t *testing.T, pd *fakePD, c *Cache, s *Store, p *probed) {
		pd.mu.Lock()
		pd.delay = time.Hour
		pd.mu.Unlock()
		_ = s.Admit()
		s.Done(Refused, time.Now(), 0, errors.New("refused"))
		if !errors.Is(s.Admit(), ErrAway) {
			t.Fatal("not away")
		}
		if sleep(2 * firstProbe); s.Admit() != nil {
			t.Fatalf("still away after %d probes", len(p.times()))
		}
		s.Done(Answered, time.Now(), 0, nil)
		// One that stays away is probed on all the same.
		p.end(errors.New("refused"))
		_ = s.Admit()
		s.Done(Refused, time.Now(), 0, errors.New("refused"))
		for range 60 {
			_ = s.Admit()
			sleep(time.Second)
		}
		if n := len(p.times()); n < 6 {
			t.Fatal(n, "probes in a minute")
		}
	})
}

func TestProbesEndWithTheStore(t *testing.T) {
	for name, then := range map[string]*metapb.Store{
		"tombstone": {Id: 1, State: metapb.StoreState_Tombstone}, "moved": {Id: 1, Address: "b"}, "unknown": nil,
	} {
		t.Run(name, func(t *testing.T) {
			storeIn(t, func(t *testing.T, pd *fakePD, c *Cache, s *Store, p *probed) {
				p.end(errors.New("refused"))
				_ = s.Admit()
				s.Done(Refused, time.Now(), 0, nil)
				_ = s.Admit()
				sleep(3 * time.Second)
				n := len(p.times())
				if n == 0 {
					t.Fatal("not probed")
				}
				pd.set(1, then)
				for range 100 {
					sleep(time.Second)
					_ = s.Admit()
				}
				if len(c.tasks.Running()) != 0 || len(p.times()) > n+8 {
					t.Fatal("probed for ever:", len(p.times())-n, c.tasks.Running())
				}
				if now := c.KnownStore(1); now != nil && (now.Away() || now.Addr != "b") {
					t.Fatal(now)
				}
			})
		})
	}
}

func TestSilence(t *testing.T) {
	storeIn(t, func(t *testing.T, _ *fakePD, _ *Cache, s *Store, _ *probed) {
		late := errors.New("late")
		for range 3 {
			if s.Admit() != nil {
				t.Fatal("refused")
			}
		}
		if s.Admit() != ErrFull || s.InFlight() != 3 {
			t.Fatal("no bound of what is under way")
		}
		sleep(silence / 2)
		if s.Done(Silent, time.Now(), silence/2, late); s.Away() {
			t.Fatal("a short attempt is evidence")
		}
		sleep(silence)
		s.Done(Answered, time.Now(), silence*3/2, nil)
		_ = s.Admit()
		sleep(silence / 2)
		if s.Done(Silent, time.Now(), silence*2, late); s.Away() {
			t.Fatal("silent, and somebody had an answer meanwhile")
		}
		sleep(2 * silence)
		if s.Done(Silent, time.Now(), silence*5/2, late); !s.Away() || s.LastErr() != late {
			t.Fatal("silent to everybody for long, and not away")
		}
	})
}

func TestBusy(t *testing.T) {
	storeIn(t, func(t *testing.T, _ *fakePD, c *Cache, s *Store, _ *probed) {
		s.Busy(time.Now(), time.Second)
		sleep(300 * time.Millisecond)
		if got := s.Queue(time.Now()); got != 700*time.Millisecond || s.Slow(time.Now()) {
			t.Fatal(got)
		}
		sleep(time.Hour)
		if got := s.Queue(time.Now()); got != 0 {
			t.Fatal(got)
		}
		if s.Busy(time.Now(), 0); !s.Slow(time.Now()) {
			t.Fatal("busy without an end is not slow")
		}
		sleep(9 * time.Second)
		if !s.Slow(time.Now()) {
			t.Fatal(s.SlowScore(time.Now()))
		}
		sleep(2 * time.Minute)
		if got := s.SlowScore(time.Now()); got != wellScore {
			t.Fatal(got)
		}
		c.Feedback(&kvrpcpb.HealthFeedback{StoreId: 1, FeedbackSeqNo: 7, SlowScore: 100})
		c.Feedback(&kvrpcpb.HealthFeedback{StoreId: 1, FeedbackSeqNo: 6, SlowScore: 1}) // overtaken
		c.Feedback(&kvrpcpb.HealthFeedback{StoreId: 9, SlowScore: 1})
		if got := s.SlowScore(time.Now()); got != 100 {
			t.Fatal(got)
		}
		sleep(staleFeedback + time.Minute)
		if got := s.SlowScore(time.Now()); got != 80 {
			t.Fatal("what a store said long ago decays by 20 a minute:", got)
		}
	})
}

func TestSlowScore(t *testing.T) {
	storeIn(t, func(t *testing.T, _ *fakePD, _ *Cache, s *Store, _ *probed) {
		serve := func(n int, took time.Duration) {
			for range n {
				_ = s.Admit()
				s.Done(Answered, time.Now(), took, nil)
			}
			sleep(slowTick)
		}
		for range 20 {
			serve(100, time.Millisecond)
		}
		if s.SlowScore(time.Now()) != wellScore {
			t.Fatal("slow although all goes as ever:", s.SlowScore(time.Now()))
		}
		for range 3 {
			serve(300, 2*time.Millisecond)
		}
		if s.SlowScore(time.Now()) != wellScore {
			t.Fatal("slower because more is asked of it:", s.SlowScore(time.Now()))
		}
		for i := range 6 {
			serve(50/(i+1), time.Duration(i+1)*500*time.Millisecond)
		}
		if !s.Slow(time.Now()) {
			t.Fatal("less and slower answers, and not slow:", s.SlowScore(time.Now()))
		}
		for range 60 {
			serve(100, time.Millisecond)
		}
		if s.Slow(time.Now()) {
			t.Fatal("slow for ever:", s.SlowScore(time.Now()))
		}
		if serve(1, overlong); !s.Slow(time.Now()) {
			t.Fatal("one answer that took so long is proof enough")
		}
	})
}

// Leave for a request to a store that is well, and its report, allocate nothing.
func TestAdmitAllocatesNothing(t *testing.T) {
	storeIn(t, func(t *testing.T, _ *fakePD, _ *Cache, s *Store, _ *probed) {
		now, least := time.Now(), 1e9
		for range 5 {
			least = min(least, testing.AllocsPerRun(100, func() {
				if s.Admit() == nil {
					s.Done(Answered, now, time.Millisecond, nil)
				}
			}))
		}
		if least > 0 || s.InFlight() != 0 {
			t.Fatal(least)
		}
	})
}
