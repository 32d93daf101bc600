package storage

import "context"

type viewKey struct{}

// WithView returns a context under which reads see what open returns instead of the
// engine's present state: those of a replica that is behind. Whoever calls open closes
// what it returns.
func WithView(ctx context.Context, open func() Snapshot) context.Context {
	return context.WithValue(ctx, viewKey{}, open)
}

// Viewed tells that reads under ctx see another state than the engine's present one.
func Viewed(ctx context.Context) bool { return ctx.Value(viewKey{}) != nil }

// Look returns what a read under ctx sees of an engine. The caller closes it.
func Look(ctx context.Context, e Engine) Snapshot {
	if open, ok := ctx.Value(viewKey{}).(func() Snapshot); ok {
		return open()
	}
	return e.Snapshot()
}
