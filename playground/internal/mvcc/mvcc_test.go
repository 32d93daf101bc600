package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

const (
	v1    = kvrpcpb.APIVersion_V1
	v1ttl = kvrpcpb.APIVersion_V1TTL
	v2    = kvrpcpb.APIVersion_V2
)

// What a store of an API version refuses (TiKV src/storage/mod.rs, check_api_version):
// reads, prewrites and pessimistic locks; what follows them is let through.
func TestAPIVersions(t *testing.T) {
	const version, mode = "Error(ApiVersionNotMatched { cmd: ", "Error(InvalidKey"
	for _, c := range []struct {
		store, req kvrpcpb.APIVersion
		key        string
		want       string
	}{
		{v1, v1, "k", ""},
		{v1, v2, "xk", version},
		{v1ttl, v1, "k", version},
		{v2, v2, "xk", ""},
		{v2, v2, "rk", mode},
		{v2, v2, "tk", mode},
		{v2, v1, "tk", ""},
		{v2, v1, "xk", mode},
	} {
		e, ctx, b := New(storage.NewMemory(), Config{APIVersion: c.store}), t.Context(), keys.Range{}
		rc := &kvrpcpb.Context{ApiVersion: c.req}
		k, end := []byte(c.key), append([]byte(c.key), 'z')
		muts := func(op kvrpcpb.Op) []*kvrpcpb.Mutation { return []*kvrpcpb.Mutation{{Op: op, Key: k}} }
		batch := e.BatchGet(ctx, b, &kvrpcpb.BatchGetRequest{Context: rc, Keys: [][]byte{k}})
		if (batch.Error != nil) != (len(batch.Pairs) == 1) {
			t.Error("the error of a batch is in its first pair too:", batch)
		}
		for what, got := range map[string]*kvrpcpb.KeyError{
			"get":       e.Get(ctx, b, &kvrpcpb.GetRequest{Context: rc, Key: k}).Error,
			"batch get": batch.Error,
			"scan":      e.Scan(ctx, b, &kvrpcpb.ScanRequest{Context: rc, StartKey: k, EndKey: end}).Error,
			"prewrite":  first(e.Prewrite(ctx, b, &kvrpcpb.PrewriteRequest{Context: rc, StartVersion: 1, Mutations: muts(kvrpcpb.Op_Put)}).Errors),
			"lock":      first(e.PessimisticLock(ctx, b, &kvrpcpb.PessimisticLockRequest{Context: rc, StartVersion: 2, Mutations: muts(kvrpcpb.Op_PessimisticLock)}).Errors),
		} {
			if what == "lock" && c.want == "" { // it meets the prewrite's lock, before or after
				continue
			}
			if !strings.HasPrefix(got.GetAbort(), c.want) || (c.want == "") != (got == nil) {
				t.Errorf("%v %v %q %s: %v", c.store, c.req, c.key, what, got)
			}
		}
		got := e.DeleteRange(ctx, b, &kvrpcpb.DeleteRangeRequest{Context: rc, StartKey: k, EndKey: end}).Error
		if (got == "") != (c.want == "") {
			t.Errorf("%v %v %q delete range: %q", c.store, c.req, c.key, got)
		}
		commit := e.Commit(ctx, b, &kvrpcpb.CommitRequest{Context: rc, StartVersion: 1, CommitVersion: 2, Keys: [][]byte{k}}).Error
		if commit.GetAbort() != "" {
			t.Errorf("commit: %v", commit)
		}
	}
}

func first(es []*kvrpcpb.KeyError) *kvrpcpb.KeyError {
	if len(es) == 0 {
		return nil
	}
	return es[0]
}

// A key may be 8192 bytes long when it is encoded: 7279 as the client has it.
func TestKeySize(t *testing.T) {
	e, ctx := New(storage.NewMemory(), Config{}), t.Context()
	for size, want := range map[int]string{7279: "", 7280: "Error(KeyTooLarge { size: 8199, limit: 8192 })"} {
		k := bytes.Repeat([]byte("k"), size)
		got := first(e.Prewrite(ctx, keys.Range{}, &kvrpcpb.PrewriteRequest{StartVersion: 1,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte("a")}, {Op: kvrpcpb.Op_Put, Key: k}}}).Errors)
		if got.GetAbort() != want {
			t.Errorf("prewrite of %d bytes: %v", size, got)
		}
		got = first(e.PessimisticLock(ctx, keys.Range{}, &kvrpcpb.PessimisticLockRequest{StartVersion: 2,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: append(k, 'x')}}}).Errors)
		if size == 7280 && !strings.Contains(got.GetAbort(), "KeyTooLarge") {
			t.Errorf("lock of %d bytes: %v", size+1, got)
		}
	}
}

