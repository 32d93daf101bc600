package mvcc

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is a list of lines "command arguments => answer". Timestamps are numbers, or
// physical times as "5s" or "5s+1" (one logical step later); arguments with a "=" or
// without a place of their own are options. The words are explained by the functions in
// the table below.
type script struct {
	*testing.T
	e      *Engine
	store  storage.Engine
	bounds keys.Range
	ended  []bool
}

func newScript(t *testing.T) *script {
	s := &script{T: t, store: storage.NewMemory()}
	s.e = New(s.store, Config{Ended: func(committed bool) { s.ended = append(s.ended, committed) }})
	return s
}

func (s *script) run(text string) {
	s.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		command, want, ok := strings.Cut(line, "=>")
		if !ok {
			s.Fatalf("no answer in %q", line)
		}
		if got, want := s.do(strings.Fields(command)), strings.TrimSpace(want); got != want {
			s.Errorf("%s\n got %s\nwant %s", command, got, want)
		}
	}
}

func (s *script) do(words []string) string {
	commands := map[string]func(*args) string{
		"prewrite": s.prewrite, "commit": s.commit, "rollback": s.rollback, "status": s.status,
		"heartbeat": s.heartbeat, "secondary": s.secondary, "resolve": s.resolve, "scanlock": s.scanlock,
		"get": s.get, "batchget": s.batchget, "scan": s.scan, "records": s.records, "lock": s.putLock,
		"maxts": s.maxTS, "destroy": s.destroy, "pessimistic": s.pessimisticLock, "unlock": s.pessimisticRollback,
		"flush": s.flush, "buffer": s.buffer, "broadcast": s.broadcast, "ended": s.endings, "held": s.held,
	}
	command := commands[words[0]]
	if command == nil {
		s.Fatalf("what is %q?", words[0])
	}
	a := &args{T: s.T, words: words[1:]}
	got := command(a)
	if len(a.words) > 0 {
		s.Fatalf("%s: what are %q?", words[0], a.words)
	}
	return got
}

type args struct {
	*testing.T
	words []string
}

func (a *args) next() string {
	if len(a.words) == 0 {
		a.Fatal("an argument is missing")
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *args) ts() uint64 { return parseTS(a.T, a.next()) }

func (a *args) key() []byte { return []byte(a.next()) }

// rest returns the remaining words as keys.
func (a *args) rest() (ks [][]byte) {
	for len(a.words) > 0 {
		ks = append(ks, a.key())
	}
	return ks
}

// has takes an option without a value.
func (a *args) has(name string) bool {
	for i, w := range a.words {
		if w == name {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return true
		}
	}
	return false
}

// opt takes the value of an option.
func (a *args) opt(name string) string {
	for i, w := range a.words {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return v
		}
	}
	return ""
}

func (a *args) num(name string) uint64 {
	if v := a.opt(name); v != "" {
		return parseTS(a.T, v)
	}
	return 0
}

func (a *args) list(name string) (list []uint64) {
	if v := a.opt(name); v != "" {
		for _, w := range strings.Split(v, ",") {
			list = append(list, parseTS(a.T, w))
		}
	}
	return list
}

func parseTS(t *testing.T, w string) uint64 {
	t.Helper()
	if w == "max" {
		return maxTS
	}
	sec, logical, timed := strings.Cut(w, "s")
	n, err := strconv.ParseUint(sec, 10, 64)
	if err == nil && timed {
		n = n * 1000 << 18
		if logical != "" {
			var l uint64
			l, err = strconv.ParseUint(logical[1:], 10, 64)
			n += l
		}
	}
	if err != nil {
		t.Fatalf("%q is no timestamp: %v", w, err)
	}
	return n
}

