package region

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Refusals of Admit. Nothing was sent.
var (
	ErrAway = errors.New("region: the store does not answer")
	ErrFull = errors.New("region: too many requests to the store are under way")
)

// Outcome is what came of a request to a store, as far as it tells how the store is.
type Outcome uint8

// The outcomes.
const (
	Answered Outcome = iota // whatever the answer says
	Refused                 // no connection could be made
	Broken                  // the connection broke
	Silent                  // the attempt's time ended
	Left                    // the request was given up or not sent: nothing is known
)

// silence is how long an attempt must have waited to be evidence by itself.
const silence = 2 * time.Second

// health is how a store does at one address. What is under mu changes when something
// happens; requests to a store that is well touch nothing but counters.
type health struct {
	clock   time.Time        // of the cache
	limit   int32            // requests under way
	watch   func() bool      // starts to look after the store, which is away; false: the client closes
	beat    func()           // called once in a tick while there are answers
	changed func(ChangeKind) // the store went or came back, became slow or quick

	inFlight atomic.Int32
	spent    atomic.Uint64 // answers of this tick: their number above spentBits, their time in µs below
	heard    atomic.Int64  // of the last answer, on the cache's clock
	ticked   atomic.Int64  // of the last tick
	fine     atomic.Bool   // up, and nothing to forget at the next answer

	mu       sync.Mutex
	breaker  breaker
	wanted   time.Duration // when a request was refused last
	watched  bool          // there is a task that probes
	slowness slowness
	feedback feedback
	slow     bool          // by the last look at both
	free     time.Duration // when the queue of the store is expected to be empty
	lastErr  error
}

const spentBits = 44

func newHealth(clock time.Time, limit int32) *health {
	h := &health{clock: clock, limit: limit}
	h.slowness.score = wellScore
	h.fine.Store(true)
	h.ticked.Store(int64(time.Since(clock)))
	return h
}

// Admit asks for leave to send a request to the store. With nil, the request is sent, and
// Done called once; ErrAway and ErrFull say why it must not be.
func (s *Store) Admit() error {
	h := s.health
	if h.inFlight.Add(1) > h.limit {
		h.inFlight.Add(-1)
		return ErrFull
	}
	if !h.fine.Load() {
		return h.admit()
	}
	return nil
}

func (h *health) admit() error {
	h.mu.Lock()
	b := &h.breaker
	switch {
	case b.state == up:
		h.mu.Unlock()
		return nil
	case b.state == trial && !b.taken:
		b.on(admitted, 0, 0)
		h.mu.Unlock()
		return nil
	}
	h.wanted = time.Since(h.clock)
	if b.state == away && !h.watched {
		h.watched = h.watch()
	}
	last := h.lastErr
	h.mu.Unlock()
	h.inFlight.Add(-1)
	if last == nil {
		return ErrAway
	}
	return fmt.Errorf("%w (%v)", ErrAway, last) // in words: it is not this request's failure
}

// Done reports what came of an admitted request that ended now and took a time; err is
// for Stores.
func (s *Store) Done(o Outcome, now time.Time, took time.Duration, err error) {
	h := s.health
	h.inFlight.Add(-1)
	at := now.Sub(h.clock)
	if o == Answered {
		h.heard.Store(int64(at))
		h.spent.Add(1<<spentBits | uint64(max(took, 0)/time.Microsecond))
		if at-time.Duration(h.ticked.Load()) >= slowTick || took >= overlong {
			h.tick(at, took)
			h.beat()
		}
		if !h.fine.Load() {
			h.learn(answered, at, nil)
		}
		return
	}
	switch o {
	case Refused:
		h.learn(refused, at, err)
	case Broken:
		h.learn(broken, at, err)
	case Silent:
		switch quiet := time.Duration(h.heard.Load()) <= at-took; {
		case quiet && took >= silence:
			h.learn(silent, at, err)
		case quiet: // less than that counts when it happens again and again
			h.learn(broken, at, err)
		default:
			h.learn(left, at, err)
		}
	default:
		if !h.fine.Load() {
			h.learn(left, at, nil)
		}
	}
}

// learn takes an evidence.
func (h *health) learn(e evidence, at time.Duration, err error) {
	h.mu.Lock()
	was := h.breaker.state
	h.breaker.on(e, at, rand.Float64())
	if err != nil {
		h.lastErr = err
	}
	is := h.breaker.state
	h.fine.Store(h.breaker == breaker{})
	h.mu.Unlock()
	switch {
	case was == up && is != up:
		h.changed(StoreDown)
	case was != up && is == up:
		h.changed(StoreUp)
	}
}

// scored ends a change of the scores: it gives mu back and tells whether the store has
// become slow by it, or quick.
func (h *health) scored(at time.Duration) {
	was := h.slow
	h.slow = h.score(at) >= slowScore
	is := h.slow
	h.mu.Unlock()
	switch {
	case is && !was:
		h.changed(StoreSlow)
	case was && !is:
		h.changed(StoreQuick)
	}
}

// score is the slow score as it stands; mu is held.
func (h *health) score(at time.Duration) float64 {
	return max(h.slowness.score, h.feedback.now(at))
}

// tick ends an interval of the slow score, and as many empty ones as have passed since.
func (h *health) tick(at, took time.Duration) {
	h.mu.Lock()
	defer h.scored(at)
	if n := int64(at)/int64(slowTick) - h.ticked.Load()/int64(slowTick); n > 0 {
		spent := h.spent.Swap(0)
		h.slowness.tick(int(spent>>spentBits), time.Duration(spent&(1<<spentBits-1))*time.Microsecond)
		for range min(n-1, slowestScore) {
			h.slowness.tick(0, 0)
		}
		h.ticked.Store(int64(at))
	}
	if took >= overlong {
		h.slowness.score = slowestScore
	}
}

// Busy notes that the store turned a request away, and how long it takes to work off what
// waits there; 0: it does not say, and counts as slow.
func (s *Store) Busy(now time.Time, wait time.Duration) {
	h, at := s.health, now.Sub(s.health.clock)
	h.mu.Lock()
	defer h.scored(at)
	if wait > 0 {
		h.free = at + wait
		return
	}
	h.slowness.score = slowestScore
	h.ticked.Store(int64(at))
}

// Queue is how long a request is expected to wait in the store, by what the store said
// last.
func (s *Store) Queue(now time.Time) time.Duration {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return max(s.health.free-now.Sub(s.health.clock), 0)
}

// Away reports whether Admit refuses requests because the store does not answer.
func (s *Store) Away() bool {
	h := s.health
	if h.fine.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.breaker.state == away || h.breaker.state == trial && h.breaker.taken
}

// Slow reports whether the store is slow, by the times of its answers or its own word.
func (s *Store) Slow(now time.Time) bool { return s.SlowScore(now) >= slowScore }

// SlowScore is from 1, which is well, to 100.
func (s *Store) SlowScore(now time.Time) float64 {
	h := s.health
	at := now.Sub(h.clock)
	if at-time.Duration(h.ticked.Load()) >= slowTick {
		h.tick(at, 0)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.score(at)
}

// InFlight counts the requests under way.
func (s *Store) InFlight() int { return int(s.health.inFlight.Load()) }

// LastErr is the last failure to reach the store, nil if there was none at its address.
func (s *Store) LastErr() error {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.lastErr
}

// feed takes what the store says of itself, unless it has said something later.
func (h *health) feed(seq uint64, score float64, at time.Duration) {
	h.mu.Lock()
	defer h.scored(at)
	if seq >= h.feedback.seq {
		h.feedback = feedback{seq: seq, score: score, at: at}
	}
}
