package resource

import (
	"math"
	"time"
)

// demand is how many units a second a client asks for: an average that forgets half of
// what it knows in halfLife (PD: pkg/mcs/resourcemanager/server/keyspace_manager.go,
// ruTracker).
type demand struct {
	known bool
	rate  float64
	at    time.Time
}

const (
	halfLife  = 5 * time.Second
	minDemand = 1.0 // less is none
)

// sample takes the units that were asked for since the last time.
func (d *demand) sample(now time.Time, units float64) {
	first := d.at.IsZero()
	passed := now.Sub(d.at).Seconds()
	d.at = now
	if first || passed <= 0 {
		return
	}
	rate := max(0, units) / passed
	if !d.known {
		d.known, d.rate = true, rate
		return
	}
	keep := math.Exp(-math.Ln2 / halfLife.Seconds() * passed)
	if d.rate = keep*d.rate + (1-keep)*rate; d.rate < minDemand {
		d.rate = 0
	}
}
