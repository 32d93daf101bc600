package playground

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/serve"
)

// FuzzStore sends a store what its input makes of TiKV's requests, several at once where
// they wait for one another, and some that are no messages at all. Whatever comes, the
// store answers or refuses, and the records of every key stay sound.
func FuzzStore(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomInput(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) { sendRandom(t, input) })
}

// TestStoreTakesAnything is FuzzStore without a guide, and shows that transactions do
// meet there.
func TestStoreTakesAnything(t *testing.T) {
	var all Counts
	for seed := range uint64(60) {
		n := sendRandom(t, randomInput(seed))
		all.Commits += n.Commits
		all.Rollbacks += n.Rollbacks
		all.Conflicts += n.Conflicts
	}
	t.Logf("%d commits, %d rollbacks, %d conflicts", all.Commits, all.Rollbacks, all.Conflicts)
	if all.Commits < 5 || all.Rollbacks < 10 || all.Conflicts < 50 {
		t.Error("the requests do too little")
	}
}

func randomInput(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	input := make([]byte, 3000)
	for i := range input {
		input[i] = byte(r.Uint32())
	}
	return input
}

func sendRandom(t *testing.T, input []byte) (n Counts) {
	synctest.Test(t, func(t *testing.T) {
		in := &fuzzInput{rest: input, flashback: kvrpcpb.FlashbackToVersionRequest{StartTs: 1000}}
		api := []APIVersion{APIV1, APIV2}[in.n(2)]
		c := start(t, WithStores(1), WithAPIVersion(api))
		in.keys = c.fuzzKeys()
		c.bombard(in, unaryRequests(api))
		for _, key := range in.keys {
			c.checkRecords(t, key)
		}
		n = c.Counts()
	})
	return n
}

// transactional are the calls that change what transactions leave, the most usual often.
func transactional() []string {
	return []string{
		"KvPrewrite", "KvPrewrite", "KvPrewrite", "KvCommit", "KvCommit", "KvPessimisticLock", "KvPessimisticLock",
		"KVPessimisticRollback", "KvBatchRollback", "KvCheckTxnStatus", "KvCheckSecondaryLocks", "KvResolveLock",
		"KvTxnHeartBeat", "KvFlush", "KvGet", "KvScan",
	}
}

// unaryRequest is a unary call of TiKV's service.
type unaryRequest struct {
	method  string
	message reflect.Type
}

func unaryRequests(api APIVersion) (all []unaryRequest) {
	service := reflect.TypeFor[tikvpb.TikvServer]()
	for i := range service.NumMethod() {
		m := service.Method(i)
		if m.Type.NumIn() != 2 || m.Type.NumOut() != 2 {
			continue // a stream
		}
		if api == APIV1 && strings.HasPrefix(m.Name, "Raw") {
			continue // raw writes destroy transactional data, in TiKV too
		}
		all = append(all, unaryRequest{m.Name, m.Type.In(1).Elem()})
	}
	return all
}

// fuzzKeys are some transactional keys, then as many raw ones.
func (c *testCluster) fuzzKeys() (all [][]byte) {
	for _, mode := range []KeyMode{KeyTxn, KeyRaw} {
		for _, k := range []string{"a", "b", "c"} {
			all = append(all, c.api.wireKey(mode, []byte(k)))
		}
	}
	return append(slices.Insert(all, 3, all[0]), []byte{})
}

// bombard sends requests until the input ends. One that waits for a lock goes on waiting
// while the next are sent.
func (c *testCluster) bombard(in *fuzzInput, requests []unaryRequest) {
	tasks := task.Root(c.t.Context())
	defer tasks.Close(nil)
	ctx, cancel := context.WithTimeout(tasks.Context(), time.Hour)
	defer cancel()
	addr := c.stores[0].Server().Addr()
	often := transactional()
	for range 128 {
		if len(in.rest) == 0 {
			break
		}
		r := requests[in.n(len(requests))]
		if name := often[in.n(len(often))]; in.n(4) > 0 {
			r = requests[slices.IndexFunc(requests, func(r unaryRequest) bool { return r.method == name })]
		}
		if in.method == "KvPrepareFlashbackToVersion" && in.n(8) > 0 {
			r = requests[slices.IndexFunc(requests, func(r unaryRequest) bool { return r.method == "KvFlashbackToVersion" })]
		}
		in.method = r.method
		in.context, _ = c.at(KeyTxn, "a")
		req := in.message(r)
		tasks.Go("request", func(context.Context) {
			_ = c.conn(addr).Invoke(ctx, "/tikvpb.Tikv/"+r.method, &req, new(serve.Raw)) // refused is well
		})
		synctest.Wait()
	}
	time.AfterFunc(time.Minute, cancel) // fake: every wait for a lock ends before
	<-ctx.Done()
	synctest.Wait()
}

