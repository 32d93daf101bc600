package txn

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/transport"
)

// Where garbage collection may have taken the record of a commit, only the record itself
// is believed.
func TestOutcomeBehindTheSafePoint(t *testing.T) {
	for _, tt := range []struct {
		answer *kvrpcpb.CheckTxnStatusResponse
		safe   uint64
		commit uint64
		tooOld bool
	}{
		{&kvrpcpb.CheckTxnStatusResponse{CommitVersion: at(110)}, 0, at(110), false},
		{&kvrpcpb.CheckTxnStatusResponse{CommitVersion: at(110)}, at(150), at(110), false},
		{&kvrpcpb.CheckTxnStatusResponse{Action: kvrpcpb.Action_LockNotExistRollback}, at(100), 0, false},
		{&kvrpcpb.CheckTxnStatusResponse{Action: kvrpcpb.Action_LockNotExistRollback}, at(101), 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{now: 1000, safe: tt.safe, answers: []scripted{{name: "Check", do: func(*fake, transport.Message) (transport.Response, error) {
				return tt.answer, nil
			}}}}
			e, _ := newEngine(t, f)
			ts, err := e.Outcome(t.Context(), "test", CallOptions{}, Inquiry{StartTS: at(100), Primary: []byte("a")})
			var old *TooOld
			if ts != tt.commit || errors.As(err, &old) != tt.tooOld || !tt.tooOld && err != nil {
				t.Errorf("%+v: %d, %v", tt, ts, err)
			}
		})
	}
}

// A transaction that PD has not begun is not asked for: it would be rolled back.
func TestOutcomeOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{now: 100}
		e, _ := newEngine(t, f)
		_, err := e.Outcome(t.Context(), "test", CallOptions{}, Inquiry{StartTS: at(200), Primary: []byte("a")})
		var future *Future
		if !errors.As(err, &future) || len(f.log) != 0 {
			t.Fatal(err, f.log)
		}
	})
}
