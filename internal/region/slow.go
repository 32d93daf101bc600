package region

import (
	"math"
	"time"
)

// slowness is how slow a store is to this client, from 1 (well) to slowest, by the rule of
// client-go's slow score (internal/locate/slow_score.go): from one tick to the next, a
// store that answers less and takes longer for it is becoming slow; else it recovers.
type slowness struct {
	score         float64
	counts, times window // of the ticks in which there were answers
}

// Bounds of a score, and what it means.
const (
	wellScore    = 1
	slowScore    = 80 // from here on a store is slow
	slowestScore = 100

	slowTick  = time.Second
	slowTicks = 10               // in the windows
	overlong  = 30 * time.Second // an answer that took as long is proof
)

// tick ends an interval with n answers that took sum in all.
func (s *slowness) tick(n int, sum time.Duration) {
	fewer, longer := 1.0, 1.0
	if n > 0 {
		fewer = s.counts.add(float64(n))
		longer = s.times.add(float64(sum) / float64(n))
	}
	if fewer < -0.1 && longer > 0.1 {
		s.score = min(math.Ceil(s.score*min(5.43, longer/-fewer)+1), slowestScore)
		return
	}
	s.score = max(s.score-math.Ceil(min(2.71, 1+math.Abs(fewer))), wellScore)
}

// window is the last values of a kind.
type window struct {
	values [slowTicks]float64
	n      int
}

// add takes a value, and returns by which part it is above the average of those before.
func (w *window) add(v float64) (gradient float64) {
	count := min(w.n, slowTicks)
	sum := 0.0
	for _, old := range w.values[:count] {
		sum += old
	}
	if sum > 0 {
		gradient = v/(sum/float64(count)) - 1
	}
	w.values[w.n%slowTicks] = v
	w.n++
	return gradient
}

// feedback is what a store says of itself (kvrpcpb.HealthFeedback), and when it said so.
type feedback struct {
	seq   uint64
	score float64
	at    time.Duration
}

// What a store has said holds for staleFeedback, then it decays.
const (
	staleFeedback = 15 * time.Second
	decayPerSec   = 20.0 / 60
)

// now is the score as it stands.
func (f feedback) now(now time.Duration) float64 {
	if old := now - f.at - staleFeedback; old > 0 {
		return max(f.score-decayPerSec*old.Seconds(), wellScore)
	}
	return max(f.score, wellScore)
}
