package transport

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/metadata"
)

// passedOn is what the metadata of a call says.
func passedOn(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get(forwardKey), ",")
}

// TestForwarding: calls to different stores through one do not share a stream, and carry
// whom they are for; what no store passes on is not sent.
func TestForwarding(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		var mu sync.Mutex
		var streams []string
		s := n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
			mu.Lock()
			streams = append(streams, passedOn(s.Context()))
			mu.Unlock()
			return echo(nil)(s)
		}})
		var singles []string
		s.unary.cas = func(ctx context.Context, _ *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			singles = append(singles, passedOn(ctx))
			return &kvrpcpb.RawCASResponse{}, nil
		}
		targets := []Target{{Addr: addr}, {Addr: addr, Forward: "store2:20160"}, {Addr: addr, Forward: "store3:20160"}}
		for i := range 3 * len(targets) {
			to := targets[i%len(targets)]
			var resp kvrpcpb.RawGetResponse
			if err := p.Call(t.Context(), to, rawGet(fmt.Sprint(i)), &resp); err != nil || string(resp.Value) != fmt.Sprint(i) {
				t.Fatal(&resp, err)
			}
			if err := p.Call(t.Context(), to, &kvrpcpb.RawCASRequest{}, &kvrpcpb.RawCASResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"", "store2:20160", "store3:20160"}; !slices.Equal(streams, want) || !slices.Equal(singles, slices.Repeat(want, 3)) {
			t.Errorf("streams %q, single calls %q", streams, singles)
		}
		err := p.Call(t.Context(), targets[1], &kvrpcpb.StoreSafeTSRequest{}, &kvrpcpb.StoreSafeTSResponse{})
		wantError(t, err, Refused, false, ErrNotForwarded)
		_, err = askCop(t.Context(), p, targets[1])
		wantError(t, err, Refused, false, ErrNotForwarded)

		// A store that is dropped is so in its relations too.
		p.Drop("store2:20160")
		if all := *p.endpoints.Load(); len(all) != 2 {
			t.Error(all)
		}
		p.Drop(addr)
		if all := *p.endpoints.Load(); len(all) != 0 {
			t.Error(all)
		}
	})
}

// TestEveryCommandStays: the names of those that are not forwarded are names.
func TestEveryCommandStays(t *testing.T) {
	known := 0
	for _, c := range newCommands() {
		if c.stays {
			known++
		}
		if c.stays && c.number != 0 {
			t.Errorf("%s is batched, and so forwarded with its stream", c.method)
		}
	}
	if known != len(notForwarded) {
		t.Errorf("%d of %d are commands", known, len(notForwarded))
	}
}
