package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLatchesExclude(t *testing.T) {
	l := NewLatches()
	counts := make([]int, 20) // counts[i] is guarded by the latch of key i
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 200 {
				var mine [][]byte
				var index []int
				for range 1 + r.IntN(5) {
					i := r.IntN(len(counts))
					index = append(index, i)
					mine = append(mine, fmt.Appendf(nil, "%d", i))
				}
				release, err := l.Acquire(t.Context(), mine...)
				if err != nil {
					t.Error(err)
					return
				}
				for _, i := range index {
					counts[i]++
				}
				release()
			}
		}()
	}
	wg.Wait()
	if release, err := l.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		release()
	}
}

func TestLatchesWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, over := NewLatches(), errors.New("over")
		a, b := []byte("a"), []byte("b")
		release, err := l.Acquire(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(over) })
		if _, err := l.Acquire(ctx, a, b); err != over {
			t.Fatal(err)
		}
		// Neither a, which it may have got, nor b is held by the one that gave up.
		release()
		if release, err = l.Acquire(t.Context(), b, a, a); err != nil {
			t.Fatal(err)
		}
		release()
	})
}
