package transport

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestNoStreams: a server without streams of batched commands gets single calls, those
// of the refused stream included, and a stream is tried again after a while.
func TestNoStreams(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		var streams, singles atomic.Int64
		var knows atomic.Bool
		s := n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
			streams.Add(1)
			if !knows.Load() {
				return status.Error(codes.Unimplemented, "no such method")
			}
			return echo(nil)(s)
		}})
		s.unary.get = func(_ context.Context, r *kvrpcpb.RawGetRequest) (*kvrpcpb.RawGetResponse, error) {
			singles.Add(1)
			return &kvrpcpb.RawGetResponse{Value: r.Key}, nil
		}
		round := func(wantStreams, wantSingles int64) {
			t.Helper()
			var results []chan result
			for i := range 10 {
				results = append(results, start(t.Context(), p, rawGet(fmt.Sprint(i))))
			}
			for i, r := range results {
				wantValue(t, <-r, fmt.Sprint(i))
			}
			if streams.Load() != wantStreams || singles.Load() != wantSingles {
				t.Fatalf("%d streams and %d single calls", streams.Load(), singles.Load())
			}
		}
		round(1, 10)
		round(1, 20)
		advance(t, StreamRetry)
		round(2, 30)
		knows.Store(true)
		round(2, 40)
		advance(t, StreamRetry)
		round(3, 40)

	})
}

// TestStartedAlone: calls that are started before they are waited for end as others do
// where there are no streams.
func TestStartedAlone(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: func(tikvpb.Tikv_BatchCommandsServer) error { return status.Error(codes.Unimplemented, "") }})
		s.unary.get = func(ctx context.Context, r *kvrpcpb.RawGetRequest) (*kvrpcpb.RawGetResponse, error) {
			if string(r.Key) == "lost" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &kvrpcpb.RawGetResponse{Value: r.Key}, nil
		}
		wantValue(t, <-start(t.Context(), p, rawGet("first")), "first")
		begin := func(key string, timeout time.Duration) Pending {
			t.Helper()
			pending, err := p.Start(t.Context(), Target{Addr: addr, Timeout: timeout}, rawGet(key))
			if err != nil {
				t.Fatal(err)
			}
			return pending
		}
		var resp kvrpcpb.RawGetResponse
		if err := begin("k", 0).Wait(t.Context(), &resp); err != nil || string(resp.Value) != "k" {
			t.Fatal(&resp, err)
		}
		began := time.Now()
		wantError(t, begin("lost", 3*time.Second).Wait(t.Context(), &resp), Expired, true, ErrNoAnswer)
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("took %v", d)
		}

		lost := begin("lost", 0)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errEnough)
		synctest.Wait()
		began = time.Now()
		wantError(t, lost.Wait(ctx, &resp), Timeout, true, errEnough)
		lost = begin("lost", 0)
		synctest.Wait()
		if !lost.Cancel() {
			t.Error("not sent")
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}

		lost = begin("lost", 0)
		synctest.Wait()
		p.Close()
		wantError(t, lost.Wait(t.Context(), &resp), Closed, true, ErrClosed)
	})
}
