package transport

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
)

// peerVariable tells the test binary to be the server of the benchmarks, so that what
// they count is the client alone.
const peerVariable = "TIKV_GO_TRANSPORT_PEER"

func TestBenchmarkPeer(t *testing.T) {
	if os.Getenv(peerVariable) == "" {
		t.Skip("the server of the benchmarks, in a process of its own")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &store{batch: echo(nil), Server: grpc.NewServer(grpc.ForceServerCodecV2(grpcCodec{&buffers{}}))}
	tikvpb.RegisterTikvServer(s.Server, s)
	fmt.Println("listening on", l.Addr())
	go func() { // ends with its parent
		for in := bufio.NewReader(os.Stdin); ; {
			if _, err := in.ReadByte(); err != nil {
				s.Server.Stop()
				return
			}
		}
	}()
	if err := s.Server.Serve(l); err != nil {
		t.Fatal(err)
	}
}

func startPeer(b *testing.B) string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchmarkPeer$", "-test.v")
	cmd.Env = append(os.Environ(), peerVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, addr, ok := strings.Cut(lines.Text(), "listening on "); ok {
			return addr
		}
	}
	b.Fatal("no peer")
	return ""
}

// BenchmarkRawGet is a round trip over TCP by several callers at once.
func BenchmarkRawGet(b *testing.B) {
	peer := startPeer(b)
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			p := New(Config{})
			defer p.Close()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			newRequest := func() *kvrpcpb.RawGetRequest {
				return &kvrpcpb.RawGetRequest{
					Key: make([]byte, 24),
					Context: &kvrpcpb.Context{RegionId: 2, RegionEpoch: &metapb.RegionEpoch{Version: 1, ConfVer: 1},
						Peer: &metapb.Peer{Id: 3, StoreId: 1}},
				}
			}
			if _, err := ask(ctx, p, peer, newRequest()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, callers)
			for range callers {
				go func() {
					req := newRequest()
					for left.Add(-1) >= 0 {
						if _, err := ask(ctx, p, peer, req); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
