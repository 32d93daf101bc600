// Package tikv is a client for TiKV clusters.
//
// What holds for every call: ctx's deadline is one budget for all it waits for, and
// its end returns at once. Byte slices given may be reused when the call returns, those
// returned are the caller's for good. What certainly did not run is sent again, to the
// right replica, until the budget ends (ErrUnavailable); what may have run, only where
// that is harmless, else ErrUndetermined. A bad argument is an *ArgumentError before
// anything is sent; a view made with a bad option returns it from each call.
package tikv
