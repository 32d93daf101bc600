package storage

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// recorder is a watcher that keeps what it hears.
type recorder struct {
	mu    sync.Mutex
	heard []string
	after []Snapshot
	snaps bool
}

func (r *recorder) Applied(b *Batch, after func() Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range b.Puts() {
		r.heard = append(r.heard, fmt.Sprintf("%s=%s", p.Key, p.Value))
	}
	if r.snaps {
		r.after = append(r.after, after())
	}
}

func TestWatch(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, _ func() Engine) {
		apply := func(k, v string) {
			t.Helper()
			b := new(Batch)
			b.Put(Write, []byte(k), []byte(v))
			b.Delete(Lock, []byte(k))
			b.DeleteRange(Default, keys.Range{Start: []byte("a"), End: []byte("b")})
			if err := e.Apply(b); err != nil {
				t.Fatal(err)
			}
		}
		apply("k", "0")
		r := &recorder{snaps: true}
		stop := e.Watch(r)
		apply("k", "1")
		apply("k", "2")
		stop()
		apply("k", "3")
		if !slices.Equal(r.heard, []string{"k=1", "k=2"}) {
			t.Error(r.heard)
		}
		for i, s := range r.after {
			if v, _ := s.Get(Write, []byte("k")); string(v) != fmt.Sprint(i+1) {
				t.Errorf("the snapshot after batch %d has %q", i+1, v)
			}
			s.Close()
		}
	})
}

// A snapshot shows no batch that its taker's watcher has not heard of, and Sync divides
// the batches into those that the snapshot shows and those that are heard of later.
func TestSync(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, _ func() Engine) {
		r := new(recorder)
		defer e.Watch(r)()
		const writers, each = 4, 40
		var wg sync.WaitGroup
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range each {
					b := new(Batch)
					b.Put(Write, fmt.Appendf(nil, "%d/%d", w, i), nil)
					if err := e.Apply(b); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		count := func(s Snapshot) (n int) {
			defer s.Close()
			for range s.Scan(Write, keys.Range{}, false) {
				n++
			}
			return n
		}
		heard := func() int {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.heard)
		}
		for n := 0; n < writers*each; n = heard() {
			var snap Snapshot
			var before int
			e.Sync(func(s Snapshot) { snap, before = s, heard() })
			if n := count(snap); n != before {
				t.Fatalf("%d batches were heard of, the snapshot has %d", before, n)
			}
			if n := count(e.Snapshot()); n > heard() {
				t.Fatalf("a snapshot has %d batches, %d were heard of", n, heard())
			}
		}
		wg.Wait()
	})
}