func showTS(ts uint64) string {
	switch {
	case ts == maxTS:
		return "max"
	case ts < 1<<18:
		return strconv.FormatUint(ts, 10)
	}
	text := fmt.Sprintf("%ds", ts>>18/1000)
	if l := ts - ts>>18/1000*1000<<18; l > 0 {
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

// value is what the script writes for one: "x*400" is 400 times x.
func value(text string) []byte {
	if letter, count, ok := strings.Cut(text, "*"); ok {
		if n, err := strconv.Atoi(count); err == nil {
			return []byte(strings.Repeat(letter, n))
		}
	}
	return []byte(text)
}

func showLock(l *kvrpcpb.LockInfo) string {
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
		return fmt.Sprintf("conflict(%v,%s@%s,by %s-%s)", c.Reason, c.Key, showTS(c.StartTs), showTS(c.ConflictTs), showTS(c.ConflictCommitTs))
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

// context takes the options of Context.
func (a *args) context() *kvrpcpb.Context {
	c := &kvrpcpb.Context{ResolvedLocks: a.list("bypass"), CommittedLocks: a.list("access"),
		IsRetryRequest: a.has("retry"), StaleRead: a.has("stale"), ReplicaRead: a.has("replica")}
	if a.has("rc") {
		c.IsolationLevel = kvrpcpb.IsolationLevel_RC
	}
	if a.has("rccheck") {
		c.IsolationLevel = kvrpcpb.IsolationLevel_RCCheckTS
	}
	return c
}

// prewrite START PRIMARY mutation... Options: ttl min fut size level async secondaries 1pc maxcommit.
func (s *script) prewrite(a *args) string {
	req := &kvrpcpb.PrewriteRequest{Context: a.context(), StartVersion: a.ts(), PrimaryLock: a.key(),
		LockTtl: a.num("ttl"), MinCommitTs: a.num("min"), ForUpdateTs: a.num("fut"), TxnSize: a.num("size"),
		AssertionLevel: kvrpcpb.AssertionLevel(a.num("level")), UseAsyncCommit: a.has("async"), TryOnePc: a.has("1pc"),
		MaxCommitTs: a.num("maxcommit")}
	if v := a.opt("secondaries"); v != "" {
		for _, k := range strings.Split(v, ",") {
			req.Secondaries = append(req.Secondaries, []byte(k))
		}
	}
	for len(a.words) > 0 {
		s.mutation(req, a.next())
	}
	resp := s.e.Prewrite(s.Context(), s.bounds, req)
	text := showErrors(resp.Errors)
	if resp.MinCommitTs != 0 {
		text += " min=" + showTS(resp.MinCommitTs)
	}
	if resp.OnePcCommitTs != 0 {
		text += " 1pc=" + showTS(resp.OnePcCommitTs)
	}
	return text
}

// mutation is OP:KEY=VALUE, with suffixes: !exist and !absent assert, @check and
// @constraint are pessimistic actions, @fut:TS what the key's lock must have.
func (s *script) mutation(req *kvrpcpb.PrewriteRequest, word string) {
	m := &kvrpcpb.Mutation{}
	action := kvrpcpb.PrewriteRequest_SKIP_PESSIMISTIC_CHECK
	parts := strings.Split(word, "@")
	for _, p := range parts[1:] {
		switch p {
		case "check":
			action = kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK
		case "constraint":
			action = kvrpcpb.PrewriteRequest_DO_CONSTRAINT_CHECK
		default:
			req.ForUpdateTsConstraints = append(req.ForUpdateTsConstraints, &kvrpcpb.PrewriteRequest_ForUpdateTSConstraint{
				Index: uint32(len(req.Mutations)), ExpectedForUpdateTs: parseTS(s.T, strings.TrimPrefix(p, "fut:"))})
		}
	}
	word = parts[0]
	word, exist := strings.CutSuffix(word, "!exist")
	word, absent := strings.CutSuffix(word, "!absent")
	switch {
	case exist:
		m.Assertion = kvrpcpb.Assertion_Exist
	case absent:
		m.Assertion = kvrpcpb.Assertion_NotExist
	}
	op, rest, _ := strings.Cut(word, ":")
	key, v, _ := strings.Cut(rest, "=")
	m.Key, m.Value = []byte(key), value(v)
	m.Op = map[string]kvrpcpb.Op{"put": kvrpcpb.Op_Put, "del": kvrpcpb.Op_Del, "lock": kvrpcpb.Op_Lock,
		"insert": kvrpcpb.Op_Insert, "cne": kvrpcpb.Op_CheckNotExists, "shared": kvrpcpb.Op_SharedLock}[op]
	req.Mutations = append(req.Mutations, m)
	if req.ForUpdateTs != 0 {
		req.PessimisticActions = append(req.PessimisticActions, action)
	}
}

// commit START COMMIT key...
func (s *script) commit(a *args) string {
	resp := s.e.Commit(s.Context(), s.bounds, &kvrpcpb.CommitRequest{StartVersion: a.ts(), CommitVersion: a.ts(), Keys: a.rest()})
	return showError(resp.Error)
}

// rollback START key...
func (s *script) rollback(a *args) string {
	resp := s.e.BatchRollback(s.Context(), s.bounds, &kvrpcpb.BatchRollbackRequest{StartVersion: a.ts(), Keys: a.rest()})
	return showError(resp.Error)
}

// status PRIMARY START. Options: caller now rollback resolving verify force.
func (s *script) status(a *args) string {
	resp := s.e.CheckTxnStatus(s.Context(), s.bounds, &kvrpcpb.CheckTxnStatusRequest{PrimaryKey: a.key(), LockTs: a.ts(),
		CallerStartTs: a.num("caller"), CurrentTs: a.num("now"), RollbackIfNotExist: a.has("rollback"),
		ResolvingPessimisticLock: a.has("resolving"), VerifyIsPrimary: a.has("verify"), ForceSyncCommit: a.has("force")})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	text := resp.Action.String()
	if resp.CommitVersion != 0 {
		text += " committed=" + showTS(resp.CommitVersion)
	}
	if resp.LockInfo != nil {
		text += " " + showLock(resp.LockInfo)
		if resp.LockTtl != resp.LockInfo.LockTtl {
			text += " with another TTL"
		}
	}
	return text
}

// heartbeat PRIMARY START TTL
func (s *script) heartbeat(a *args) string {
	resp := s.e.TxnHeartBeat(s.Context(), s.bounds, &kvrpcpb.TxnHeartBeatRequest{PrimaryLock: a.key(), StartVersion: a.ts(), AdviseLockTtl: a.ts(), MinCommitTs: a.num("min")})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	return fmt.Sprintf("ttl=%d", resp.LockTtl)
}

// secondary START key...
func (s *script) secondary(a *args) string {
	resp := s.e.CheckSecondaryLocks(s.Context(), s.bounds, &kvrpcpb.CheckSecondaryLocksRequest{StartVersion: a.ts(), Keys: a.rest()})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	var all []string
	for _, l := range resp.Locks {
		all = append(all, showLock(l))
	}
	return fmt.Sprintf("%v commit=%s", all, showTS(resp.CommitTs))
}

// resolve START COMMIT [key...], or resolve 0 START=COMMIT...
func (s *script) resolve(a *args) string {
	req := &kvrpcpb.ResolveLockRequest{StartVersion: a.ts()}
	if req.StartVersion != 0 {
		req.CommitVersion, req.Keys = a.ts(), a.rest()
	}
	for len(a.words) > 0 {
		start, commit, _ := strings.Cut(a.next(), "=")
		req.TxnInfos = append(req.TxnInfos, &kvrpcpb.TxnInfo{Txn: parseTS(s.T, start), Status: parseTS(s.T, commit)})
	}
	return showError(s.e.ResolveLock(s.Context(), s.bounds, req).Error)
}

// scanlock MAX. Options: start end limit.
func (s *script) scanlock(a *args) string {
	resp := s.e.ScanLock(s.Context(), s.bounds, &kvrpcpb.ScanLockRequest{MaxVersion: a.ts(), StartKey: []byte(a.opt("start")),
		EndKey: []byte(a.opt("end")), Limit: uint32(a.num("limit"))})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	var all []string
	for _, l := range resp.Locks {
		all = append(all, showLock(l))
	}
	return fmt.Sprint(all)
}

// get KEY TS. Options: those of a context, committs.
func (s *script) get(a *args) string {
	resp := s.e.Get(s.Context(), s.bounds, &kvrpcpb.GetRequest{Context: a.context(), NeedCommitTs: a.has("committs"), Key: a.key(), Version: a.ts()})
	switch {
	case resp.Error != nil:
		return showError(resp.Error)
	case resp.NotFound:
		return "absent"
	case resp.CommitTs != 0:
		return "=" + showValue(resp.Value) + "@" + showTS(resp.CommitTs)
	}
	return "=" + showValue(resp.Value)
}

// batchget TS key...
func (s *script) batchget(a *args) string {
	resp := s.e.BatchGet(s.Context(), s.bounds, &kvrpcpb.BatchGetRequest{Context: a.context(), NeedCommitTs: a.has("committs"), Version: a.ts(), Keys: a.rest()})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	return showPairs(resp.Pairs)
}

// scan TS. Options: start end limit (default 100) sample reverse keys, and a context's.
func (s *script) scan(a *args) string {
	req := &kvrpcpb.ScanRequest{Context: a.context(), Version: a.ts(), StartKey: []byte(a.opt("start")), EndKey: []byte(a.opt("end")),
		Limit: uint32(a.num("limit")), SampleStep: uint32(a.num("sample")), Reverse: a.has("reverse"), KeyOnly: a.has("keys")}
	if req.Limit == 0 {
		req.Limit = 100
	}
	resp := s.e.Scan(s.Context(), s.bounds, req)
	if resp.Error != nil {
		if len(resp.Pairs) != 1 || resp.Pairs[0].Error == nil {
			return "no error pair"
		}
		return showError(resp.Error)
	}
	return showPairs(resp.Pairs)
}

// records KEY: its lock, its write records as commitKINDstart, its long values.
func (s *script) records(a *args) string {
	resp := s.e.MvccGetByKey(s.Context(), s.bounds, &kvrpcpb.MvccGetByKeyRequest{Key: a.key()})
	if resp.Error != "" {
		return resp.Error
	}
	var all []string
	if l := resp.Info.Lock; l != nil {
		all = append(all, fmt.Sprintf("lock:%v@%s", l.Type, showTS(l.StartTs)))
	}
	for _, w := range resp.Info.Writes {
		text := fmt.Sprintf("%s:%v@%s", showTS(w.CommitTs), w.Type, showTS(w.StartTs))
		if len(w.ShortValue) > 0 {
			text += "=" + showValue(w.ShortValue)
		}
		if w.HasOverlappedRollback {
			text += "+R"
		}
		if w.HasGcFence {
			text += fmt.Sprintf("+F%s", showTS(w.GcFence))
		}
		all = append(all, text)
	}
	for _, v := range resp.Info.Values {
		all = append(all, fmt.Sprintf("value@%s=%s", showTS(v.StartTs), showValue(v.Value)))
	}
	return strings.Join(all, " ")
}

// lock KEY START PRIMARY stores a lock that no request here makes. Options: kind (a
// letter) ttl min fut value async conflict secondaries.
func (s *script) putLock(a *args) string {
	enc := keys.Encode(a.key())
	l := &lock{ts: a.ts(), primary: a.key(), kind: lockPut, ttl: a.num("ttl"), minCommitTS: a.num("min"),
		forUpdateTS: a.num("fut"), asyncCommit: a.has("async"), withConflict: a.has("conflict")}
	if k := a.opt("kind"); k != "" {
		l.kind = lockKind(k[0])
	}
	if l.kind == lockPut {
		l.short = append([]byte{}, a.opt("value")...)
	}
	if v := a.opt("secondaries"); v != "" {
		for _, k := range strings.Split(v, ",") {
			l.secondaries = append(l.secondaries, []byte(k))
		}
	}
	var b storage.Batch
	b.Put(storage.Lock, enc, l.encode())
	if err := s.store.Apply(&b); err != nil {
		return err.Error()
	}
	return "ok"
}

func (s *script) maxTS(*args) string { return showTS(s.e.MaxTS()) }

// destroy START END: KvDeleteRange; with everywhere UnsafeDestroyRange.
func (s *script) destroy(a *args) string {
	everywhere, notify := a.has("everywhere"), a.has("notify")
	start, end := a.key(), a.key()
	if everywhere {
		return "." + s.e.UnsafeDestroyRange(s.Context(), &kvrpcpb.UnsafeDestroyRangeRequest{StartKey: start, EndKey: end}).Error
	}
	resp := s.e.DeleteRange(s.Context(), s.bounds, &kvrpcpb.DeleteRangeRequest{StartKey: start, EndKey: end, NotifyOnly: notify})
	return "." + strings.Split(resp.Error, ",")[0]
}
