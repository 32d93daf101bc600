package playground

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// A client that pings every 10 s and says nothing else keeps its connections for an
// hour: the servers' enforcement of keepalive lets it.
func TestIdleClientsStayConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		var dialled atomic.Int32
		counting := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			dialled.Add(1)
			return c.DialContext(ctx, addr)
		})
		pdConn, err := c.dial(c.PD()[0], counting, grpc.WithIdleTimeout(0))
		if err != nil {
			t.Fatal(err)
		}
		defer pdConn.Close()
		kvConn, err := c.dial(c.store(1).Server().Addr(), counting, grpc.WithIdleTimeout(0))
		if err != nil {
			t.Fatal(err)
		}
		defer kvConn.Close()
		pdConn.Connect()
		tikv := tikvpb.NewTikvClient(kvConn)
		stream, err := tikv.BatchCommands(t.Context()) // one connection with a stream, one without
		if err != nil {
			t.Fatal(err)
		}
		echo := func(id uint64) {
			t.Helper()
			if err := stream.Send(empty(id)); err != nil {
				t.Fatal(err)
			}
			if r, err := stream.Recv(); err != nil || r.Responses[0].GetEmpty().GetTestId() != id {
				t.Fatal(r, err)
			}
		}
		echo(1)
		<-time.After(time.Hour)
		if pdConn.GetState() != connectivity.Ready || kvConn.GetState() != connectivity.Ready || dialled.Load() != 2 {
			t.Fatal(pdConn.GetState(), kvConn.GetState(), dialled.Load())
		}
		echo(2)
		if _, err := pdpb.NewPDClient(pdConn).GetMembers(t.Context(), &pdpb.GetMembersRequest{}); err != nil {
			t.Fatal(err)
		}
		if dialled.Load() != 2 {
			t.Fatalf("dialled %d times", dialled.Load())
		}
	})
}

// empty is a batch of Empty commands that ask for echoes of test ids.
func empty(ids ...uint64) *tikvpb.BatchCommandsRequest {
	m := new(tikvpb.BatchCommandsRequest)
	for _, id := range ids {
		m.RequestIds = append(m.RequestIds, id)
		m.Requests = append(m.Requests, &tikvpb.BatchCommandsRequest_Request{
			Cmd: &tikvpb.BatchCommandsRequest_Request_Empty{Empty: &tikvpb.BatchCommandsEmptyRequest{TestId: id}},
		})
	}
	return m
}

// Messages above gRPC's default of 4 MiB pass in both directions.
func TestLargeMessages(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		value := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16)
		ctx, kv := c.at(KeyRaw, "a")
		for _, k := range []string{"a", "b", "c"} {
			p, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: []byte(k), Value: value})
			if err != nil || p.RegionError != nil || p.Error != "" {
				t.Fatal(err)
			}
		}
		s, err := kv.RawScan(t.Context(), &kvrpcpb.RawScanRequest{Context: ctx, Limit: 10})
		if err != nil || len(s.Kvs) != 3 {
			t.Fatal(err)
		}
		for _, kv := range s.Kvs {
			if !bytes.Equal(kv.Value, value) {
				t.Fatalf("%q came back changed", kv.Key)
			}
		}
	})
}

func TestBatchCommands(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		ctx, kv := c.at(KeyRaw, "a")
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const n = 1000
		for part := range 4 {
			m := new(tikvpb.BatchCommandsRequest)
			for i := part * n / 4; i < (part+1)*n/4; i++ {
				m.RequestIds = append(m.RequestIds, uint64(i)+1<<40)
				m.Requests = append(m.Requests, &tikvpb.BatchCommandsRequest_Request{
					Cmd: &tikvpb.BatchCommandsRequest_Request_RawPut{RawPut: &kvrpcpb.RawPutRequest{Context: ctx, Key: fmt.Appendf(nil, "%04d", i), Value: []byte("v")}},
				})
			}
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[uint64]bool)
		for len(seen) < n {
			m, err := stream.Recv()
			if err != nil || len(m.RequestIds) != len(m.Responses) || len(m.Responses) > 128 {
				t.Fatal(m, err)
			}
			for i, id := range m.RequestIds {
				if seen[id] || m.Responses[i].GetRawPut() == nil {
					t.Fatal(id, m.Responses[i])
				}
				seen[id] = true
			}
		}
		// What the server does not know is answered without a command.
		err = stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{5, 6}, Requests: []*tikvpb.BatchCommandsRequest_Request{
			{}, {Cmd: &tikvpb.BatchCommandsRequest_Request_Import{Import: &kvrpcpb.ImportRequest{}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 2; {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range m.Responses {
				if r.Cmd != nil {
					t.Fatal(r)
				}
				got++
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err == nil {
			t.Fatal(m)
		}
	})
}

// Commands of a stream run at the same time and are answered as they end; Empty waits
// as long as it is told.
func TestBatchAnswersOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		stream, err := c.tikv(1).BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := empty(1, 2, 3)
		m.Requests[0].GetEmpty().DelayTime = 5000
		m.Requests[1].GetEmpty().DelayTime = 1000
		m.Requests[2].GetEmpty().DelayTime = 9
		began := time.Now()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			id    uint64
			after time.Duration
		}{{3, 0}, {2, time.Second}, {1, 5 * time.Second}} {
			r, err := stream.Recv()
			if err != nil || len(r.RequestIds) != 1 || r.RequestIds[0] != want.id || r.Responses[0].GetEmpty().TestId != want.id || time.Since(began) != want.after {
				t.Fatal(r, err, time.Since(began))
			}
		}
	})
}

// Health is reported once a second, and when it is asked for.
func TestHealthFeedback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		stream, err := c.tikv(2).BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reports, last := 0, uint64(0)
		turn := func(m *tikvpb.BatchCommandsRequest) {
			t.Helper()
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if h := r.HealthFeedback; h != nil {
				if h.StoreId != 2 || h.FeedbackSeqNo <= last || h.SlowScore != 1 {
					t.Fatal(h)
				}
				if asked := r.Responses[0].GetGetHealthFeedback(); asked != nil && asked.HealthFeedback.GetFeedbackSeqNo() != h.FeedbackSeqNo {
					t.Fatal(asked, h) // it is one report
				}
				reports, last = reports+1, h.FeedbackSeqNo
			}
		}
		for i := range uint64(40) {
			turn(empty(i))
			<-time.After(100 * time.Millisecond)
		}
		if reports != 4 {
			t.Fatalf("%d reports in 4 s", reports)
		}
		for range 3 {
			turn(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{1}, Requests: []*tikvpb.BatchCommandsRequest_Request{{
				Cmd: &tikvpb.BatchCommandsRequest_Request_GetHealthFeedback{GetHealthFeedback: &kvrpcpb.GetHealthFeedbackRequest{}},
			}}})
		}
		if reports != 7 {
			t.Fatalf("%d reports, 3 of them asked for", reports)
		}
	})
}
