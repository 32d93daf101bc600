package resource

import (
	"maps"
	"math"
	"slices"
	"time"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
)

// How buckets are filled (PD: pkg/mcs/resourcemanager/server/token_buckets.go).
const (
	refillRate    = 10000           // of a group that names none
	moderateBurst = 10000           // above the fill rate, for moderated bursts
	initialTokens = 10 * refillRate // at least, where bursts have a limit
	reserveRatio  = 0.5             // of the fill rate that every request may have
	loans         = 2               // rounds in which a slot lends, each at a lower rate
	slotLife      = 10 * time.Minute
	unlimitedRate = math.MaxInt32
)

// The burst limits that are none.
const (
	burstUnlimited = -1 // what is asked for is granted, the fill rate does not count
	burstModerated = -2 // up to moderateBurst above the fill rate
	burstAtRate    = 0  // any tokens may gather, and come at the fill rate
)

// bucket are a group's tokens and their parts for each client, the slots.
type bucket struct {
	settings *rmpb.TokenLimitSettings // nil: none
	tokens   float64
	last     time.Time // of the last refill
	started  bool
	slots    map[uint64]*slot   // by the clients' ids
	demands  map[uint64]*demand // of the clients
	reserved float64            // tokens above a slot's burst limit, for the next refill
	changed  bool               // settings: a debt is forgotten
}

func newBucket(b *rmpb.TokenBucket) bucket {
	made := bucket{slots: make(map[uint64]*slot), demands: make(map[uint64]*demand)}
	if s := b.GetSettings(); s != nil {
		made.set(s)
		made.tokens, made.changed = b.GetTokens(), false
	}
	return made
}

func (b *bucket) set(s *rmpb.TokenLimitSettings) {
	if s != nil {
		own := *s
		b.settings, b.changed = &own, true
	}
}

// limits are the fill rate and the burst limit that the slots share.
func (b *bucket) limits() (rate uint64, burst int64) {
	rate, burst = b.settings.FillRate, b.settings.BurstLimit
	if burst == burstModerated {
		rate = uint64(min(float64(rate)+moderateBurst, unlimitedRate))
		burst = int64(rate)
	}
	return rate, burst
}

// request grants a client tokens of those it asks for, to be used over a time of some
// milliseconds; nil where the bucket went wrong and starts anew.
func (b *bucket) request(now time.Time, tokens float64, periodMS, client uint64) (*rmpb.TokenBucket, int64) {
	added := b.refill(now)
	if b.changed && b.tokens <= 0 {
		added = 0
		b.forgive()
	}
	b.visit(now, client, tokens)
	b.balance(added)
	s := b.slots[client]
	if s == nil {
		return &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{BurstLimit: b.settings.BurstLimit}}, 0
	}
	granted, trickle := s.grant(tokens, periodMS)
	if !(granted >= 0) || math.IsInf(granted, 0) || math.IsInf(s.tokens, 0) || math.IsNaN(s.tokens) {
		b.forgive()
		return nil, 0
	}
	b.tokens -= s.last - s.tokens
	s.last = s.tokens
	return &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{BurstLimit: s.burst}, Tokens: granted}, trickle
}

// forgive ends all debts.
func (b *bucket) forgive() {
	b.changed, b.tokens = false, 0
	for _, s := range b.slots {
		s.tokens, s.last = 0, 0
	}
}

// refill adds what came since the last time, and returns what the slots share of it.
func (b *bucket) refill(now time.Time) (added float64) {
	burst := float64(b.settings.BurstLimit)
	switch {
	case !b.started:
		if b.settings.FillRate == 0 {
			b.settings.FillRate = refillRate
		}
		if b.tokens < initialTokens && burst > 0 {
			b.tokens = initialTokens
		}
		b.started = true
	case burst <= 0:
		return 0
	default:
		if passed := now.Sub(b.last); passed > 0 {
			added = float64(b.settings.FillRate)*passed.Seconds() + b.reserved
			b.reserved = 0
			b.tokens += added
		}
		if b.tokens > burst {
			added -= b.tokens - burst
			b.tokens = burst
		}
	}
	b.last = now
	return added
}

// visit gives a client that asks for tokens a slot, and takes that of one that asks for
// none, and those that were not used for long.
func (b *bucket) visit(now time.Time, client uint64, tokens float64) {
	switch s := b.slots[client]; {
	case tokens == 0:
		delete(b.slots, client)
	case s == nil:
		b.slots[client] = &slot{used: now}
	default:
		s.used = now
	}
	maps.DeleteFunc(b.slots, func(_ uint64, s *slot) bool { return now.Sub(s.used) >= slotLife })
}

// balance shares the fill rate, the burst limit and the tokens that were added among the
// slots.
func (b *bucket) balance(added float64) {
	n := len(b.slots)
	burst := b.settings.BurstLimit
	rate, _ := b.limits()
	switch {
	case n == 0:
	case burst == burstAtRate || burst == burstUnlimited:
		for _, s := range b.slots {
			s.rate, s.burst = uint64(float64(b.settings.FillRate)/float64(n)), burst
		}
	case n == 1:
		for _, s := range b.slots {
			s.tokens, s.last = b.tokens, b.tokens
			if s.rate, s.burst = b.limits(); s.rate == 0 {
				s.tokens, s.last = 0, 0
			}
		}
	case rate == 0:
		b.tokens, b.reserved = 0, 0
		for _, s := range b.slots {
			*s = slot{used: s.used}
		}
	default:
		b.share(added)
	}
}

// share gives each slot the rate that its client uses: up to an even part first, then
// what is left to those that use more, by how much more, or to all.
func (b *bucket) share(added float64) {
	totalRate, totalBurst := b.limits()
	clients := slices.Sorted(maps.Keys(b.slots))
	even := float64(totalRate) / float64(len(clients))
	rates, extra := make(map[uint64]float64), make(map[uint64]float64)
	left, wanted := float64(totalRate), 0.0
	for _, c := range clients {
		d := b.demandOf(c)
		rates[c] = d.rate
		if d.rate > even {
			extra[c] = d.rate - even
			wanted += extra[c]
		}
		if d.rate > even || !d.known {
			rates[c] = even
		}
		left -= rates[c]
	}
	for _, c := range clients {
		switch {
		case left <= 0:
		case len(extra) > 0:
			rates[c] += left * (extra[c] / wanted)
		default:
			rates[c] += left / float64(len(clients))
		}
	}
	for _, c := range clients {
		part := rates[c] / float64(totalRate)
		s, limit, more := b.slots[c], float64(totalBurst)*part, added*part
		if over := s.tokens - limit; limit > 0 && over > 0 {
			b.reserved += over
			b.tokens -= over
			more -= over
		}
		s.tokens += more
		s.last += more
		s.rate, s.burst = uint64(rates[c]), int64(limit)
	}
}

func (b *bucket) demandOf(client uint64) *demand {
	if b.demands[client] == nil {
		b.demands[client] = new(demand)
	}
	return b.demands[client]
}

// sample notes what a client asks for, and forgets clients that have not for long.
func (b *bucket) sample(client uint64, now time.Time, tokens float64) {
	b.demandOf(client).sample(now, tokens)
	maps.DeleteFunc(b.demands, func(_ uint64, d *demand) bool { return now.Sub(d.at) >= slotLife })
}
