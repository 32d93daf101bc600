package txn

import (
	"bytes"
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/membuf"
)

// Stage is one statement's fair locking (client-go's aggressive locking, txnkv/
// transaction/txn.go). What an attempt of the statement locks is kept beside what the
// transaction holds: the next attempt gets it without asking, and what it does not ask
// for is let go. The zero of *Stage is none.
type Stage struct {
	t *Txn
	// now is what the attempt under way has locked, before what the one before it had,
	// and this one has not asked for yet.
	now, before map[string]grip
	// chose is whether the attempt under way chose the primary key, primary what the one
	// before it chose.
	chose   bool
	primary []byte
	began   time.Time // of the attempt before
	begun   time.Time // of the attempt under way
}

// grip is a lock, and what is known of its key.
type grip struct {
	Held
	values bool   // Value counts
	asOf   uint64 // the for-update timestamp of the lock
}

// FairLock begins a statement. In an optimistic transaction, where nobody waits, it is of
// no consequence.
func (t *Txn) FairLock() (*Stage, error) {
	if err := t.guard.write(); err != nil {
		return nil, err
	}
	defer t.leave()
	if err := t.whole(); err != nil {
		return nil, err
	}
	if t.pess == nil {
		return &Stage{t: t}, nil
	}
	if t.pess.stage != nil {
		return nil, &Misuse{"FairLock", "is begun before another has ended"}
	}
	t.pess.stage = &Stage{t: t, now: make(map[string]grip), begun: time.Now()}
	return t.pess.stage, nil
}

// enter lets a call change the stage; over: it has ended, and there is nothing to do.
func (s *Stage) enter() (leave func(), over bool, err error) {
	switch err := s.t.guard.write(); {
	case err == ErrDone:
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	if s.t.pess == nil || s.t.pess.stage != s {
		s.t.leave()
		return nil, true, nil
	}
	return s.t.leave, false, nil
}

// Retry begins the statement's next attempt.
func (s *Stage) Retry() error {
	leave, over, err := s.enter()
	if over || err != nil {
		return err
	}
	defer leave()
	s.release(s.before)
	s.primary = nil
	if p := s.t.pess; s.chose { // the next attempt chooses anew
		s.chose, s.primary, p.primary = false, p.primary, nil
	}
	s.before, s.now = s.now, make(map[string]grip)
	s.began, s.begun = s.begun, time.Now()
	return nil
}

// Done ends the statement: what its last attempt has locked, the transaction holds.
func (s *Stage) Done() error {
	leave, over, err := s.enter()
	if over || err != nil {
		return err
	}
	defer leave()
	s.done()
	return nil
}

func (s *Stage) done() {
	p := s.t.pess
	s.release(s.before)
	for key, g := range s.now {
		f := membuf.Flags(0)
		if g.Exists {
			f = membuf.HadValue
		}
		s.t.hold([]byte(key), f)
		p.expect(key, g.asOf)
	}
	p.stage = nil
	s.t.count()
}

// Cancel ends the statement and lets go of all that it has locked. ctx bounds the wait for
// that alone.
func (s *Stage) Cancel(ctx context.Context) error {
	leave, over, err := s.enter()
	if over || err != nil {
		return err
	}
	defer leave()
	p := s.t.pess
	for key, g := range s.before {
		s.now[key] = g
	}
	if s.chose {
		p.primary = nil
	}
	p.stage = nil
	select {
	case <-s.release(s.now):
	case <-ctx.Done():
	}
	return nil
}

// release lets go of locks.
func (s *Stage) release(grips map[string]grip) (done <-chan struct{}) {
	upTo := uint64(0)
	keys := make([][]byte, 0, len(grips))
	for key, g := range grips {
		keys = append(keys, []byte(key))
		upTo = max(upTo, g.asOf)
	}
	return s.t.unlock(keys, upTo)
}

// reuse looks whether the key of a call is locked by the attempt before, so that there is
// nothing to do: the lock points to the right primary key, what is asked for is known,
// and it cannot have expired. stale asks for a timestamp above that of the lock, for only
// that makes TiKV change it (acquire_pessimistic_lock.rs, handle_existing_exclusive_lock).
func (s *Stage) reuse(l *lockCall) (done, stale bool, err error) {
	key := string(l.keys[0])
	g, ok := s.before[key]
	if !ok {
		return false, false, nil
	}
	if l.o.ForUpdate != 0 && l.o.ForUpdate < g.ConflictTS {
		return false, false, &Misuse{"WithForUpdateTS", "is before the commit that the attempt before was told of"}
	}
	delete(s.before, key)
	p := s.t.pess
	kept := !s.chose || bytes.Equal(s.primary, p.primary)
	if !kept || l.o.Values && !g.values || time.Since(s.began) >= lockTTLAhead {
		l.used(g.asOf)
		l.resent = true // it is locked, whatever becomes of the call
		return false, !kept, nil
	}
	s.t.beat.start(s.t, p.primary, 0)
	g.ConflictTS = 0 // which was told
	s.now[key] = g
	l.keys = l.keys[:0]
	return true, false, nil
}

// The rest may be asked of no stage.

func (s *Stage) has(key []byte) bool {
	if s == nil {
		return false
	}
	_, ok := s.now[string(key)]
	return ok
}

func (s *Stage) grip(key []byte) (grip, bool) {
	if s == nil {
		return grip{}, false
	}
	g, ok := s.now[string(key)]
	return g, ok
}

func (s *Stage) empty() bool { return s == nil || len(s.now)+len(s.before) == 0 }

// keys are all that are locked.
func (s *Stage) keys() [][]byte {
	if s == nil {
		return nil
	}
	var all [][]byte
	for _, grips := range []map[string]grip{s.now, s.before} {
		for key := range grips {
			all = append(all, []byte(key))
		}
	}
	return all
}
