package region

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// loader loads what callers miss. Callers that miss the same key share a load; different
// keys that are missed while loads are under way go to PD together. A load is a task of the
// client, so the end of one caller does not end it for the others; when the last one has
// left all of a request's keys, it is cancelled.
type loader struct {
	mu    sync.Mutex
	loads map[string]*load // queued, or being asked for
	queue []*load
	tasks int
}

// Bounds of loads.
const (
	loadTasks = 4   // requests to PD under way
	loadBatch = 128 // keys in one
)

type load struct {
	key     string
	waiters int
	batch   *batch // nil while it is queued
	done    chan struct{}
	region  *Region
	err     error
}

// batch is the loads of one request.
type batch struct {
	left   int // loads that somebody waits for
	cancel context.CancelCauseFunc
}

// get returns the region that holds key. The caller's ctx bounds its own wait alone.
func (l *loader) get(ctx context.Context, c *Cache, key []byte) (*Region, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	one, err := l.join(c, string(key))
	if err != nil {
		return nil, err
	}
	select {
	case <-one.done:
		return one.region, one.err
	case <-ctx.Done():
		l.leave(one)
		return nil, c.gaveUp(ctx)
	}
}

// gaveUp is the error of a caller whose ctx ended while PD was asked.
func (c *Cache) gaveUp(ctx context.Context) error {
	if c.cfg.Waiting == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w, waiting for %s", context.Cause(ctx), c.cfg.Waiting())
}

func (l *loader) join(c *Cache, key string) (*load, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.loads[key]; one != nil {
		one.waiters++
		return one, nil
	}
	if l.tasks < loadTasks {
		if !c.tasks.Go("region load", func(ctx context.Context) { l.run(ctx, c) }) {
			if err := context.Cause(c.tasks.Context()); err != nil {
				return nil, err
			}
			return nil, task.ErrClosed
		}
		l.tasks++
	}
	if l.loads == nil {
		l.loads = make(map[string]*load)
	}
	one := &load{key: key, waiters: 1, done: make(chan struct{})}
	l.loads[key] = one
	l.queue = append(l.queue, one)
	return one, nil
}

// leave gives up waiting. Who asks after the last has left begins another load.
func (l *loader) leave(one *load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.waiters--; one.waiters > 0 {
		return
	}
	if l.loads[one.key] == one {
		delete(l.loads, one.key)
	}
	if one.batch == nil {
		l.queue = slices.DeleteFunc(l.queue, func(o *load) bool { return o == one })
	} else if one.batch.left--; one.batch.left == 0 {
		one.batch.cancel(context.Canceled)
	}
}

// run asks for what is queued until nothing is.
func (l *loader) run(ctx context.Context, c *Cache) {
	for {
		asked, cancel := context.WithCancelCause(ctx)
		now := l.take(cancel)
		if now == nil {
			cancel(nil)
			return
		}
		c.serve(asked, now)
		cancel(nil)
		l.finish(now)
	}
}

func (l *loader) take(cancel context.CancelCauseFunc) []*load {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.queue), loadBatch)
	if n == 0 {
		l.tasks--
		return nil
	}
	now := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	b := &batch{left: n, cancel: cancel}
	for _, one := range now {
		one.batch = b
	}
	return now
}

func (l *loader) finish(now []*load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range now {
		if l.loads[one.key] == one {
			delete(l.loads, one.key)
		}
		close(one.done)
	}
}

// serve loads what is still missing: one key by itself, several in one request.
func (c *Cache) serve(ctx context.Context, now []*load) {
	missing := slices.DeleteFunc(slices.Clone(now), func(one *load) bool {
		one.region = c.Lookup([]byte(one.key))
		return one.region != nil
	})
	if len(missing) == 1 {
		missing[0].region, missing[0].err = c.load(ctx, []byte(missing[0].key))
		return
	}
	slices.SortFunc(missing, func(a, b *load) int { return strings.Compare(a.key, b.key) })
	ranges := make([]keys.Range, len(missing))
	for i, one := range missing {
		ranges[i] = keys.Range{Start: []byte(one.key), End: keys.Next([]byte(one.key))}
	}
	err := error(nil)
	if len(missing) > 0 {
		_, err = c.scan(ctx, ranges, len(ranges))
	}
	for _, one := range missing {
		if one.err = err; err != nil {
			continue
		}
		if one.region = c.Lookup([]byte(one.key)); one.region == nil { // PD says something else, or nothing
			one.region, one.err = c.load(ctx, []byte(one.key))
		}
	}
}
