package txn

import (
	"testing"
	"testing/synctest"
	"time"
)

// A beat that was cut says nothing, whenever it ends, and the next may be due before.
func TestBeatsThatAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(t, &fake{now: 1000})
		tx := e.Begin(at(1000), 0, Options{Pessimism: Pessimistic()})
		h := &tx.beat
		h.start(tx, []byte("a"), beatEvery)
		under, first := h.begin(t.Context())
		if _, again := h.begin(t.Context()); first == nil || again != nil {
			t.Fatal("not one beat at a time")
		}
		h.pause()
		if under.Err() == nil {
			t.Error("goes on")
		}
		if _, none := h.begin(t.Context()); none != nil {
			t.Error("a beat for no key")
		}
		h.start(tx, []byte("a"), 0)
		_, second := h.begin(t.Context())
		if h.end(first, true, false) || second == nil {
			t.Error("the first one's end counts")
		}
		if h.end(second, false, true) || h.missed != 1 {
			t.Errorf("%d were missed", h.missed)
		}
		_, third := h.begin(t.Context())
		if !h.end(third, true, false) {
			t.Error("the lock is gone, and nobody is told")
		}
		h.stop()
		<-time.After(time.Minute)
	})
}
