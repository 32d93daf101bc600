package mvcc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// The model of a store: each key's committed versions, its newest record's timestamp,
// and who has it locked. It knows nothing of column families and records.
type model struct {
	versions map[string][]version // ascending
	newest   map[string]uint64    // of any record, a rollback or a lock too
	locked   map[string]*modelTxn
}

type version struct {
	commitTS uint64
	value    string
	deleted  bool
}

type modelTxn struct {
	start  uint64
	writes map[string]string // "put:v", "del", "lock"
	state  string            // "", "prewritten", "committed", "rolled back"
	commit uint64
}

func (x *modelTxn) primary() string { return slices.Min(slices.Collect(maps.Keys(x.writes))) }

func newTxnModel() *model {
	return &model{map[string][]version{}, map[string]uint64{}, map[string]*modelTxn{}}
}

// get is "=value", "absent", or "locked" by whom.
func (m *model) get(k string, ts uint64) string {
	if x := m.locked[k]; x != nil && x.start <= ts && x.writes[k] != "lock" {
		if !(ts == maxTS && x.primary() == k) {
			return fmt.Sprintf("locked by %d", x.start)
		}
	}
	for _, v := range slices.Backward(m.versions[k]) {
		if v.commitTS <= ts {
			if v.deleted {
				return "absent"
			}
			return "=" + v.value
		}
	}
	return "absent"
}

func (m *model) prewrite(x *modelTxn) bool {
	for k := range x.writes {
		if other := m.locked[k]; other != x && (other != nil || m.newest[k] >= x.start) {
			return false // its own lock it may prewrite again, whatever happened above
		}
	}
	for k := range x.writes {
		m.locked[k] = x
	}
	x.state = "prewritten"
	return true
}

func (m *model) end(x *modelTxn, commitTS uint64) {
	x.state, x.commit = "rolled back", commitTS
	if commitTS != 0 {
		x.state = "committed"
	}
	for k, w := range x.writes {
		if m.locked[k] == x {
			delete(m.locked, k)
		}
		m.newest[k] = max(m.newest[k], x.start, commitTS)
		value, put := strings.CutPrefix(w, "put:")
		if commitTS != 0 && (put || w == "del") {
			m.versions[k] = append(m.versions[k], version{commitTS, value, !put})
			slices.SortFunc(m.versions[k], func(a, b version) int { return int(a.commitTS) - int(b.commitTS) })
		}
	}
}

// modelRun plays random transactions on an engine and its model.
type modelRun struct {
	*testing.T
	*rand.Rand
	e    *Engine
	m    *model
	ts   uint64
	txns []*modelTxn
}

func (r *modelRun) key() string { return string("abcdefgh"[r.IntN(8)]) }

func (r *modelRun) next() uint64 { r.ts++; return r.ts }

func (r *modelRun) begin() {
	x := &modelTxn{start: r.next(), writes: map[string]string{}}
	for range 1 + r.IntN(4) {
		switch r.IntN(6) {
		case 0:
			x.writes[r.key()] = "del"
		case 1:
			x.writes[r.key()] = "lock"
		case 2:
			x.writes[r.key()] = "put:" + strings.Repeat("x", 250+r.IntN(10)) // short and long
		default:
			x.writes[r.key()] = fmt.Sprintf("put:%d", x.start)
		}
	}
	r.txns = append(r.txns, x)
}

func (x *modelTxn) keys() [][]byte {
	var ks [][]byte
	for _, k := range slices.Sorted(maps.Keys(x.writes)) {
		ks = append(ks, []byte(k))
	}
	return ks
}

func (r *modelRun) prewrite(x *modelTxn) {
	req := &kvrpcpb.PrewriteRequest{StartVersion: x.start, PrimaryLock: []byte(x.primary()), LockTtl: 1}
	for k, w := range x.writes {
		m := &kvrpcpb.Mutation{Op: kvrpcpb.Op_Lock, Key: []byte(k)}
		if v, ok := strings.CutPrefix(w, "put:"); ok {
			m.Op, m.Value = kvrpcpb.Op_Put, []byte(v)
		} else if w == "del" {
			m.Op = kvrpcpb.Op_Del
		}
		req.Mutations = append(req.Mutations, m)
	}
	resp := r.e.Prewrite(r.Context(), keys.Range{}, req)
	if ok := r.m.prewrite(x); ok != (len(resp.Errors) == 0) {
		r.Fatalf("prewrite of %+v: %s; the model says %v", x, showErrors(resp.Errors), ok)
	}
}

func (r *modelRun) commit(x *modelTxn) {
	commitTS := r.next()
	ks := x.keys()
	resp := r.e.Commit(r.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: x.start, CommitVersion: commitTS, Keys: ks[:1]})
	if resp.Error != nil {
		r.Fatalf("commit of %+v: %s", x, showError(resp.Error))
	}
	// The rest by their own commit, or by someone who found them locked.
	switch r.IntN(3) {
	case 0:
		resp = r.e.Commit(r.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: x.start, CommitVersion: commitTS, Keys: ks})
		if resp.Error != nil {
			r.Fatalf("commit of %+v: %s", x, showError(resp.Error))
		}
	case 1:
		r.resolve(x, commitTS, ks[1:])
	default:
		r.resolve(x, commitTS, nil)
	}
	r.m.end(x, commitTS)
}