// checkRecords looks at all that is stored for a key.
func (c *testCluster) checkRecords(t *testing.T, key []byte) {
	info, err := c.txn.Versions(key)
	if err != nil {
		t.Fatalf("%q: %v", key, err)
	}
	committed, rolledBack := make(map[uint64]bool), make(map[uint64]bool) // by start_ts
	starts := make(map[uint64]uint64)
	values := make(map[uint64]bool)
	for _, v := range info.Values {
		values[v.StartTs] = true
	}
	for _, w := range info.Writes {
		if w.Type == kvrpcpb.Op_Rollback || w.HasOverlappedRollback {
			rolledBack[w.CommitTs] = true
		}
		if w.Type == kvrpcpb.Op_Rollback {
			continue
		}
		committed[w.StartTs] = true
		if other, again := starts[w.CommitTs]; again {
			t.Errorf("%q: two versions committed at %d, of %d and %d", key, w.CommitTs, other, w.StartTs)
		}
		starts[w.CommitTs] = w.StartTs
		if w.CommitTs <= w.StartTs {
			t.Errorf("%q: %d committed at %d", key, w.StartTs, w.CommitTs)
		}
		if w.Type == kvrpcpb.Op_Put && w.ShortValue == nil && !values[w.StartTs] {
			t.Errorf("%q: the version of %d has no value", key, w.StartTs)
		}
	}
	for ts := range committed {
		if rolledBack[ts] {
			t.Errorf("%q: %d was committed and rolled back", key, ts)
		}
	}
	for _, l := range c.Locks(nil, nil) {
		if !bytes.Equal(c.api.wireKey(KeyTxn, l.Key), key) {
			continue
		}
		// A pessimistic lock is taken again even after its transaction's commit, if
		// asked for: TiKV looks for rollbacks only (actions/acquire_pessimistic_lock.rs).
		// A rollback that CheckSecondaryLocks writes leaves a shared lock, which it does not
		// look for (commands/check_secondary_locks.rs).
		if rolledBack[l.StartTS] && !l.Shared || committed[l.StartTS] && l.ForUpdateTS == 0 {
			t.Errorf("%q: %d left a lock beside its commit (%t) or rollback (%t)", key, l.StartTS, committed[l.StartTS], rolledBack[l.StartTS])
		}
	}
}

// fuzzInput makes decisions of bytes.
type fuzzInput struct {
	rest      []byte
	keys      [][]byte
	method    string
	context   *kvrpcpb.Context
	flashback kvrpcpb.FlashbackToVersionRequest // the last one, later than all else
}

// n is the input's choice below max.
func (in *fuzzInput) n(max int) int {
	if len(in.rest) == 0 {
		return 0
	}
	b := int(in.rest[0])
	in.rest = in.rest[1:]
	return b % max
}

// message is a request as it is sent: mostly well-formed.
func (in *fuzzInput) message(r unaryRequest) serve.Raw {
	if in.n(32) == 1 {
		k := 1 + in.n(24)
		return serve.Raw(in.rest[:min(k, len(in.rest))])
	}
	m := reflect.New(r.message)
	in.fill(m.Elem(), "", 3)
	switch q := m.Interface().(type) {
	case *kvrpcpb.PrewriteRequest:
		in.check(q)
	case *kvrpcpb.PrepareFlashbackToVersionRequest: // each at a timestamp of its own, which TiKV believes
		in.flashback.StartTs, in.flashback.CommitTs = in.flashback.StartTs+10, in.flashback.StartTs+11
		in.flashback.StartKey, in.flashback.EndKey, in.flashback.Version = q.StartKey, q.EndKey, q.Version
		q.StartTs = in.flashback.StartTs
	case *kvrpcpb.FlashbackToVersionRequest: // which mostly opens the region again
		q.StartTs, q.CommitTs = in.flashback.StartTs, in.flashback.CommitTs
		if in.n(4) > 0 {
			q.StartKey, q.EndKey, q.Version = in.flashback.StartKey, in.flashback.EndKey, in.flashback.Version
		}
	case *kvrpcpb.ResolveLockRequest:
		if q.CommitVersion != 0 && len(q.Keys) > 0 { // which TiKV believes (commands/resolve_lock_lite.rs)
			q.CommitVersion = max(q.CommitVersion, q.StartVersion+1)
		}
	}
	data, err := m.Interface().(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		panic(fmt.Sprintf("%s: %v", r.method, err)) // a mistake of this test
	}
	return data
}

// check lets a prewrite check every key: of one that it is told not to check
// TiKV writes the lock even after the rollback (actions/prewrite.rs,
// skip_constraint_check; the client must have locked what guards the key).
func (in *fuzzInput) check(p *kvrpcpb.PrewriteRequest) {
	p.PessimisticActions, p.SkipConstraintCheck = nil, false
	for _, m := range p.Mutations {
		if p.ForUpdateTs > 0 {
			action := kvrpcpb.PrewriteRequest_PessimisticAction(1 + in.n(2))
			if m.Op == kvrpcpb.Op_SharedLock { // which may be rolled back and still there
				action = kvrpcpb.PrewriteRequest_DO_CONSTRAINT_CHECK
			}
			p.PessimisticActions = append(p.PessimisticActions, action)
		}
	}
}

