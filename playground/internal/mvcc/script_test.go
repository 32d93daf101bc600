package mvcc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is a list of lines "command arguments => answer"; without an answer it is
// "ok". testdata/README.md explains the words.
type script struct {
	*testing.T
	e       *Engine
	store   storage.Engine
	bounds  keys.Range
	ended   []bool
	writes  *gated
	started map[string]chan string // commands that run on, by their name
}

// newScript runs on memory, without waiting for locks.
func newScript(t *testing.T) *script { return scriptOn(t, storage.NewMemory(), Config{}) }

func scriptOn(t *testing.T, store storage.Engine, cfg Config) *script {
	s := &script{T: t, store: store, started: make(map[string]chan string)}
	cfg.Ended = func(committed bool) { s.ended = append(s.ended, committed) }
	s.writes = &gated{Engine: store}
	s.e = New(s.writes, cfg)
	return s
}

// inBubble runs f with a script under fake time, whose lock requests may wait.
func inBubble(t *testing.T, open func(*testing.T) storage.Engine, f func(*script)) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		tasks := task.Root(t.Context())
		waits := lockwait.New(lockwait.Config{
			Leader: func([]byte) uint64 { return 1 }, Tasks: tasks,
			Detector: lockwait.NewDetector(func() lockwait.Seat { return lockwait.Seat{Store: 1} }),
		})
		s := scriptOn(t, store, Config{Waits: waits})
		f(s)
		if len(s.started) > 0 {
			t.Errorf("nobody asked how these ended: %v", s.started)
		}
		s.writes.let(true)
		if !waits.Empty() {
			t.Error("something waits on")
		}
		if n := s.e.manager.inMemory.Load(); n != 0 || len(s.e.manager.locks) != 0 {
			t.Errorf("%d locks are left in memory", n)
		}
		tasks.Close(nil)
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (s *script) run(text string) {
	s.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		command, want, ok := strings.Cut(line, "=>")
		if !ok {
			want = "ok"
		}
		if got, want := s.do(strings.Fields(command)), strings.TrimSpace(want); got != want {
			s.Errorf("%s\n got %s\nwant %s", command, got, want)
		}
	}
}

func (s *script) do(words []string) string {
	commands := map[string]func(*args) string{
		"prewrite": s.prewrite, "txn": s.txn, "history": s.history, "commit": s.commit, "rollback": s.rollback, "status": s.status,
		"heartbeat": s.heartbeat, "secondary": s.secondary, "resolve": s.resolve, "scanlock": s.scanlock,
		"get": s.get, "batchget": s.batchget, "scan": s.scan, "records": s.records, "lock": s.putLock,
		"record": s.putRecord, "collect": s.collect, "maxts": s.maxTS, "resolved": s.resolved, "destroy": s.destroy,
		"pessimistic": s.pessimisticLock, "unlock": s.pessimisticRollback, "flush": s.flush, "buffer": s.buffer,
		"broadcast": s.broadcast, "ended": s.endings, "held": s.held, "bystart": s.byStart, "region": s.region,
		"start": s.start, "end": s.end, "pass": s.pass, "writes": s.stopWrites, "waiting": s.waiting,
		"memory": s.memory, "known": s.known, "cleanup": s.cleanup, "delta": s.delta,
		"prepareflashback": s.prepareFlashback, "flashback": s.flashback,
	}
	command := commands[words[0]]
	if command == nil {
		s.Fatalf("what is %q?", words[0])
	}
	a := &args{T: s.T, words: words[1:]}
	got := command(a)
	if len(a.words) > 0 {
		s.Fatalf("%s: what are %q?", words[0], a.words)
	}
	return got
}

// start NAME command...: a command that may have to wait. Its answer, or "waits".
func (s *script) start(a *args) string {
	name, words := a.next(), a.words
	a.words = nil
	done := make(chan string, 1)
	s.started[name] = done
	go func() {
		defer close(done)
		done <- s.do(words)
	}()
	return s.answerOf(name)
}

// end NAME: the answer of a started command, or "waits".
func (s *script) end(a *args) string { return s.answerOf(a.next()) }

func (s *script) answerOf(name string) string {
	synctest.Wait()
	done := s.started[name]
	if done == nil {
		s.Fatalf("%q was not started, or has ended", name)
	}
	select {
	case answer := <-done:
		delete(s.started, name)
		return answer
	default:
		return "waits"
	}
}

// pass DURATION: time goes by.
func (s *script) pass(a *args) string {
	d, err := time.ParseDuration(a.next())
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(s.Context(), d)
	defer cancel()
	<-ctx.Done()
	synctest.Wait()
	return "ok"
}

// waiting: which transactions wait for which.
func (s *script) waiting(*args) string {
	synctest.Wait()
	var all []string
	for _, w := range s.e.LockWaits(1) {
		all = append(all, fmt.Sprintf("%d-%s->%d", w.Txn, w.Key, w.WaitForTxn))
	}
	return orNothing(all)
}

// gated is an engine whose Apply waits while it is stopped.
type gated struct {
	storage.Engine
	gate chan struct{} // nil: open
}

func (g *gated) Apply(b *storage.Batch) error {
	if gate := g.gate; gate != nil {
		<-gate
	}
	return g.Engine.Apply(b)
}

func (g *gated) let(through bool) {
	switch {
	case !through:
		g.gate = make(chan struct{})
	case g.gate != nil:
		close(g.gate)
		g.gate = nil
	}
}

// writes stop, writes go: between them nothing is written.
func (s *script) stopWrites(a *args) string {
	s.writes.let(a.next() == "go")
	synctest.Wait()
	return "ok"
}
