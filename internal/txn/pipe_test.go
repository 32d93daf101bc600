package txn

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv/internal/router"
)

// A buffer is handed over when it is large, in bytes and keys, and no flush is under way; a
// very large one in any case.
func TestFlushIsDue(t *testing.T) {
	closed := make(chan struct{})
	close(closed)
	under, landed := &flight{done: make(chan struct{})}, &flight{done: closed}
	for _, c := range []struct {
		keys, size int
		due        map[*flight]bool
	}{
		{flushKeys - 1, 2 << 10, map[*flight]bool{nil: false, landed: false, under: false}},
		{flushKeys, 2 << 10, map[*flight]bool{nil: true, landed: true, under: false}},
		{2 * flushKeys, 16, map[*flight]bool{nil: false, landed: false, under: false}},
		{100, 1 << 20, map[*flight]bool{nil: false, landed: false, under: false}},
		{130, 1 << 20, map[*flight]bool{nil: true, landed: true, under: true}},
	} {
		tx := &Txn{}
		value := make([]byte, c.size)
		for i := range c.keys {
			if err := tx.buf.Put(fmt.Appendf(nil, "%08d", i), value, 0); err != nil {
				t.Fatal(err)
			}
		}
		for f, due := range c.due {
			if got := (&pipe{t: tx, flight: f}).due(); got != due {
				t.Errorf("%d keys with %d bytes, a flush %v: %v", c.keys, c.size, f, got)
			}
		}
	}
}

// The requests of a flush become more until a store is busy; from then on they grow slowly,
// and are halved each time.
func TestWidth(t *testing.T) {
	w := newWidth(128)
	got := []int{w.now}
	for _, busy := range []bool{false, false, true, false, false, true, true, true, true, true, true, true, true, false, false} {
		w.learn(busy)
		got = append(got, w.now)
	}
	if fmt.Sprint(got) != "[16 32 64 32 40 48 24 12 6 3 1 1 1 1 9 17]" {
		t.Error(got)
	}
	for range 100 {
		w.learn(false)
	}
	one := newWidth(1)
	one.learn(false)
	if w.now != 128 || one.now != 1 {
		t.Error(w.now, one.now)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		p.took(time.Second)
		p.took(time.Second)
		p.took(12 * time.Second)
		if p.mean != 3*time.Second {
			t.Error(p.mean)
		}
		for share, want := range map[float64]time.Duration{0: 0, 0.5: 3 * time.Second, 0.75: 9 * time.Second} {
			began := time.Now()
			if err := p.wait(t.Context(), t.Context(), share); err != nil || time.Since(began).Round(time.Millisecond) != want {
				t.Errorf("%v: %v, %v", share, time.Since(began), err)
			}
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := p.wait(t.Context(), ended, 0.5); err != router.ErrClosed {
			t.Error(err)
		}
		if err := p.wait(ended, t.Context(), 0.5); err == nil {
			t.Error("no error")
		}
	})
}