func TestAbortTexts(t *testing.T) {
	k := keyOf([]byte("ab"))
	for want, err := range map[string]error{
		"Error(Txn(Error(InvalidTxnTso { start_ts: TimeStamp(5), commit_ts: TimeStamp(4) })))":                                            errInvalidTSO(5, 4),
		"Error(Txn(Error(Mvcc(Error(Committed { start_ts: TimeStamp(5), commit_ts: TimeStamp(6), key: [97, 98] })))))":                    &errCommitted{5, 6, k},
		"Error(Txn(Error(Mvcc(Error(PessimisticLockNotFound { start_ts: TimeStamp(5), key: [97, 98], reason: LockMissingAmendFail })))))": &errPessimisticLockNotFound{5, k, "LockMissingAmendFail"},
		"Error(Txn(Error(Mvcc(Error(LockTypeNotMatch { start_ts: TimeStamp(5), key: [97, 98], pessimistic: true })))))":                   errLockType(5, k, true),
		"Error(Txn(Error(Mvcc(Error(DefaultNotFound { key: [1] })))))":                                                                    errDefaultNotFound([]byte{1}),
		"Error(Other(\"over\"))": errors.New("over"),
	} {
		if got := keyError(err).Abort; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	const want = "Error(Txn(Error(Mvcc(Error(WriteConflict { start_ts: TimeStamp(1), conflict_start_ts: TimeStamp(2), " +
		"conflict_commit_ts: TimeStamp(3), key: [97], primary: [], reason: Optimistic })))))"
	got := keyError(errConflict(&kvrpcpb.WriteConflict{StartTs: 1, ConflictTs: 2, ConflictCommitTs: 3, Key: []byte("a"), Reason: kvrpcpb.WriteConflict_Optimistic}))
	if got.Retryable != want {
		t.Errorf("got  %s\nwant %s", got.Retryable, want)
	}
}

// A record that cannot be read, or a value that is missing, is an error, never absence.
func TestDamagedRecords(t *testing.T) {
	store := storage.NewMemory()
	s := scriptOn(t, store, Config{})
	var b storage.Batch
	enc := func(k string) []byte { return keys.Encode([]byte(k)) }
	b.Put(storage.Lock, enc("a"), []byte("?"))
	b.Put(storage.Write, at(enc("b"), 5), []byte("?"))
	b.Put(storage.Write, at(enc("c"), 5), (&write{kind: writePut, startTS: 4}).encode())
	if err := store.Apply(&b); err != nil {
		t.Fatal(err)
	}
	const bad = `abort(Other("mvcc:)`
	s.run(`
		get a 9 => ` + bad + `
		get b 9 => ` + bad + `
		get c 9 => abort(DefaultNotFound)
		scan 9 => ` + bad + `
		scan 9 start=c => abort(DefaultNotFound)
		batchget 9 a b c d => [` + bad + " " + bad + ` abort(DefaultNotFound)]
		prewrite 9 z put:z=1 put:a=1 => ` + bad + `
		prewrite 9 z put:z=1 put:b=1 => ` + bad + `
		commit 9 10 a => ` + bad + `
		rollback 9 b => ` + bad + `
		status a 9 => ` + bad + `
		heartbeat a 9 9 => ` + bad + `
		secondary 9 b => ` + bad + `
		pessimistic 9 9 b b => ` + bad + `
		unlock 9 9 a => ` + bad + `
		resolve 9 0 b => ` + bad + `
		records a => mvcc: bad format of a stored record
		records z => nothing`)
}

// More locks than are resolved in one write.
func TestResolveManyLocks(t *testing.T) {
	s := newScript(t)
	req := &kvrpcpb.PrewriteRequest{StartVersion: 10, PrimaryLock: []byte("0000")}
	lock := &kvrpcpb.PessimisticLockRequest{StartVersion: 11, ForUpdateTs: 11, PrimaryLock: []byte("p0000")}
	for i := range 2*resolveBatch + 10 {
		req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: fmt.Appendf(nil, "%04d", i), Value: []byte("v")})
		lock.Mutations = append(lock.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_PessimisticLock, Key: fmt.Appendf(nil, "p%04d", i)})
	}
	if resp := s.e.Prewrite(t.Context(), keys.Range{}, req); len(resp.Errors) > 0 {
		t.Fatal(resp.Errors)
	}
	if resp := s.e.PessimisticLock(t.Context(), keys.Range{}, lock); len(resp.Errors) > 0 {
		t.Fatal(resp.Errors)
	}
	s.run(`
		resolve 10 20 => ok
		unlock 11 11 => ok
		scanlock max => []`)
	resp := s.e.Scan(t.Context(), keys.Range{}, &kvrpcpb.ScanRequest{Version: 20, Limit: 10_000})
	if len(resp.Pairs) != len(req.Mutations) || resp.Pairs[0].Error != nil {
		t.Errorf("%d of %d", len(resp.Pairs), len(req.Mutations))
	}
	s.bounds = keys.Range{}
	resp = s.e.Scan(t.Context(), keys.Range{}, &kvrpcpb.ScanRequest{StartKey: []byte("zz"), Version: 20, Limit: 10_000, Reverse: true})
	if len(resp.Pairs) != len(req.Mutations) || string(resp.Pairs[0].Key) != fmt.Sprintf("%04d", len(req.Mutations)-1) {
		t.Errorf("in reverse %d of %d", len(resp.Pairs), len(req.Mutations))
	}
}