// fill sets a field, by its type and name, to something that may mean something.
func (in *fuzzInput) fill(v reflect.Value, name string, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*kvrpcpb.Context]() {
			v.Set(reflect.ValueOf(in.aim()))
		} else if depth > 0 && in.n(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			in.fill(v.Elem(), name, depth-1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !strings.HasPrefix(f.Name, "XXX_") {
				in.fill(v.Field(i), f.Name, depth)
			}
		}
	case reflect.Slice:
		in.fillSlice(v, name, depth)
	case reflect.Bool:
		v.SetBool(in.n(8) == 1)
	case reflect.Int32:
		if op, ok := v.Addr().Interface().(*kvrpcpb.Op); ok && in.n(16) > 0 {
			*op = in.op()
			return
		}
		v.SetInt(int64(in.n(32) * in.n(2) % 12))
	case reflect.Int64:
		v.SetInt(int64(in.n(6) - 1))
	case reflect.Uint32:
		v.SetUint(uint64(in.n(4)))
	case reflect.Uint64:
		v.SetUint(in.number(name))
	}
}

func (in *fuzzInput) fillSlice(v reflect.Value, name string, depth int) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if strings.Contains(name, "Value") {
			v.SetBytes(slices.Repeat([]byte{'v'}, []int{0, 1, 300}[in.n(3)]))
		} else {
			v.SetBytes(in.key())
		}
		return
	}
	n := []int{1, 1, 2, 0}[in.n(4)]
	if depth == 0 || v.Type().Elem().Kind() == reflect.Int32 && in.n(4) > 0 || name == "ForUpdateTsConstraints" && in.n(8) > 0 {
		n = 0 // a message within its like; what must fit the mutations one by one
	}
	s := reflect.MakeSlice(v.Type(), n, n)
	for i := range n {
		e := s.Index(i)
		if e.Kind() == reflect.Pointer { // nil has no place there
			e.Set(reflect.New(e.Type().Elem()))
			e = e.Elem()
		}
		in.fill(e, name, depth-1)
	}
	v.Set(s)
}

// op is one that the request takes.
func (in *fuzzInput) op() kvrpcpb.Op {
	if in.method == "KvPessimisticLock" {
		return []kvrpcpb.Op{kvrpcpb.Op_PessimisticLock, kvrpcpb.Op_PessimisticLock, kvrpcpb.Op_SharedPessimisticLock}[in.n(3)]
	}
	return []kvrpcpb.Op{kvrpcpb.Op_Put, kvrpcpb.Op_Del, kvrpcpb.Op_Lock, kvrpcpb.Op_Insert, kvrpcpb.Op_CheckNotExists,
		kvrpcpb.Op_SharedLock}[in.n(6)]
}

// key is mostly one of the request's kind.
func (in *fuzzInput) key() []byte {
	if k := in.n(64); k < 3 {
		return slices.Clone(in.keys[k*7%len(in.keys)])
	} else if half := len(in.keys) / 2; strings.HasPrefix(in.method, "Raw") {
		return slices.Clone(in.keys[half+k%half])
	} else {
		return slices.Clone(in.keys[k%half])
	}
}

// number is mostly one of those at which transactions meet, now and then any.
func (in *fuzzInput) number(name string) uint64 {
	k := in.n(32)
	switch {
	case k == 0:
		return 0
	case k == 1 && len(in.rest) >= 8:
		n := binary.LittleEndian.Uint64(in.rest)
		in.rest = in.rest[8:]
		return n
	case k == 2:
		return uint64(in.n(50))
	case strings.Contains(name, "Ttl"):
		return uint64(k%3) * 1000
	case strings.Contains(name, "Start"), name == "LockTs", name == "LockVersion":
		return []uint64{10, 20, 30}[k%3]
	case strings.Contains(name, "ForUpdate"), strings.Contains(name, "CallerStart"), name == "Version":
		return []uint64{10, 20, 25, 30, 40}[k%5]
	case strings.Contains(name, "Commit"), strings.Contains(name, "CurrentTs"):
		return []uint64{0, 20, 25, 31, 35, 45}[k%6]
	default:
		return uint64(k % 4)
	}
}

// aim is the context of a request to the region, sometimes not quite.
func (in *fuzzInput) aim() *kvrpcpb.Context {
	ctx := *in.context
	switch in.n(32) {
	case 0:
		ctx.RegionId++
	case 1:
		ctx.ApiVersion = kvrpcpb.APIVersion(in.n(3))
	case 2:
		ctx.StaleRead = true
	case 3:
		ctx.ReplicaRead = true
	case 4:
		ctx.ResolvedLocks = []uint64{uint64(in.n(24))}
	case 5:
		ctx.CommittedLocks = []uint64{uint64(in.n(24))}
	case 6:
		ctx.IsolationLevel = kvrpcpb.IsolationLevel(in.n(3))
	}
	return &ctx
}
