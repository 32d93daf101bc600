package wire

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// decoder is what kvproto and this package both decode.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

func encoded(t testing.TB, m message) []byte {
	t.Helper()
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// compareValue decodes a GetResponse twice: anything without harm, what kvproto writes
// as kvproto does.
func compareValue(t *testing.T, data []byte) {
	t.Helper()
	var want kvrpcpb.GetResponse
	var got Value
	_ = got.Unmarshal(data)
	if want.Unmarshal(data) != nil {
		return
	}
	got.Reset()
	if err := got.Unmarshal(encoded(t, &want)); err != nil {
		t.Fatal(err)
	}
	same(t, &want, &kvrpcpb.GetResponse{
		RegionError: got.RegionError, Error: got.Error, Value: got.Value, NotFound: got.NotFound,
		CommitTs: got.CommitTS, ExecDetailsV2: want.ExecDetailsV2,
	})
}

func same(t *testing.T, want, got message) {
	t.Helper()
	if x, y := encoded(t, want), encoded(t, got); !bytes.Equal(x, y) {
		t.Fatalf("%v, want %v", got, want)
	}
}

// comparePairs is compareValue for a BatchGetResponse and a ScanResponse.
func comparePairs(t *testing.T, data []byte) {
	t.Helper()
	var scan kvrpcpb.ScanResponse
	var batch kvrpcpb.BatchGetResponse
	scanned, fetched := Pairs{ErrorField: 3, Pool: &PairPool{}}, Pairs{ErrorField: 5}
	_, _ = scanned.Unmarshal(data), fetched.Unmarshal(data)
	scanned.Reset()
	fetched.Reset()
	if scan.Unmarshal(data) == nil {
		if err := scanned.Unmarshal(encoded(t, &scan)); err != nil {
			t.Fatal(err)
		}
		same(t, &scan, &kvrpcpb.ScanResponse{RegionError: scanned.RegionError, Error: scanned.Error, Pairs: kvPairs(scanned.Pairs)})
	}
	if batch.Unmarshal(data) == nil {
		if err := fetched.Unmarshal(encoded(t, &batch)); err != nil {
			t.Fatal(err)
		}
		same(t, &batch, &kvrpcpb.BatchGetResponse{
			RegionError: fetched.RegionError, Error: fetched.Error, Pairs: kvPairs(fetched.Pairs), ExecDetailsV2: batch.ExecDetailsV2,
		})
	}
}

func kvPairs(pairs []Pair) []*kvrpcpb.KvPair {
	var out []*kvrpcpb.KvPair
	for _, p := range pairs {
		out = append(out, &kvrpcpb.KvPair{Key: p.Key, Value: p.Value, CommitTs: p.CommitTS, Error: p.Error})
	}
	return out
}

// compareVerdicts is compareValue for what a commit sends.
func compareVerdicts(t *testing.T, data []byte) {
	t.Helper()
	var prewrite kvrpcpb.PrewriteResponse
	var commit kvrpcpb.CommitResponse
	var locked Prewritten
	var done Done
	_, _ = locked.Unmarshal(data), done.Unmarshal(data)
	locked.Reset()
	done.Reset()
	if prewrite.Unmarshal(data) == nil {
		if err := locked.Unmarshal(encoded(t, &prewrite)); err != nil {
			t.Fatal(err)
		}
		same(t, &prewrite, &kvrpcpb.PrewriteResponse{
			RegionError: locked.RegionError, Errors: locked.Errors, MinCommitTs: locked.MinCommitTS,
			OnePcCommitTs: locked.OnePCCommitTS, ExecDetailsV2: prewrite.ExecDetailsV2,
		})
	}
	if commit.Unmarshal(data) == nil {
		if err := done.Unmarshal(encoded(t, &commit)); err != nil {
			t.Fatal(err)
		}
		same(t, &commit, &kvrpcpb.CommitResponse{
			RegionError: done.RegionError, Error: done.Error, CommitVersion: commit.CommitVersion, ExecDetailsV2: commit.ExecDetailsV2,
		})
	}
}

func answers() []message {
	pairs := []*kvrpcpb.KvPair{
		{Key: []byte("a"), Value: []byte("1"), CommitTs: 5},
		{Error: &kvrpcpb.KeyError{Locked: &kvrpcpb.LockInfo{Key: []byte("b"), LockVersion: 7}}, Key: []byte("b")},
		{Key: []byte("c")},
		{Key: []byte("d"), Value: make([]byte, blockSize+1)},
	}
	for i := range 300 {
		pairs = append(pairs, &kvrpcpb.KvPair{Key: fmt.Appendf(nil, "key%d", i), Value: make([]byte, i)})
	}
	aborted := &kvrpcpb.KeyError{Abort: "no"}
	refused := &errorpb.Error{Message: "m", NotLeader: &errorpb.NotLeader{RegionId: 5}}
	return []message{
		&kvrpcpb.GetResponse{},
		&kvrpcpb.GetResponse{Value: []byte("v"), CommitTs: 1 << 50, ExecDetailsV2: &kvrpcpb.ExecDetailsV2{TimeDetail: &kvrpcpb.TimeDetail{WaitWallTimeMs: 1}}},
		&kvrpcpb.GetResponse{NotFound: true},
		&kvrpcpb.GetResponse{RegionError: refused},
		&kvrpcpb.GetResponse{Error: aborted},
		&kvrpcpb.BatchGetResponse{Pairs: pairs, ExecDetailsV2: &kvrpcpb.ExecDetailsV2{}},
		&kvrpcpb.BatchGetResponse{Error: aborted},
		&kvrpcpb.BatchGetResponse{RegionError: refused},
		&kvrpcpb.ScanResponse{Pairs: pairs[:3], Error: aborted},
		&kvrpcpb.RawScanResponse{Kvs: pairs},
		&kvrpcpb.PrewriteResponse{MinCommitTs: 1 << 60, OnePcCommitTs: 1<<60 + 1},
		&kvrpcpb.PrewriteResponse{Errors: []*kvrpcpb.KeyError{aborted, {}, aborted}},
		&kvrpcpb.PrewriteResponse{RegionError: refused},
		&kvrpcpb.CommitResponse{CommitVersion: 7},
		&kvrpcpb.CommitResponse{Error: aborted},
	}
}

func TestAnswers(t *testing.T) {
	for _, m := range answers() {
		data := encoded(t, m)
		compareValue(t, data)
		comparePairs(t, data)
		compareVerdicts(t, data)
	}
}

func FuzzAnswers(f *testing.F) {
	for _, m := range answers() {
		f.Add(encoded(f, m))
	}
	for _, m := range listings() {
		f.Add(encoded(f, m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		compareValue(t, data)
		comparePairs(t, data)
		compareVerdicts(t, data)
		compareListing(t, data)
	})
}

// TestPairsAreOnesOwn: what a pair holds is apart from the answer and from its
// neighbours.
func TestPairsAreOnesOwn(t *testing.T) {
	data := encoded(t, &kvrpcpb.ScanResponse{Pairs: []*kvrpcpb.KvPair{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b")}}})
	var p Pairs
	if err := p.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	clear(data)
	_ = append(p.Pairs[0].Key, "xyz"...)
	_ = append(p.Pairs[0].Value, "xyz"...)
	a, b := p.Pairs[0], p.Pairs[1]
	if got := fmt.Sprintf("%s=%s %s=%s", a.Key, a.Value, b.Key, b.Value); got != "a=1 b=" || b.Value == nil || p.Bytes != 3 {
		t.Errorf("%s, %d bytes", got, p.Bytes)
	}
}

// TestPairsAreLent: an answer gives the memory of its pairs back, without what it held, but
// for that of very many.
func TestPairsAreLent(t *testing.T) {
	pool := &PairPool{}
	few := &kvrpcpb.ScanResponse{Pairs: []*kvrpcpb.KvPair{{Key: []byte("a"), Value: []byte("1")}}}
	many := &kvrpcpb.ScanResponse{Pairs: slices.Repeat(few.Pairs, keptPairs+1)}
	for i, answer := range []*kvrpcpb.ScanResponse{few, many, few, few} {
		p := Pairs{Pool: pool}
		if err := p.Unmarshal(encoded(t, answer)); err != nil {
			t.Fatal(err)
		}
		page := p.Pairs
		if len(page) != len(answer.Pairs) || answer == few && cap(page) > keptPairs {
			t.Errorf("%d: %d pairs of %d", i, len(page), cap(page))
		}
		p.Reset()
		if p.Pairs != nil || answer == few && page[0].Key != nil {
			t.Errorf("%d: %v, %v", i, p.Pairs, page[0])
		}
	}
}