// A command waits for the latches of its keys, not longer than its context, and what
// gives up has written nothing.
func TestCommandsWaitForLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		release, err := s.e.latches.Acquire(t.Context(), keys.Encode([]byte("b")))
		if err != nil {
			t.Fatal(err)
		}
		prewrite := func(ctx context.Context, start uint64) string {
			return showErrors(s.e.Prewrite(ctx, keys.Range{}, &kvrpcpb.PrewriteRequest{StartVersion: start, PrimaryLock: []byte("a"),
				Mutations: []*kvrpcpb.Mutation{{Key: []byte("a")}, {Key: []byte("b")}}}).Errors)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := prewrite(ctx, 5); got != `abort(Other("context)` {
			t.Error(got)
		}
		done := make(chan string, 1)
		go func() { done <- prewrite(t.Context(), 6) }()
		synctest.Wait()
		s.run(`
			records a => nothing
			prewrite 7 c put:c=1 => ok`)
		release()
		if got := <-done; got != "ok" {
			t.Error(got)
		}
		s.run(`records a => lock:Put@6`)
	})
}

// failing is an engine whose disk is full.
type failing struct{ storage.Engine }

func (failing) Apply(*storage.Batch) error { return errors.New("no space left") }

func TestFailedWritesAreReported(t *testing.T) {
	s := newScript(t)
	s.run(`prewrite 10 a put:a=1 => ok`)
	s.e = New(failing{s.store}, Config{})
	const full = `abort(Other("no)`
	s.run(`
		prewrite 11 b put:b=1 async 1pc => ` + full + `
		commit 10 20 a => ` + full + `
		rollback 10 a => ` + full + `
		status a 10 now=max => ` + full + `
		heartbeat a 10 9 => ` + full + `
		secondary 9 b => ` + full + `
		resolve 10 20 => ` + full + `
		pessimistic 9 9 b b values => ` + full + `
		destroy a b => no space left`)
}

func BenchmarkGet(b *testing.B) {
	e, ctx := New(storage.NewMemory(), Config{}), b.Context()
	var reqs []*kvrpcpb.GetRequest
	for i := range 10_000 {
		k := fmt.Appendf(nil, "user%08d", i)
		e.Prewrite(ctx, keys.Range{}, &kvrpcpb.PrewriteRequest{StartVersion: 1, PrimaryLock: k,
			Mutations: []*kvrpcpb.Mutation{{Key: k, Value: make([]byte, 100)}}})
		e.Commit(ctx, keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: 1, CommitVersion: 2, Keys: [][]byte{k}})
		reqs = append(reqs, &kvrpcpb.GetRequest{Key: k, Version: 3})
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % len(reqs)
		if resp := e.Get(ctx, keys.Range{}, reqs[i]); resp.NotFound || resp.Error != nil {
			b.Fatal(resp)
		}
	}
}

func BenchmarkTransaction(b *testing.B) {
	e, ctx := New(storage.NewMemory(), Config{}), b.Context()
	ts := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		ts += 2
		k := fmt.Appendf(nil, "user%08d", ts%20_000)
		p := e.Prewrite(ctx, keys.Range{}, &kvrpcpb.PrewriteRequest{StartVersion: ts, PrimaryLock: k,
			Mutations: []*kvrpcpb.Mutation{{Key: k, Value: make([]byte, 100)}}})
		c := e.Commit(ctx, keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: ts, CommitVersion: ts + 1, Keys: [][]byte{k}})
		if len(p.Errors) > 0 || c.Error != nil {
			b.Fatal(p, c)
		}
	}
}
