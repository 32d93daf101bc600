package transport

import (
	"context"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// TestCompression: with a server that compresses its answers, calls of all kinds go both
// ways, and a server that does not is understood as well. PD is spoken to as always.
func TestCompression(t *testing.T) {
	for name, opts := range map[string][]grpc.ServerOption{
		"both ways": {grpc.RPCDecompressor(grpc.NewGZIPDecompressor()), grpc.RPCCompressor(grpc.NewGZIPCompressor())}, //lint:ignore SA1019 as the client's
		"one way":   {grpc.RPCDecompressor(grpc.NewGZIPDecompressor())},                                               //lint:ignore SA1019 as the client's
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{StoreOptions: []grpc.DialOption{
				grpc.WithCompressor(grpc.NewGZIPCompressor()), grpc.WithDecompressor(grpc.NewGZIPDecompressor()), //lint:ignore SA1019 what WithCompression gives
			}}
			inBubble(t, cfg, func(t *testing.T, n *network, p *Pool) {
				accepts := func(ctx context.Context) {
					md, _ := metadata.FromIncomingContext(ctx)
					if !strings.Contains(strings.Join(md.Get("grpc-accept-encoding"), ","), "gzip") {
						t.Errorf("accepts %q", md.Get("grpc-accept-encoding"))
					}
				}
				s := &streamer{cop: func(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
					return out.Send(&coprocessor.Response{Data: r.Data})
				}}
				s.batch = func(b tikvpb.Tikv_BatchCommandsServer) error { accepts(b.Context()); return echo(nil)(b) }
				s.unary.cas = func(ctx context.Context, r *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
					accepts(ctx)
					return &kvrpcpb.RawCASResponse{PreviousValue: r.Value}, nil
				}
				s.implementation = s
				n.serve(t, addr, &s.store, opts...)
				long := strings.Repeat("long ", 10_000)
				for range 3 {
					wantValue(t, <-start(t.Context(), p, rawGet(long)), long)
					resp, err := ask(t.Context(), p, addr, &kvrpcpb.RawCASRequest{Value: []byte(long)})
					if err != nil || string(resp.(*kvrpcpb.RawCASResponse).PreviousValue) != long {
						t.Fatal(err)
					}
				}
				if page, err := recv(mustAskCop(t, t.Context(), p, Target{Addr: addr})); err != nil || page != "d" {
					t.Fatal(page, err)
				}
			})
		})
	}
	inBubble(t, Config{StoreOptions: []grpc.DialOption{grpc.WithCompressor(grpc.NewGZIPCompressor())}}, //lint:ignore SA1019 as above
		func(t *testing.T, n *network, p *Pool) {
			n.serve(t, addr, &store{batch: mute})
			conn, err := p.Conn(addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tikvpb.NewTikvClient(conn).GetStoreSafeTS(t.Context(), &kvrpcpb.StoreSafeTSRequest{}); err != nil {
				t.Fatal(err)
			}
		})
}
