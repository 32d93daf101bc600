package tso

import (
	"errors"
	"testing"
	"time"
)

// Whatever the clock does and whenever the process ends, timestamps rise, and none is
// at or above the bound that was saved.
func TestNext(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	var saved uint64
	fail := false
	disk := errors.New("disk")
	open := func() *Allocator {
		return New(func() time.Time { return now }, saved, func(b uint64) error {
			if fail {
				return disk
			}
			if b <= saved {
				t.Fatalf("the bound went from %d to %d", saved, b)
			}
			saved = b
			return nil
		})
	}
	a := open()
	last := uint64(0)
	for i, d := range []time.Duration{
		0, 0, time.Millisecond, -time.Hour, 0, 6 * time.Second, time.Hour, -2 * time.Hour, 4999 * time.Millisecond, time.Millisecond, 0,
	} {
		now = now.Add(d)
		for j := range 40 {
			count := uint32(1 + j*j*100)
			p, l, err := a.Next(count)
			if err != nil {
				t.Fatal(err)
			}
			first := Compose(p, l-int64(count)+1)
			if first <= last || l-int64(count) < 0 || l >= maxLogical || uint64(p) >= saved {
				t.Fatalf("step %d: %d.%d after %d, saved %d", i, p, l, last, saved)
			}
			last = Compose(p, l)
		}
		if i%3 == 2 {
			a = open() // a restart
		}
	}
	now = now.Add(24 * time.Hour)
	fail = true
	if _, _, err := a.Next(1); !errors.Is(err, disk) {
		t.Fatal("a timestamp without its bound saved:", err)
	}
	fail = false
	if p, _, err := a.Next(1); err != nil || p != now.UnixMilli() {
		t.Fatal(p, err)
	}
	if _, _, err := a.Next(maxLogical); !errors.Is(err, ErrOverflow) {
		t.Fatal(err)
	}
}
