package resource

import (
	"math"
	"testing"
	"time"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
)

func made(tokens float64, rate uint64, burst int64) *bucket {
	b := newBucket(&rmpb.TokenBucket{Tokens: tokens, Settings: &rmpb.TokenLimitSettings{FillRate: rate, BurstLimit: burst}})
	return &b
}

// Requests of one client one after another, with the tokens and the time that they get
// (PD: token_buckets_test.go, TestGroupTokenBucketRequest and RequestLoop).
func TestOneClient(t *testing.T) {
	const ten, five = 10000, 5000
	type step struct {
		after      time.Duration
		ask        float64
		granted    float64
		trickle    int64
		leftOrDebt float64
	}
	for name, test := range map[string]struct {
		bucket *bucket
		period uint64
		steps  []step
	}{
		"loans": {made(200000, 2000, 20000000), ten, []step{
			{0, 190000, 190000, 0, 10000},
			{0, 11000, 11000, 2750, -1000}, // 10,000 were there, at twice the rate
			{0, 35000, 35000, ten, -36000},
			{0, 60000, 22000, ten, -58000}, // what is left of both rounds
			{0, 3000, 3000, ten, -61000},
			{0, 12000, 10000, ten, -71000}, // half of the rate
			{20 * time.Second, 20000, 20000, ten, -51000},
		}},
		"a debt that grows ever slower": {made(100000, 2000, 200000), five, []step{
			{0, 100000, 100000, 0, 0},
			{5 * time.Second, 50000, 30000, five, -20000},
			{5 * time.Second, 30000, 15000, five, -25000},
			{5 * time.Second, 15000, 12500, five, -27500},
			{5 * time.Second, 12500, 11250, five, -28750},
			{5 * time.Second, 11250, 10625, five, -29375},
		}},
		"bursts at the rate lend once": {made(0, 2000, 2000), ten, []step{
			{0, 100000, 100000, 0, 0}, // what every group begins with
			{0, 30000, 20000, ten, -20000},
			{0, 30000, 10000, ten, -30000},
			{100 * time.Second, 3000, 3000, 1500, -1000},
		}},
		"without a burst limit tokens do not gather": {made(100, 1000, 0), ten, []step{
			{0, 500, 500, ten, 0}, {time.Hour, 500, 500, ten, 0},
		}},
		"unlimited": {made(100, 1000, -1), ten, []step{{0, 1e9, 1e9, 0, 100}, {0, 1e9, 1e9, 0, 100}}},
		"no rate":   {made(0, 0, 5), ten, []step{{0, 100000, 100000, 0, 0}, {0, 1e9, 100000, ten, -100000}}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1e9, 0)
			for i, s := range test.steps {
				now = now.Add(s.after)
				got, trickle := test.bucket.request(now, s.ask, test.period, 1)
				if math.Abs(got.Tokens-s.granted) > 1e-7 || trickle != s.trickle {
					t.Errorf("%d: %v in %d ms, want %v in %d", i, got.Tokens, trickle, s.granted, s.trickle)
				}
				if burst := test.bucket.settings.BurstLimit; burst > 0 && math.Abs(test.bucket.tokens-s.leftOrDebt) > 1e-7 {
					t.Errorf("%d: %v are left, want %v", i, test.bucket.tokens, s.leftOrDebt)
				}
			}
		})
	}
}

// The slots of clients share the fill rate by what they ask for (PD:
// token_buckets_test.go, TestBalanceSlotTokensFillRateAllocation).
func TestShares(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, test := range []struct {
		rate          uint64
		demands, want []float64
	}{
		{180, []float64{80, 30, 70}, []float64{80, 30, 70}},
		{180, []float64{15, 120, 45}, []float64{15, 120, 45}},
		{180, []float64{10, 10, 10}, []float64{60, 60, 60}},
		{90, []float64{60, 60, 60}, []float64{30, 30, 30}},
		{90, []float64{-1, 60, 10}, []float64{30, 50, 10}}, // the first is new
		{0, []float64{60, 60}, []float64{0, 0}},
	} {
		b := made(0, test.rate, int64(test.rate))
		for i, d := range test.demands {
			b.slots[uint64(i)] = &slot{used: now, tokens: 7}
			b.demands[uint64(i)] = &demand{known: d >= 0, rate: max(0, d), at: now}
		}
		b.balance(0)
		for i, want := range test.want {
			if got := b.slots[uint64(i)].rate; got != uint64(want) {
				t.Errorf("%v: %d gets %d, want %v", test.demands, i, got, want)
			}
		}
	}
}

