package cdc

import "sync/atomic"

// quota is how many bytes may wait to be sent in a store.
type quota struct {
	limit int64
	used  atomic.Int64
}

// take reserves n bytes, or reports errCongested.
func (q *quota) take(n int) error {
	for {
		used := q.used.Load()
		if used+int64(n) > q.limit {
			return errCongested
		}
		if q.used.CompareAndSwap(used, used+int64(n)) {
			return nil
		}
	}
}

func (q *quota) free(n int) { q.used.Add(-int64(n)) }

// full tells whether no more than a thousandth is left (TiKV components/cdc/src/watchdog.
// rs, memory_quota_abort_threshold).
func (q *quota) full() bool { return float64(q.used.Load()) >= 0.999*float64(q.limit) }