func (r *modelRun) resolve(x *modelTxn, commitTS uint64, ks [][]byte) {
	resp := r.e.ResolveLock(r.Context(), keys.Range{}, &kvrpcpb.ResolveLockRequest{StartVersion: x.start, CommitVersion: commitTS, Keys: ks})
	if resp.Error != nil {
		r.Fatalf("resolve of %+v: %s", x, showError(resp.Error))
	}
}

// rollback ends a transaction, prewritten or not, by its own hand or by another's.
func (r *modelRun) rollback(x *modelTxn) {
	if x.state == "" || r.IntN(2) == 0 {
		resp := r.e.BatchRollback(r.Context(), keys.Range{}, &kvrpcpb.BatchRollbackRequest{StartVersion: x.start, Keys: x.keys()})
		if resp.Error != nil {
			r.Fatalf("rollback of %+v: %s", x, showError(resp.Error))
		}
		r.m.end(x, 0)
		return
	}
	resp := r.e.CheckTxnStatus(r.Context(), keys.Range{}, &kvrpcpb.CheckTxnStatusRequest{
		PrimaryKey: []byte(x.primary()), LockTs: x.start, CurrentTs: maxTS, CallerStartTs: r.ts, RollbackIfNotExist: true, VerifyIsPrimary: true})
	if resp.Error != nil || resp.Action != kvrpcpb.Action_TTLExpireRollback {
		r.Fatalf("status of %+v: %v", x, resp)
	}
	r.resolve(x, 0, nil)
	r.m.end(x, 0)
}

// status asks for a transaction that has ended.
func (r *modelRun) status(x *modelTxn) {
	resp := r.e.CheckTxnStatus(r.Context(), keys.Range{}, &kvrpcpb.CheckTxnStatusRequest{
		PrimaryKey: []byte(x.primary()), LockTs: x.start, RollbackIfNotExist: true})
	if resp.Error != nil || resp.CommitVersion != x.commit {
		r.Fatalf("status of %+v: %v", x, resp)
	}
}

func show(key, value string, e *kvrpcpb.KeyError) string {
	if e != nil {
		return fmt.Sprintf("%s locked by %d", e.GetLocked().GetKey(), e.GetLocked().GetLockVersion())
	}
	return key + " =" + value
}

func (r *modelRun) read() {
	ts := uint64(r.IntN(int(r.ts) + 2))
	if r.IntN(5) == 0 {
		ts = maxTS
	}
	k := r.key()
	resp := r.e.Get(r.Context(), keys.Range{}, &kvrpcpb.GetRequest{Key: []byte(k), Version: ts})
	got := show(k, string(resp.Value), resp.Error)
	if resp.NotFound {
		got = k + " absent"
	}
	if want := k + " " + r.m.get(k, ts); got != want {
		r.Fatalf("get at %d: %s; the model says %s", ts, got, want)
	}
	r.scan(ts)
}

func (r *modelRun) scan(ts uint64) {
	in := keys.Range{Start: []byte(r.key()), End: []byte(r.key())}
	limit, reverse := 1+r.IntN(9), r.IntN(2) == 0
	req := &kvrpcpb.ScanRequest{StartKey: in.Start, EndKey: in.End, Limit: uint32(limit), Version: ts, Reverse: reverse}
	if reverse {
		req.StartKey, req.EndKey = in.End, in.Start
	}
	var got, want []string
	for _, p := range r.e.Scan(r.Context(), keys.Range{}, req).Pairs {
		got = append(got, show(string(p.Key), string(p.Value), p.Error))
	}
	all := strings.Split("abcdefgh", "")
	if reverse {
		slices.Reverse(all)
	}
	for _, k := range all {
		if v := r.m.get(k, ts); in.Contains([]byte(k)) && v != "absent" && len(want) < limit {
			want = append(want, k+" "+v)
		}
	}
	if !slices.Equal(got, want) {
		r.Fatalf("scan of %v at %d: %q; the model says %q", req, ts, got, want)
	}
}

func (r *modelRun) step() {
	if len(r.txns) < 2 || len(r.txns) < 5 && r.IntN(3) == 0 {
		r.begin()
		return
	}
	x := r.txns[r.IntN(len(r.txns))]
	n := r.IntN(10)
	switch {
	case n < 4:
		r.read()
	case x.state == "" && n < 8:
		r.prewrite(x)
	case x.state == "prewritten" && n < 5:
		r.prewrite(x) // a copy
	case x.state == "prewritten" && n < 8:
		r.commit(x)
	case x.state == "" || x.state == "prewritten":
		r.rollback(x)
	default:
		r.status(x)
		if x.state == "rolled back" {
			r.prewrite(x) // late, must fail
		}
		r.txns = slices.DeleteFunc(r.txns, func(y *modelTxn) bool { return x == y })
	}
}

func TestAgainstModel(t *testing.T) {
	for name, steps := range map[string]int{"memory": 20_000, "dir": 2_000} {
		t.Run(name, func(t *testing.T) {
			store := storage.NewMemory()
			if name == "dir" {
				var err error
				if store, err = storage.OpenDir(t.TempDir(), false); err != nil {
					t.Fatal(err)
				}
			}
			r := &modelRun{T: t, Rand: rand.New(rand.NewPCG(5, 6)), e: New(store, Config{}), m: newTxnModel()}
			for range steps {
				r.step()
			}
			committed := 0
			for _, vs := range r.m.versions {
				committed += len(vs)
			}
			if committed < steps/20 {
				t.Fatalf("only %d versions", committed)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
