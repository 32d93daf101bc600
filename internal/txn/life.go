package txn

import (
	"context"
	"errors"

	"github.com/tikv-go/tikv/internal/router"
)

// A transaction ends by its Commit or Rollback, when the primary lock is lost, or when
// nobody is there any more who could end it. However it ends, once no call is inside its
// locks are let go.

// enter returns a context for what a call does for a living transaction: it ends with ctx,
// when the client closes, and when the transaction fails.
func (t *Txn) enter(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(t.e.router.Closing(), func() { cancel(router.ErrClosed) })
	t.guard.cuttable(cancel)
	return ctx, func() {
		t.guard.cuttable(nil)
		stop()
		cancel(nil)
	}
}

// ended is the error of a call: what ended the transaction, if that is why the call ended.
func (t *Txn) ended(err error) error {
	var unknown *Undetermined
	if err == nil || errors.As(err, &unknown) {
		return err
	}
	if failure := t.guard.failed(); failure != nil {
		return failure
	}
	return err
}

// owe lets the client's end wait for what the call that is alone inside may leave to be
// removed, until it leaves: then that is owed.
func (t *Txn) owe() {
	if !t.owing {
		t.owing = true
		t.e.commits.add(1)
	}
}

// leave ends a call that was alone.
func (t *Txn) leave() { t.out(nil) }

// leaveWith ends the call that ends the transaction.
func (t *Txn) leaveWith(e End) { t.out(&e) }

func (t *Txn) out(e *End) {
	owing := t.owing
	t.owing = false
	last := t.guard.leave(true, e)
	t.clear()
	if owing { // who is told may close the client
		t.e.commits.add(-1)
	}
	t.tell(last)
}

// clear lets go of what a transaction that has ended holds.
func (t *Txn) clear() {
	if t.guard.clear() {
		t.letGo()
	}
}

// letGo stops the heart of a transaction that has ended without committing, and removes
// its locks. It is called once.
func (t *Txn) letGo() (done <-chan struct{}) {
	t.beat.stop()
	switch {
	case t.pess != nil:
		return t.pess.letGo(t)
	case t.pipe != nil:
		return t.pipe.letGo()
	}
	return nil
}

// committed is the end of a transaction that has committed.
func (t *Txn) committed() {
	t.beat.stop()
	t.guard.settled()
	if t.pess != nil && len(t.pess.loose) > 0 {
		t.pess.committed(t)
	}
}

// fail ends the transaction, and its calls.
func (t *Txn) fail(why string) {
	t.Abandon(End{Fate: Failed, Err: &Aborted{StartTS: t.StartTS(), Why: why}})
}

// doomed ends the transaction if err, of the call that is inside, says that others have
// rolled it back.
func (t *Txn) doomed(err error) {
	var gone *Aborted
	if errors.As(err, &gone) {
		t.Abandon(End{Fate: Failed, Err: gone})
	}
}

// Rollback ends the transaction. Its unlocks go on without ctx, which bounds the wait for
// them alone.
func (t *Txn) Rollback(ctx context.Context) error { return t.RollbackFor(ctx, nil) }

// RollbackFor is Rollback because of an error of the caller's own.
func (t *Txn) RollbackFor(ctx context.Context, cause error) error {
	switch err := t.guard.write(); {
	case err == ErrBusy:
		return err
	case err != nil: // it has ended
		return nil
	}
	last := t.guard.leave(true, &End{Fate: RolledBack, Err: cause, Own: true})
	var done <-chan struct{}
	if t.guard.clear() {
		done = t.letGo()
	}
	t.tell(last)
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return new(router.Call).Ended(ctx)
	}
}

// Abandon ends the transaction whatever its other calls do: they end by themselves, of one
// that has failed at once.
func (t *Txn) Abandon(e End) {
	last := t.guard.leave(false, &e)
	t.clear()
	t.tell(last)
}

// HeldBy makes held, which reports whether anybody can still use the transaction, be asked
// before each heartbeat. If nobody can, it is abandoned.
func (t *Txn) HeldBy(held func() bool) { t.held = held }

func (t *Txn) forsaken() bool { return t.held != nil && !t.held() }
