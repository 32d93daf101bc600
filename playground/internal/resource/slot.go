package resource

import (
	"math"
	"time"
)

// slot is one client's part of a bucket.
type slot struct {
	rate         uint64
	burst        int64
	tokens, last float64 // now, and as the bucket counts them; below 0 a debt
	used         time.Time
}

// grant takes tokens from the slot, and lends those that it has not: at a multiple of the
// fill rate first, at the fill rate once the debt is large, at half of it beyond that
// (PD: token_buckets.go, assignSlotTokens). The second result is over how many
// milliseconds the client is to use them.
func (s *slot) grant(tokens float64, periodMS uint64) (float64, int64) {
	switch {
	case s.burst == burstUnlimited:
		return tokens, 0
	case tokens <= 0:
		return 0, 0
	case s.rate == 0: // an empty slot, until its client comes again
		s.tokens, s.last = 0, 0
		return 0, int64(periodMS)
	case s.tokens >= tokens:
		s.tokens -= tokens
		return tokens, 0
	}
	had := max(0, s.tokens)
	s.tokens -= had
	period := float64(periodMS) / 1000
	granted, trickle := s.lend(had, tokens-had, period)
	if had == 0 { // else its client would slow down, to below what it may use
		return granted, int64(periodMS)
	}
	return granted, time.Duration(min(trickle, period) * float64(time.Second)).Milliseconds()
}

// lend adds tokens to those granted, for a period of seconds, round by round: in each the
// slot lends up to a debt, at a rate, as long as that fits into the period.
func (s *slot) lend(granted, wanted, period float64) (_, trickle float64) {
	rounds := loans
	if s.burst > 0 && s.burst <= int64(s.rate) { // tokens do not gather: nothing to smooth
		rounds = 1
	}
	limit := 0.0
	for i := rounds; i > 0 && wanted > 0 && trickle < period; i-- {
		rate := float64(i) * float64(s.rate)
		limit += rate * period
		room := limit + s.tokens
		if room <= 0 {
			continue
		}
		var more float64
		switch {
		case room > wanted:
			more = wanted
			trickle += (granted + more) / rate
		case room/rate+trickle >= period:
			more = (period - trickle) * rate
			trickle = period
		default:
			more = room
			trickle += room / rate
		}
		s.tokens -= more
		granted += more
		wanted -= more
	}
	if reserve := reserveRatio * float64(s.rate) * period; wanted > 0 && granted < reserve {
		more := math.Min(wanted+granted, reserve) - granted
		s.tokens -= more
		granted += more
	}
	return granted, trickle
}
