package region

import "time"

// breaker decides whether requests go to a store. It is a value and pure: what happened
// goes in as an evidence, with the time and a die; the new state is in it afterwards.
//
//	up     everything goes. A connection that cannot be made, a store that answers nobody
//	       for long, or connections that break several times without an answer between: away.
//	away   nothing goes. When it is due and somebody wanted the store, it is probed: well,
//	       trial; else away for twice as long.
//	trial  one request at a time. An answer: up. A failure: away for twice as long.
//
// An answer, to whatever request, always means up.
type breaker struct {
	state state
	taken bool          // trial: the request that is let through is under way
	broke uint8         // connections that broke since the last answer
	last  time.Duration // of the last of them, on the cache's clock
	wait  time.Duration // away: from one probe to the next, before jitter
	due   time.Duration // away: of the next probe, on the cache's clock
}

type state uint8

const (
	up state = iota
	away
	trial
)

var stateNames = [...]string{"up", "away", "trial"}

// evidence is what tells how a store is.
type evidence uint8

const (
	answered   evidence = iota // an answer came, be it an error
	refused                    // no connection could be made
	broken                     // the connection broke
	silent                     // no answer within an attempt's time, nor to anybody else meanwhile
	left                       // the request was given up or not sent: nothing is known
	admitted                   // a request is let through for trial
	probedWell                 // the store says that it serves
	probedIll                  // it does not, or says nothing
)

var evidenceNames = [...]string{"answered", "refused", "broken", "silent", "left", "admitted", "probed well", "probed ill"}

// How a store is probed: the first time after half to all of firstProbe, then after twice
// that and so on up to lastProbe. So a client probes a store that stays away at most once
// in five seconds, and n clients n times as often, at random moments.
const (
	firstProbe = 250 * time.Millisecond
	lastProbe  = 10 * time.Second

	manyBroken = 3                      // connections that break in a row
	oneBreak   = 100 * time.Millisecond // requests that fail within it fail with one connection
)

// on takes an evidence. dice is in [0, 1).
func (b *breaker) on(e evidence, now time.Duration, dice float64) {
	switch {
	case e == answered:
		*b = breaker{}
	case b.state == up && e == broken:
		if b.broke == 0 || now-b.last >= oneBreak {
			b.broke, b.last = b.broke+1, now
		}
		if b.broke >= manyBroken {
			b.leave(now, dice)
		}
	case b.state == up && (e == refused || e == silent),
		b.state == trial && (e == refused || e == silent || e == broken),
		b.state == away && e == probedIll:
		b.leave(now, dice)
	case b.state == away && e == probedWell:
		b.state, b.taken = trial, false
	case b.state == trial && e == admitted:
		b.taken = true
	case b.state == trial && e == left:
		b.taken = false
	}
}

// leave goes away, for longer each time.
func (b *breaker) leave(now time.Duration, dice float64) {
	b.state, b.taken = away, false
	b.wait = min(max(2*b.wait, firstProbe), lastProbe)
	b.due = now + b.wait/2 + time.Duration(dice*float64(b.wait)/2)
}
