package mvcc

import (
	"fmt"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"strconv"
	"strings"
)

func showTS(ts uint64) string {
	switch {
	case ts == maxTS:
		return "max"
	case ts < 1<<18:
		return strconv.FormatUint(ts, 10)
	}
	text := fmt.Sprintf("%dms", ts>>18)
	if ts>>18%1000 == 0 {
		text = fmt.Sprintf("%ds", ts>>18/1000)
	}
	if l := ts & (1<<18 - 1); l > 0 {
		text += fmt.Sprintf("+%d", l)
	}
	return text
}

func showValue(v []byte) string {
	if len(v) > 100 {
		return fmt.Sprintf("%c*%d", v[0], len(v))
	}
	return string(v)
}

func showLock(l *kvrpcpb.LockInfo) string {
	if l.LockType == kvrpcpb.Op_SharedLock {
		var all []string
		for _, h := range l.SharedLockInfos {
			all = append(all, strings.TrimPrefix(showLock(h), string(l.Key)+":"))
		}
		return fmt.Sprintf("%s:%v", l.Key, all)
	}
	text := fmt.Sprintf("%s:%v@%s", l.Key, l.LockType, showTS(l.LockVersion))
	if string(l.PrimaryLock) != string(l.Key) {
		text += fmt.Sprintf("/%s", l.PrimaryLock)
	}
	if l.LockTtl != 0 {
		text += fmt.Sprintf(",ttl=%d", l.LockTtl)
	}
	if l.MinCommitTs != 0 {
		text += ",min=" + showTS(l.MinCommitTs)
	}
	if l.LockForUpdateTs != 0 {
		text += ",fut=" + showTS(l.LockForUpdateTs)
	}
	if l.TxnSize != 0 {
		text += ",size=" + showTS(l.TxnSize)
	}
	if l.DurationToLastUpdateMs != 0 {
		text += fmt.Sprintf(",updated=%dms", l.DurationToLastUpdateMs)
	}
	if l.UseAsyncCommit {
		text += fmt.Sprintf(",async%q", l.Secondaries)
	}
	return text
}

func showError(e *kvrpcpb.KeyError) string {
	switch {
	case e == nil:
		return "ok"
	case e.Locked != nil:
		return "locked(" + showLock(e.Locked) + ")"
	case e.Conflict != nil:
		c := e.Conflict
		if !strings.HasPrefix(e.Retryable, "Error(Txn(Error(Mvcc(Error(WriteConflict {") && c.Reason != kvrpcpb.WriteConflict_RcCheckTs {
			return "conflict without text"
		}
		return fmt.Sprintf("conflict(%v,%s@%s,by %s-%s)", c.Reason, showKey(c.Key), showTS(c.StartTs), showTS(c.ConflictTs), showTS(c.ConflictCommitTs))
	case e.AlreadyExist != nil:
		return fmt.Sprintf("exists(%s)", e.AlreadyExist.Key)
	case e.TxnLockNotFound != nil:
		if !strings.Contains(e.Retryable, "TxnLockNotFound { start_ts: TimeStamp(") {
			return "lock not found without text"
		}
		return fmt.Sprintf("locknotfound(%s)", e.TxnLockNotFound.Key)
	case e.TxnNotFound != nil:
		return fmt.Sprintf("txnnotfound(%s@%s)", e.TxnNotFound.PrimaryKey, showTS(e.TxnNotFound.StartTs))
	case e.CommitTsExpired != nil:
		c := e.CommitTsExpired
		return fmt.Sprintf("expired(%s@%s,%s<%s)", c.Key, showTS(c.StartTs), showTS(c.AttemptedCommitTs), showTS(c.MinCommitTs))
	case e.AssertionFailed != nil:
		f := e.AssertionFailed
		return fmt.Sprintf("assertion(%s,%v,%s-%s)", f.Key, f.Assertion, showTS(f.ExistingStartTs), showTS(f.ExistingCommitTs))
	case e.Deadlock != nil:
		d := e.Deadlock
		text := fmt.Sprintf("deadlock(%s@%s", d.LockKey, showTS(d.LockTs))
		for _, w := range d.WaitChain {
			text += fmt.Sprintf(",%s-%s->%s", showTS(w.Txn), w.Key, showTS(w.WaitForTxn))
			if w.KeyHash != lockwait.Hash(w.Key) {
				text += " with another hash"
			}
			if w.KeyHash == d.DeadlockKeyHash {
				text += "#"
			}
		}
		return text + ")"
	case e.PrimaryMismatch != nil:
		return "mismatch(" + showLock(e.PrimaryMismatch.LockInfo) + ")"
	}
	text := e.Abort
	for _, wrap := range []string{"Error(", "Txn(", "Error(", "Mvcc(", "Error("} {
		text = strings.TrimPrefix(text, wrap)
	}
	name, _, _ := strings.Cut(text, " ")
	if i := strings.Index(text, "reason: "); i >= 0 {
		name += "/" + strings.TrimRight(text[i+8:], " })")
	}
	return "abort(" + strings.TrimRight(name, ")") + ")"
}

func showErrors(es []*kvrpcpb.KeyError) string {
	if len(es) == 0 {
		return "ok"
	}
	var all []string
	for _, e := range es {
		all = append(all, showError(e))
	}
	return strings.Join(all, " ")
}

func showPairs(pairs []*kvrpcpb.KvPair) string {
	all := []string{}
	for _, p := range pairs {
		switch {
		case p.Error != nil:
			all = append(all, showError(p.Error))
		case p.CommitTs != 0:
			all = append(all, fmt.Sprintf("%s=%s@%s", p.Key, showValue(p.Value), showTS(p.CommitTs)))
		default:
			all = append(all, fmt.Sprintf("%s=%s", p.Key, showValue(p.Value)))
		}
	}
	return "[" + strings.Join(all, " ") + "]"
}

func orNothing(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, " ")
}

func orOK(err string) string {
	if err == "" {
		return "ok"
	}
	return strings.Split(err, ",")[0]
}

// showKey is a key as the request had it: one error has it as it is stored, with the
// timestamp of a record.
func showKey(k []byte) string {
	if enc, ts, err := splitVersion(k); err == nil {
		if raw, rest, err := keys.Decode(enc); err == nil && len(rest) == 0 {
			return string(raw) + "#" + showTS(ts)
		}
	}
	return string(k)
}

// showWork is what an answer tells of the work that was done for it, if the script asks:
// moves among the write records, values found, their size with their keys, and what the
// request is charged for, keys read and bytes to write.
func showWork(asked bool, d *kvrpcpb.ExecDetailsV2) string {
	if !asked {
		return ""
	}
	s, ru := d.GetScanDetailV2(), d.GetRuV2()
	text := fmt.Sprintf(" total=%d processed=%d size=%d", s.GetTotalVersions(), s.GetProcessedVersions(), s.GetProcessedVersionsSize())
	if n := ru.GetStorageProcessedKeysGet() + ru.GetStorageProcessedKeysBatchGet(); n > 0 {
		text += fmt.Sprintf(" keys=%d", n)
	}
	if n := ru.GetRaftstoreStoreWriteTriggerWbBytes(); n > 0 {
		text += fmt.Sprintf(" bytes=%d", n)
	}
	return text
}
