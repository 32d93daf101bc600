package mvcc

import (
	"fmt"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"strings"
)

// prewrite START PRIMARY mutation... Options: ttl min fut size level async secondaries 1pc maxcommit.
func (s *script) prewrite(a *args) string {
	stat := a.has("stat")
	req := &kvrpcpb.PrewriteRequest{Context: a.context(), StartVersion: a.ts(), PrimaryLock: a.key(),
		LockTtl: a.num("ttl"), MinCommitTs: a.num("min"), ForUpdateTs: a.num("fut"), TxnSize: a.num("size"),
		AssertionLevel: kvrpcpb.AssertionLevel(a.num("level")), UseAsyncCommit: a.has("async"), TryOnePc: a.has("1pc"),
		MaxCommitTs: a.num("maxcommit"), SkipConstraintCheck: a.has("skipcheck")}
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
	return text + showWork(stat, resp.ExecDetailsV2)
}

// mutation takes a word, see oneMutation; one of "k#3" is three, of k0000 to k0002.
func (s *script) mutation(req *kvrpcpb.PrewriteRequest, word string) {
	for _, w := range expand(word) {
		s.oneMutation(req, w)
	}
}

// oneMutation is OP:KEY=VALUE, with suffixes: !exist and !absent assert, @check and
// @constraint are pessimistic actions, @fut:TS what the key's lock must have.
func (s *script) oneMutation(req *kvrpcpb.PrewriteRequest, word string) {
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

// txn START COMMIT PRIMARY mutation...: an optimistic prewrite, and the commit of its keys.
func (s *script) txn(a *args) string {
	req := &kvrpcpb.PrewriteRequest{StartVersion: a.ts()}
	commit := &kvrpcpb.CommitRequest{StartVersion: req.StartVersion, CommitVersion: a.ts()}
	req.PrimaryLock = a.key()
	for len(a.words) > 0 {
		s.mutation(req, a.next())
		commit.Keys = append(commit.Keys, req.Mutations[len(req.Mutations)-1].Key)
	}
	if resp := s.e.Prewrite(s.Context(), s.bounds, req); len(resp.Errors) > 0 {
		return showErrors(resp.Errors)
	}
	return showError(s.e.Commit(s.Context(), s.bounds, commit).Error)
}

// history KIND KEY FROM TO: a transaction at every second timestamp from FROM up to TO,
// that puts its own start as the value, or locks the key, and commits one later; or (KIND
// rollback) is rolled back, protected.
func (s *script) history(a *args) string {
	kind, k := a.next(), a.next()
	for ts, to := a.ts(), a.ts(); ts <= to; ts += 2 {
		command := fmt.Sprintf("txn %d %d %s %s:%s=%d", ts, ts+1, k, kind, k, ts)
		want := "ok"
		if kind == "rollback" {
			command, want = fmt.Sprintf("status %s %d rollback", k, ts), "LockNotExistRollback"
		}
		if got := s.do(strings.Fields(command)); got != want {
			return got
		}
	}
	return "ok"
}

// commit START COMMIT key...
func (s *script) commit(a *args) string {
	stat := a.has("stat")
	resp := s.e.Commit(s.Context(), s.bounds, &kvrpcpb.CommitRequest{StartVersion: a.ts(), CommitVersion: a.ts(), Keys: a.rest()})
	return showError(resp.Error) + showWork(stat, resp.ExecDetailsV2)
}

// rollback START key...
func (s *script) rollback(a *args) string {
	stat := a.has("stat")
	resp := s.e.BatchRollback(s.Context(), s.bounds, &kvrpcpb.BatchRollbackRequest{StartVersion: a.ts(), Keys: a.rest()})
	return showError(resp.Error) + showWork(stat, resp.ExecDetailsV2)
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
	stat := a.has("stat")
	resp := s.e.Get(s.Context(), s.bounds, &kvrpcpb.GetRequest{Context: a.context(), NeedCommitTs: a.has("committs"), Key: a.key(), Version: a.ts()})
	switch {
	case resp.Error != nil:
		return showError(resp.Error)
	case resp.NotFound:
		return "absent" + showWork(stat, resp.ExecDetailsV2)
	case resp.CommitTs != 0:
		return "=" + showValue(resp.Value) + "@" + showTS(resp.CommitTs) + showWork(stat, resp.ExecDetailsV2)
	}
	return "=" + showValue(resp.Value) + showWork(stat, resp.ExecDetailsV2)
}

// batchget TS key...
func (s *script) batchget(a *args) string {
	stat := a.has("stat")
	resp := s.e.BatchGet(s.Context(), s.bounds, &kvrpcpb.BatchGetRequest{Context: a.context(), NeedCommitTs: a.has("committs"), Version: a.ts(), Keys: a.rest()})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	return showPairs(resp.Pairs) + showWork(stat, resp.ExecDetailsV2)
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

// records KEY: its lock, its write records as COMMIT:KIND@START, its long values.
func (s *script) records(a *args) string {
	resp := s.e.MvccGetByKey(s.Context(), s.bounds, &kvrpcpb.MvccGetByKeyRequest{Key: a.key()})
	if resp.Error != "" {
		return resp.Error
	}
	return showRecords(resp.Info)
}

// bystart START: the first key that has a record of the transaction, and its records.
func (s *script) byStart(a *args) string {
	resp := s.e.MvccGetByStartTs(s.Context(), s.bounds, &kvrpcpb.MvccGetByStartTsRequest{StartTs: a.ts()})
	switch {
	case resp.Error != "":
		return resp.Error
	case len(resp.Key) == 0:
		return "nothing"
	}
	return string(resp.Key) + " " + showRecords(resp.Info)
}

func showRecords(info *kvrpcpb.MvccInfo) string {
	var all []string
	if l := info.Lock; l != nil {
		all = append(all, fmt.Sprintf("lock:%v@%s", l.Type, showTS(l.StartTs)))
	}
	for _, w := range info.Writes {
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
	for _, v := range info.Values {
		all = append(all, fmt.Sprintf("value@%s=%s", showTS(v.StartTs), showValue(v.Value)))
	}
	return orNothing(all)
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
	return s.apply(&b)
}

// record KEY COMMIT KIND@START stores a write record that no request here makes. Options:
// value, fence (0: one without a next version), overlapped.
func (s *script) putRecord(a *args) string {
	enc, commitTS := keys.Encode(a.key()), a.ts()
	kind, start, _ := strings.Cut(a.next(), "@")
	w := &write{kind: writeKind(kind[0]), startTS: parseTS(s.T, start), overlapped: a.has("overlapped")}
	if v := a.opt("value"); v != "" {
		w.short = []byte(v)
	}
	if v := a.opt("fence"); v != "" {
		w.fenced, w.fence = true, parseTS(s.T, v)
	}
	var b storage.Batch
	b.Put(storage.Write, at(enc, commitTS), w.encode())
	return s.apply(&b)
}

// collect KEY COMMIT removes a write record, as garbage collection does.
func (s *script) collect(a *args) string {
	var b storage.Batch
	b.Delete(storage.Write, at(keys.Encode(a.key()), a.ts()))
	return s.apply(&b)
}

func (s *script) apply(b *storage.Batch) string {
	if err := s.store.Apply(b); err != nil {
		return err.Error()
	}
	return "ok"
}

// memory KEY START PRIMARY puts a lock in memory only, as a command has it there that
// writes it; memory KEY gone. Options: kind (a letter) min ttl.
func (s *script) memory(a *args) string {
	k, m := keyOf(a.key()), s.e.manager
	if a.has("gone") {
		m.release([]key{k})
		return "ok"
	}
	l := &lock{kind: lockPut, ts: a.ts(), primary: a.key(), minCommitTS: a.num("min"), ttl: a.num("ttl")}
	if kind := a.opt("kind"); kind != "" {
		l.kind = lockKind(kind[0])
	}
	m.inMemory.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locks[string(k.enc)] = memoryLock{k, *l}
	return "ok"
}

// known START tells whether the store remembers that the transaction is committed.
func (s *script) known(a *args) string {
	if s.e.manager.committed.has(a.ts()) {
		return "committed"
	}
	return "unknown"
}

// region START END: the bounds of the requests that follow.
func (s *script) region(a *args) string {
	s.bounds = keys.Range{Start: keys.Encode(a.key()), End: keys.Encode(a.key())}
	return "ok"
}

// maxts: the largest timestamp that was read at; maxts TS raises it.
func (s *script) maxTS(a *args) string {
	if len(a.words) > 0 {
		s.e.manager.Observe(a.ts())
		return "ok"
	}
	return showTS(s.e.MaxTS())
}

// resolved NOW: the timestamp at or below which nothing commits any more.
func (s *script) resolved(a *args) string { return showTS(s.e.Resolved(s.bounds, a.ts())) }

// destroy START END: KvDeleteRange; with everywhere UnsafeDestroyRange.
func (s *script) destroy(a *args) string {
	everywhere, notify := a.has("everywhere"), a.has("notify")
	start, end := a.key(), a.key()
	if everywhere {
		return orOK(s.e.UnsafeDestroyRange(s.Context(), &kvrpcpb.UnsafeDestroyRangeRequest{StartKey: start, EndKey: end}).Error)
	}
	resp := s.e.DeleteRange(s.Context(), s.bounds, &kvrpcpb.DeleteRangeRequest{StartKey: start, EndKey: end, NotifyOnly: notify})
	if e := resp.RegionError; e != nil {
		return "region error: " + e.Message
	}
	return orOK(resp.Error)
}

// cleanup START KEY NOW
func (s *script) cleanup(a *args) string {
	resp := s.e.Cleanup(s.Context(), s.bounds, &kvrpcpb.CleanupRequest{StartVersion: a.ts(), Key: a.key(), CurrentTs: a.ts()})
	if resp.CommitVersion != 0 {
		return "committed=" + showTS(resp.CommitVersion)
	}
	return showError(resp.Error)
}

// prepareflashback START VERSION. Options: start end.
func (s *script) prepareFlashback(a *args) string {
	resp := s.e.PrepareFlashback(s.Context(), s.bounds, &kvrpcpb.PrepareFlashbackToVersionRequest{StartTs: a.ts(), Version: a.ts(),
		StartKey: []byte(a.opt("start")), EndKey: []byte(a.opt("end"))})
	return orOK(resp.Error)
}

// flashback START COMMIT VERSION. Options: start end, open (the region is not closed).
func (s *script) flashback(a *args) string {
	resp := s.e.Flashback(s.Context(), s.bounds, !a.has("open"), &kvrpcpb.FlashbackToVersionRequest{StartTs: a.ts(), CommitTs: a.ts(),
		Version: a.ts(), StartKey: []byte(a.opt("start")), EndKey: []byte(a.opt("end"))})
	if resp.RegionError.GetFlashbackNotPrepared() != nil {
		return "not prepared"
	}
	return orOK(resp.Error)
}

// flush START PRIMARY GENERATION mutation... Options: ttl level.
func (s *script) flush(a *args) string {
	req := &kvrpcpb.FlushRequest{Context: a.context(), StartTs: a.ts(), PrimaryKey: a.key(), Generation: a.ts(),
		LockTtl: a.num("ttl"), AssertionLevel: kvrpcpb.AssertionLevel(a.num("level"))}
	as := &kvrpcpb.PrewriteRequest{}
	for len(a.words) > 0 {
		s.mutation(as, a.next())
	}
	req.Mutations = as.Mutations
	return showErrors(s.e.Flush(s.Context(), s.bounds, req).Errors)
}

// buffer START key...
func (s *script) buffer(a *args) string {
	resp := s.e.BufferBatchGet(s.Context(), s.bounds, &kvrpcpb.BufferBatchGetRequest{Version: a.ts(), Keys: a.rest()})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	return showPairs(resp.Pairs)
}

// held KEY: its lock with what answers do not show.
func (s *script) held(a *args) string {
	k := keyOf(a.key())
	r := reader{snap: s.store.Snapshot()}
	defer r.snap.Close()
	l, err := r.lock(k.enc)
	switch {
	case err != nil:
		return err.Error()
	case l == nil:
		return "nothing"
	}
	text := showLock(l.info(k.raw))
	if len(l.rollbackTS) > 0 {
		text += fmt.Sprintf(",rollbacks=%v", l.rollbackTS)
	}
	if l.withConflict {
		text += ",conflict"
	}
	if l.generation != 0 {
		text += fmt.Sprintf(",generation=%d", l.generation)
	}
	return text
}

// broadcast START COMMIT
func (s *script) broadcast(a *args) string {
	s.e.BroadcastTxnStatus(s.Context(), &kvrpcpb.BroadcastTxnStatusRequest{
		TxnStatus: []*kvrpcpb.TxnStatus{{StartTs: a.ts(), CommitTs: a.ts()}}})
	return "ok"
}

// ended tells how the transactions ended that did since it was last asked.
func (s *script) endings(*args) string {
	var all []string
	for _, committed := range s.ended {
		all = append(all, map[bool]string{true: "committed", false: "rolledback"}[committed])
	}
	s.ended = nil
	return orNothing(all)
}

// pessimistic START FORUPDATE PRIMARY key[!absent]... Options: ttl min values exist
// onlyif force
// first, and how many milliseconds to wait: wait (none: not at all).
func (s *script) pessimisticLock(a *args) string {
	req := &kvrpcpb.PessimisticLockRequest{Context: a.context(), StartVersion: a.ts(), ForUpdateTs: a.ts(), PrimaryLock: a.key(),
		LockTtl: a.num("ttl"), MinCommitTs: a.num("min"), ReturnValues: a.has("values"), CheckExistence: a.has("exist"),
		LockOnlyIfExists: a.has("onlyif"), WaitTimeout: -1, IsFirstLock: a.has("first")}
	switch v := a.opt("wait"); v {
	case "":
	case "default":
		req.WaitTimeout = 0
	default:
		req.WaitTimeout = int64(parseTS(s.T, v))
	}
	if a.has("force") {
		req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
	}
	for _, word := range a.rest() {
		m := &kvrpcpb.Mutation{Op: kvrpcpb.Op_PessimisticLock}
		key, absent := strings.CutSuffix(string(word), "!absent")
		key, shared := strings.CutSuffix(key, "!shared")
		m.Key = []byte(key)
		if absent {
			m.Assertion = kvrpcpb.Assertion_NotExist
		}
		if shared {
			m.Op = kvrpcpb.Op_SharedPessimisticLock
		}
		req.Mutations = append(req.Mutations, m)
	}
	resp := s.e.PessimisticLock(s.Context(), s.bounds, req)
	text := showErrors(resp.Errors)
	for i, absent := range resp.NotFounds {
		switch {
		case absent:
			text += " absent"
		case len(resp.Values) > 0:
			text += " =" + showValue(resp.Values[i])
		default:
			text += " exists"
		}
	}
	for _, r := range resp.Results {
		text += fmt.Sprintf(" %s", strings.TrimPrefix(r.Type.String(), "LockResult"))
		switch {
		case r.Existence && len(r.Value) > 0:
			text += " =" + showValue(r.Value)
		case r.Existence:
			text += " exists"
		}
		if r.LockedWithConflictTs != 0 {
			text += "@" + showTS(r.LockedWithConflictTs)
		}
	}
	return text
}

// unlock START FORUPDATE [key...]
func (s *script) pessimisticRollback(a *args) string {
	resp := s.e.PessimisticRollback(s.Context(), s.bounds, &kvrpcpb.PessimisticRollbackRequest{StartVersion: a.ts(), ForUpdateTs: a.ts(), Keys: a.rest()})
	return showErrors(resp.Errors)
}
