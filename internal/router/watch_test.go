package router

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/transport"
)

// watcher changes fields, and counts.
type watcher struct {
	begin func(a *Watched) error
	began []Watched
	ended []Outcome
	waits []Pause
}

func (w *watcher) Begin(ctx context.Context, a *Watched) (context.Context, error) {
	w.began = append(w.began, *a)
	return ctx, w.begin(a)
}

func (w *watcher) Count(Figure, Reason, int64) {}

func (w *watcher) End(_ context.Context, _ *Watched, o Outcome) { w.ended = append(w.ended, o) }
func (w *watcher) Pause(_ context.Context, p Pause)             { w.waits = append(w.waits, p) }

// What a Watch changes is what the store is sent, attempt by attempt.
func TestWatchChangesFields(t *testing.T) {
	deadline := time.Now().Add(time.Minute)
	w := &watcher{begin: func(a *Watched) error {
		a.Priority, a.ResourceGroup, a.RequestSource, a.Tag, a.Deadline = kvrpcpb.CommandPri_High, "group", "source", []byte("tag"), deadline
		return nil
	}}
	c := &kvrpcpb.Context{MaxExecutionDurationMs: 1 << 30, ResourceControlContext: &kvrpcpb.ResourceControlContext{ResourceGroupName: "old"}}
	a := Watched{}
	a.take(t.Context(), c)
	if a.ResourceGroup != "old" || !a.Deadline.IsZero() {
		t.Errorf("%+v", a.Fields)
	}
	to := transport.Target{Timeout: time.Hour}
	if err := w.begin(&a); err != nil {
		t.Fatal(err)
	}
	if err := a.give(c, &to); err != nil {
		t.Fatal(err)
	}
	if c.Priority != kvrpcpb.CommandPri_High || c.GetResourceControlContext().GetResourceGroupName() != "group" || c.RequestSource != "source" ||
		string(c.ResourceGroupTag) != "tag" || c.MaxExecutionDurationMs > 60_000 || to.Timeout > time.Minute {
		t.Errorf("%v %v", c, to)
	}
	a.Deadline = time.Now().Add(-time.Second)
	if err := a.give(c, &to); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := (&Watched{}).give(nil, &to); err != nil { // a request without a context
		t.Error(err)
	}
}

// A call that a Watch refuses has sent nothing; one that had lost an answer before is
// undetermined all the same.
func TestWatchRefuses(t *testing.T) {
	mine := errors.New("no")
	call := Call{Op: "Op"}
	veto := &Vetoed{Op: "Op", Err: mine}
	if err := call.veto(t.Context(), veto, 1); !errors.Is(err, mine) {
		t.Error(err)
	}
	call.lose(errors.New("lost"))
	var un *Undetermined
	if err := call.veto(t.Context(), veto, 1); !errors.As(err, &un) || !errors.Is(err, mine) {
		t.Error(err)
	}
	var gone *Unavailable
	late := Call{Op: "Op"}
	if err := late.veto(t.Context(), &Vetoed{Err: context.DeadlineExceeded}, 1); !errors.As(err, &gone) {
		t.Error(err)
	}
}

// What a view asks for is in every request's context, and nothing of the caller's is lost
// that it does not ask for.
func TestExtraFills(t *testing.T) {
	c := &kvrpcpb.Context{ResourceGroupTag: []byte("own"), TaskId: 3}
	(&Extra{ResourceGroup: "group"}).fill(c)
	if c.GetResourceControlContext().GetResourceGroupName() != "group" || string(c.ResourceGroupTag) != "own" || c.TaskId != 3 {
		t.Errorf("%v", c)
	}
	(&Extra{Tag: []byte("tag"), TaskID: 7}).fill(c)
	if string(c.ResourceGroupTag) != "tag" || c.TaskId != 7 {
		t.Errorf("%v", c)
	}
}

// With nobody watching an attempt costs what it cost before.
func TestUnwatchedAllocatesNothing(t *testing.T) {
	call := &Call{}
	with := &Call{Extra: &Extra{Tag: []byte("t")}}
	if n := testing.AllocsPerRun(100, func() {
		if call.watching() != nil || with.watching() != nil || call.pausing(t.Context()) != nil {
			t.Error("watched")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
