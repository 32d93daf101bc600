package storage

import (
	"context"
	"sync/atomic"
	"time"
)

// Limit is the context of a request with a time by which it has to have all it waits for.
type Limit struct {
	context.Context
	without context.Context
	missed  atomic.Bool
}

type limitKey struct{}

// NewLimit returns a Limit under ctx that ends after d, with its cancel function.
func NewLimit(ctx context.Context, d time.Duration) (*Limit, context.CancelFunc) {
	limited, cancel := context.WithTimeout(ctx, d)
	return &Limit{Context: limited, without: ctx}, cancel
}

// Value returns what the context has, and itself.
func (l *Limit) Value(key any) any {
	if key == (limitKey{}) {
		return l
	}
	return l.Context.Value(key)
}

// Missed reports whether something was waited for in vain, so that the request was not
// carried out.
func (l *Limit) Missed() bool { return l.missed.Load() }

// Without returns the context without its Limit, if it has one.
func Without(ctx context.Context) context.Context {
	if l, ok := ctx.Value(limitKey{}).(*Limit); ok {
		return l.without
	}
	return ctx
}

// Miss notes that a wait under ctx was in vain.
func Miss(ctx context.Context) {
	if l, ok := ctx.Value(limitKey{}).(*Limit); ok {
		l.missed.Store(true)
	}
}
