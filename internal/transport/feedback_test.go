package transport

import (
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// TestFeedback: a callback that does not return holds up no answer, and hears the newest
// of each store afterwards, and not what two streams brought in the wrong order.
func TestFeedback(t *testing.T) {
	var heard chan *kvrpcpb.HealthFeedback
	feedback := func(store, seq uint64, score int32) *kvrpcpb.HealthFeedback {
		return &kvrpcpb.HealthFeedback{StoreId: store, FeedbackSeqNo: seq, SlowScore: score}
	}
	sent := []*kvrpcpb.HealthFeedback{feedback(1, 10, 1), feedback(1, 11, 20), nil, feedback(1, 13, 80), feedback(1, 12, 50), feedback(2, 5, 100)}
	inBubble(t, Config{OnFeedback: func(f *kvrpcpb.HealthFeedback) { heard <- f }}, func(t *testing.T, n *network, p *Pool) {
		heard = make(chan *kvrpcpb.HealthFeedback) // in the bubble
		n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
			for i := 0; ; i++ {
				in, err := s.Recv()
				if err != nil {
					return err
				}
				out := &tikvpb.BatchCommandsResponse{RequestIds: in.RequestIds, HealthFeedback: sent[i]}
				for _, r := range in.Requests {
					out.Responses = append(out.Responses, answer(r))
				}
				if err := s.Send(out); err != nil {
					return err
				}
			}
		}})
		for range sent {
			wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
			synctest.Wait()
		}
		got := map[uint64][]uint64{}
		for range 3 {
			f := <-heard
			got[f.StoreId] = append(got[f.StoreId], f.FeedbackSeqNo)
		}
		synctest.Wait()
		if len(got[1]) != 2 || got[1][0] != 10 || got[1][1] != 13 || len(got[2]) != 1 {
			t.Error(got)
		}
		p.hear([]byte{0xff}) // nonsense
		select {
		case f := <-heard:
			t.Error(f)
		default:
		}
	})
}