// A moderated burst has a rate even where the fill rate was set to none: both clients of a
// group get what one alone would (PD: token_buckets.go, getFillRateAndBurstLimit).
func TestModeratedWithoutRate(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := made(0, 100, burstModerated)
	b.request(now, 1, 1000, 1)
	b.set(&rmpb.TokenLimitSettings{BurstLimit: burstModerated})
	b.request(now, 1, 1000, 1)
	for client := range uint64(2) {
		if got, _ := b.request(now, 100, 1000, 1+client); got.Tokens != 100 {
			t.Errorf("client %d: %v", client, got)
		}
	}
	if b.slots[1].rate+b.slots[2].rate != moderateBurst {
		t.Error(b.slots[1], b.slots[2])
	}
}

// Clients share what is added, none gets more than its burst limit, and what is above
// comes back with the next refill; one that asks for nothing or not for long leaves.
func TestSlots(t *testing.T) {
	b, now := made(0, 1000, 10000), time.Unix(1e9, 0)
	for c := range uint64(2) {
		b.request(now, 1, 1000, c)
	}
	if len(b.slots) != 2 || b.slots[1].rate != 500 || b.slots[1].burst != 5000 {
		t.Fatal(b.slots[1])
	}
	now = now.Add(time.Minute)
	b.request(now, 1, 1000, 0)
	total := b.slots[0].tokens + b.slots[1].tokens
	if b.tokens > 10000 || b.slots[1].tokens > 5000+1 || b.reserved < 0 || total > 10000+1 {
		t.Fatal(b.tokens, b.reserved, total)
	}
	if got, _ := b.request(now, 0, 1000, 1); got.Tokens != 0 || got.Settings.BurstLimit != 10000 || len(b.slots) != 1 {
		t.Fatal(got, b.slots)
	}
	b.request(now.Add(slotLife), 1, 1000, 2)
	if len(b.slots) != 1 || b.slots[2] == nil {
		t.Fatal(b.slots)
	}
}

// Other settings end a debt; a slot without a rate grants nothing for a period.
func TestChangedSettings(t *testing.T) {
	b, now := made(0, 1000, 100000), time.Unix(1e9, 0)
	b.request(now, 150000, 100000, 1)
	if b.tokens >= 0 {
		t.Fatal(b.tokens)
	}
	b.set(&rmpb.TokenLimitSettings{FillRate: 10, BurstLimit: 100})
	if got, _ := b.request(now, 5, 1000, 1); got.Tokens != 5 || b.tokens != -5 {
		t.Fatal(got, b.tokens)
	}
	b.set(&rmpb.TokenLimitSettings{FillRate: 0, BurstLimit: 100})
	b.tokens = 50
	for c := range uint64(2) {
		if got, trickle := b.request(now, 5, 1000, c); got.Tokens != 0 || trickle != 1000 {
			t.Fatal(c, got, trickle)
		}
	}
}

// The average of what a client asks for forgets half in five seconds.
func TestDemand(t *testing.T) {
	var d demand
	now := time.Unix(1e9, 0)
	for i, s := range []struct {
		after time.Duration
		units float64
		known bool
		rate  float64
	}{
		{0, 100, false, 0}, {time.Second, 100, true, 100}, {0, 1e9, true, 100},
		{5 * time.Second, 0, true, 50}, {5 * time.Second, 1000, true, 125}, {time.Minute, 0, true, 0},
	} {
		now = now.Add(s.after)
		d.sample(now, s.units)
		if d.known != s.known || math.Abs(d.rate-s.rate) > 1e-9 {
			t.Errorf("%d: %+v", i, d)
		}
	}
}
