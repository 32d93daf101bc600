package store

import (
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage"
)

// An inverted range is refused as such, wherever it is, and that by a region error of no
// kind; the end of a transactional one is never missing (TiKV components/raftstore/src/
// store/fsm/apply.rs, handle_delete_range).
func TestInvertedRanges(t *testing.T) {
	s, rctx, tasks := bare(t, storage.NewMemory())
	defer tasks.Close(nil)
	for _, c := range []struct {
		start, end string
		raw, txn   bool // refused
	}{
		{"a", "b", false, false}, {"b", "b", true, true}, {"b", "a", true, true}, {"a", "", false, true}, {"", "", false, true},
	} {
		for req, refused := range map[request]bool{
			&kvrpcpb.RawDeleteRangeRequest{Context: rctx, StartKey: []byte(c.start), EndKey: []byte(c.end)}: c.raw,
			&kvrpcpb.DeleteRangeRequest{Context: rctx, StartKey: []byte(c.start), EndKey: []byte(c.end)}:    c.txn,
		} {
			answer := s.handle(t.Context(), s.commands.of(req), req).(interface {
				GetRegionError() *errorpb.Error
				GetError() string
			})
			e := answer.GetRegionError()
			if answer.GetError() != "" || refused != strings.HasPrefix(e.GetMessage(), "invalid delete range command") ||
				(e != nil) != refused || e.GetKeyNotInRegion() != nil {
				t.Errorf("%q %q: %v", c.start, c.end, answer)
			}
		}
	}
}
