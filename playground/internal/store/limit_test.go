package store

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage"
)

// A write heeds its limit while it waits for latches, and not once it is written (TiKV
// src/storage/txn/scheduler.rs, test_acquire_latch_deadline).
func TestLimitOfAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &stalled{storage.NewMemory(), make(chan struct{}), make(chan struct{})}
		s, rctx, tasks := bare(t, e)
		defer tasks.Close(nil)
		rctx.MaxExecutionDurationMs = 100
		prewrite := func(ts uint64) *kvrpcpb.PrewriteResponse {
			req := &kvrpcpb.PrewriteRequest{Context: rctx, StartVersion: ts, PrimaryLock: []byte("k"), LockTtl: 1,
				Mutations: []*kvrpcpb.Mutation{{Key: []byte("k"), Value: []byte("v")}}}
			return s.handle(t.Context(), s.commands.of(req), req).(*kvrpcpb.PrewriteResponse)
		}
		var first *kvrpcpb.PrewriteResponse
		var writer sync.WaitGroup
		writer.Add(1)
		go func() {
			defer writer.Done()
			first = prewrite(10)
		}()
		<-e.begun
		began := time.Now()
		second := prewrite(20)
		checkTooLate(t, second.RegionError)
		if len(second.Errors) > 0 || time.Since(began) != 100*time.Millisecond {
			t.Error(second, time.Since(began))
		}
		<-time.After(time.Second)
		close(e.end)
		writer.Wait()
		if first.RegionError != nil || len(first.Errors) > 0 {
			t.Error(first)
		}
	})
}

func checkTooLate(t *testing.T, e *errorpb.Error) {
	t.Helper()
	if e.GetMessage() != "Deadline is exceeded" || e.GetServerIsBusy().GetReason() != "deadline is exceeded" {
		t.Error(e)
	}
}

// TiKV src/read_pool.rs, check_busy_threshold.
func TestReadWait(t *testing.T) {
	e := storage.NewMemory()
	s, rctx, tasks := bare(t, e)
	defer tasks.Close(nil)
	for _, c := range []struct {
		threshold uint32
		wait      time.Duration
		refused   uint32
	}{
		{0, time.Hour, 0}, {100, 0, 0}, {100, 100 * time.Millisecond, 0}, {100, 150 * time.Millisecond, 150}, {1, 1 << 62, 1<<32 - 1},
	} {
		s.SetState(State{ReadWait: c.wait})
		rctx.BusyThresholdMs = c.threshold
		reqs := []request{
			&kvrpcpb.GetRequest{Context: rctx, Key: []byte("k"), Version: 1},
			&kvrpcpb.ScanRequest{Context: rctx, Limit: 1, Version: 1},
			&kvrpcpb.RawGetRequest{Context: rctx, Key: []byte("k")},
		}
		for _, req := range reqs {
			got := s.handle(t.Context(), s.commands.of(req), req).(interface{ GetRegionError() *errorpb.Error }).GetRegionError()
			switch {
			case c.refused == 0 && got != nil:
				t.Errorf("%T, %v: %v", req, c, got)
			case c.refused != 0 && (got.GetServerIsBusy().GetEstimatedWaitMs() != c.refused ||
				got.ServerIsBusy.Reason != "estimated wait time exceeds threshold"):
				t.Errorf("%T, %v: %v", req, c, got)
			}
		}
		put := &kvrpcpb.RawPutRequest{Context: rctx, Key: []byte("k"), Value: []byte("v")}
		if got := s.handle(t.Context(), s.commands.of(put), put).(*kvrpcpb.RawPutResponse); got.RegionError != nil {
			t.Errorf("a write, %v: %v", c, got)
		}
	}
}
