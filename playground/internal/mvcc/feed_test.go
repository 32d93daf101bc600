package mvcc

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/cdcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// delta AFTER: what a change feed finds. Options: start end.
func (s *script) delta(a *args) string {
	in := keys.Range{}
	if start := a.opt("start"); start != "" {
		in.Start = keys.Encode([]byte(start))
	}
	if end := a.opt("end"); end != "" {
		in.End = keys.Encode([]byte(end))
	}
	snap := s.store.Snapshot()
	defer snap.Close()
	var all []string
	for row, err := range Delta(snap, in, a.ts()) {
		if err != nil {
			return err.Error()
		}
		all = append(all, showRow(row))
	}
	return fmt.Sprint(all)
}

func showRow(row *Row) string {
	text := fmt.Sprintf("%s:%v@%s", row.Key, row.OpType, showTS(row.StartTs))
	if row.Type == cdcpb.Event_COMMITTED {
		text += "-" + showTS(row.CommitTs)
	}
	if row.OpType == cdcpb.Event_Row_PUT {
		text += "=" + showValue(row.Value)
	}
	if len(row.OldValue) > 0 {
		text += "<" + showValue(row.OldValue)
	}
	return text
}
