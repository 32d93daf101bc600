package transporttest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStores: an answer arrives as a copy, an attempt ends with its own time, or with the
// caller's.
func TestStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := &kvrpcpb.RawGetResponse{Value: []byte("v")}
		s := New(func(ctx context.Context, addr string, req transport.Message) (transport.Response, error) {
			if addr == "deaf" {
				<-ctx.Done()
				return nil, &transport.Error{Addr: addr, Kind: transport.Timeout, Sent: true, Err: context.Cause(ctx)}
			}
			return answer, nil
		})
		req := &kvrpcpb.RawGetRequest{}
		resp := s.NewResponse(req).(*kvrpcpb.RawGetResponse)
		if err := s.Call(t.Context(), transport.Target{Addr: "a"}, req, resp); err != nil || string(resp.Value) != "v" || resp == answer {
			t.Fatal(resp, err)
		}
		var e *transport.Error
		began := time.Now()
		err := s.Call(t.Context(), transport.Target{Addr: "deaf", Timeout: time.Second}, req, resp)
		if !errors.As(err, &e) || e.Kind != transport.Expired || !e.Sent || time.Since(began) != time.Second {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err = s.Call(ctx, transport.Target{Addr: "deaf", Timeout: time.Second}, req, resp)
		if !errors.As(err, &e) || e.Kind != transport.Timeout {
			t.Fatal(err)
		}
	})
}
