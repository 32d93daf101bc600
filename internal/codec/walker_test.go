package codec

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// serviceMessages finds the requests and answers of TiKV's service.
func serviceMessages() []reflect.Type {
	var all []reflect.Type
	service := reflect.TypeFor[tikvpb.TikvClient]()
	for i := range service.NumMethod() {
		all = append(all, messagesOf(service.Method(i).Type)...)
	}
	return all
}

// messagesOf returns the request and the answer of a method of the service that takes
// one request.
func messagesOf(method reflect.Type) []reflect.Type {
	if method.NumIn() < 3 || method.In(1).Kind() != reflect.Pointer {
		return nil // the requests are a stream: what stores send each other
	}
	answer := method.Out(0)
	if answer.Kind() == reflect.Interface {
		recv, _ := answer.MethodByName("Recv")
		answer = recv.Type.Out(0)
	}
	return []reflect.Type{method.In(1).Elem(), answer.Elem()}
}

// inside calls visit with every struct reached from t, each once.
func inside(t reflect.Type, seen map[reflect.Type]bool, visit func(reflect.Type)) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	visit(t)
	for i := range t.NumField() {
		inside(t.Field(i).Type, seen, visit)
	}
	if m, ok := reflect.New(t).Interface().(interface{ XXX_OneofWrappers() []interface{} }); ok {
		for _, w := range m.XXX_OneofWrappers() {
			inside(reflect.TypeOf(w), seen, visit)
		}
	}
}

func isBytes(t reflect.Type) bool {
	for t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// A new kvproto with a field of bytes that nobody has looked at fails here.
func TestEveryFieldIsClassified(t *testing.T) {
	used := make(map[string]bool)
	seen := make(map[reflect.Type]bool)
	fields := 0
	for _, m := range serviceMessages() {
		inside(m, seen, func(st reflect.Type) {
			for i := range st.NumField() {
				f := st.Field(i)
				name := st.String() + "." + f.Name
				cl, ok := classes[name]
				used[name] = used[name] || ok
				if strings.HasPrefix(f.Name, "XXX_") {
					continue
				}
				if isBytes(f.Type) {
					if fields++; !ok {
						t.Errorf("%s is not classified", name)
					}
					if cl == inRegion || cl == chained || cl == ours || cl == rawFlag {
						t.Errorf("%s is a field of bytes, classified as a message", name)
					}
				}
				switch f.Type.Kind() {
				case reflect.Map, reflect.Struct:
					t.Errorf("%s is of a kind that the walker does not know: %v", name, f.Type)
				}
			}
		})
	}
	for name := range classes {
		if !used[name] {
			t.Errorf("%s is classified, and no field of the service", name)
		}
	}
	for name := range inRegionForm {
		if !slices.ContainsFunc(serviceMessages(), func(reflect.Type) bool { return true }) || !used[name+".StartKey"] {
			t.Errorf("%s is no message with a range", name)
		}
	}
	if len(seen) < 150 || fields < 100 {
		t.Errorf("%d messages with %d fields of bytes: the walk is not whole", len(seen), fields)
	}
	t.Logf("%d messages, %d fields of bytes", len(seen), fields)
}

// A message that names a key space is known to the walker.
func TestEverySpaceIsFilled(t *testing.T) {
	c := New(V2, Txn, 7)
	seen := make(map[reflect.Type]bool)
	found := 0
	for _, m := range serviceMessages() {
		inside(m, seen, func(st reflect.Type) {
			ptr := reflect.New(st).Interface()
			_, id := ptr.(interface{ GetKeyspaceId() uint32 })
			_, spaced := ptr.(spaced)
			if id != spaced && st.String() != "apipb.KeyspaceIdentity" { // V3's, inside of the others
				t.Errorf("%v has a keyspace or an API version, and not the other", st)
			}
			if !spaced {
				return
			}
			found++
			c.fillSpace(ptr)
			if ptr.(interface{ GetKeyspaceId() uint32 }).GetKeyspaceId() != 7 {
				t.Errorf("%v is not filled", st)
			}
		})
	}
	if found < 4 {
		t.Errorf("found %d", found)
	}
}

// invention makes random messages.
type invention struct {
	*rand.Rand
	c Codec
}

func (r invention) bytes() []byte {
	b := make([]byte, r.IntN(20))
	for i := range b {
		b[i] = "\x00\x01ar\xff"[r.IntN(5)]
	}
	return b
}

func (r invention) message(t reflect.Type, depth int) reflect.Value {
	v := reflect.New(t)
	for i := range t.NumField() {
		f := t.Field(i)
		if !strings.HasPrefix(f.Name, "XXX_") && (f.Name == "Context" || r.IntN(4) > 0) {
			r.field(v.Elem().Field(i), classes[t.String()+"."+f.Name], v, depth)
		}
	}
	if _, ok := v.Interface().(spaced); ok {
		r.c.fillSpace(v.Interface())
	}
	switch m := v.Interface().(type) {
	case *kvrpcpb.SplitRegionRequest:
		m.IsRawKv = r.c.Mode() == Raw
	case *kvrpcpb.RawBatchScanRequest: // an empty end has its own test
		for _, rg := range m.Ranges {
			rg.EndKey = append(rg.EndKey, 'e')
		}
	}
	return v
}

func (r invention) field(v reflect.Value, cl class, in reflect.Value, depth int) {
	switch t := v.Type(); {
	case cl == bounds:
		list := [][]byte{r.bytes(), r.bytes(), r.bytes(), r.bytes()}
		slices.SortFunc(list, bytes.Compare)
		list = slices.CompactFunc(list, bytes.Equal)
		if len(list[0]) == 0 {
			list = list[1:]
		}
		v.Set(reflect.ValueOf(append(append([][]byte{nil}, list...), nil)))
	case isBytes(t) && t.Elem().Kind() == reflect.Uint8:
		v.SetBytes(r.bytes())
	case isBytes(t):
		for range r.IntN(4) {
			v.Set(reflect.Append(v, reflect.ValueOf(r.bytes())))
		}
	case t.Kind() == reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case t.Kind() == reflect.Interface:
		if m, ok := in.Interface().(interface{ XXX_OneofWrappers() []interface{} }); ok && depth > 0 {
			all := m.XXX_OneofWrappers()
			if w := reflect.TypeOf(all[r.IntN(len(all))]); w.Implements(t) {
				v.Set(r.message(w.Elem(), depth-1))
			}
		}
	case t.Kind() == reflect.Pointer && depth > 0:
		v.Set(r.message(t.Elem(), depth-1))
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Pointer && depth > 0:
		for range r.IntN(3) {
			v.Set(reflect.Append(v, r.message(t.Elem().Elem(), depth-1)))
		}
	case v.CanInt():
		v.SetInt(int64(r.IntN(3)))
	case v.CanUint():
		v.SetUint(r.Uint64N(1000))
	case t.Kind() == reflect.String:
		v.SetString("text")
	}
}

func wireOf(t testing.TB, m any) []byte {
	data, err := m.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var allCodecs = []Codec{
	New(V1, Txn, 0), New(V1, Raw, 0), New(V1TTL, Raw, 0),
	New(V2, Txn, 7), New(V2, Raw, 7), New(V2, Txn, MaxKeyspaceID), New(V2, Raw, 0),
}

// checkWalk encodes and decodes a message: it comes back as it was, what is a key was
// written as one, and nothing else was touched.
func checkWalk(t testing.TB, w *Walker, c Codec, m any) {
	t.Helper()
	before := wireOf(t, m)
	out, err := w.Encode(c, m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(wireOf(t, m), before) {
		t.Fatalf("%v %v: Encode changed %T", c.Version(), c.Mode(), m)
	}
	checkForms(t, c, reflect.ValueOf(m), reflect.ValueOf(out), form{}, reflect.TypeOf(m).Elem().String())
	if c.plain() && !bytes.Equal(wireOf(t, out), before) {
		t.Fatalf("V1 raw: %T became\n%v from\n%v", m, out, m)
	}
	if err := w.Decode(c, out); err != nil {
		t.Fatalf("%v %v: %T: %v\n%v", c.Version(), c.Mode(), m, err, m)
	}
	if !bytes.Equal(wireOf(t, out), before) {
		t.Fatalf("%v %v: %T came back as\n%v from\n%v", c.Version(), c.Mode(), m, out, m)
	}
}

// checkForms compares a message with its encoded form, field by field, by a rule that is
// simpler than the walker's: what is a key has the key space's prefix, in region form or
// not, and what is none is the same.
func checkForms(t testing.TB, c Codec, was, is reflect.Value, f form, path string) {
	if was.IsNil() {
		return
	}
	was, is = was.Elem(), is.Elem()
	f.region = f.region || inRegionForm[was.Type().String()]
	for i := range was.NumField() {
		sf := was.Type().Field(i)
		if strings.HasPrefix(sf.Name, "XXX_") {
			continue
		}
		a, b, name := was.Field(i), is.Field(i), path+"."+sf.Name
		cl := classes[was.Type().String()+"."+sf.Name]
		switch {
		case isBytes(sf.Type) && sf.Type.Elem().Kind() == reflect.Uint8:
			checkForm(t, c, cl, f, a.Bytes(), b.Bytes(), name)
		case isBytes(sf.Type):
			for j := range a.Len() {
				checkForm(t, c, cl, f, a.Index(j).Bytes(), b.Index(j).Bytes(), name)
			}
		case sf.Type.Kind() == reflect.Pointer && sf.Type.Elem().Kind() == reflect.Struct:
			checkForms(t, c, a, b, form{region: f.region || cl == inRegion}, name)
		case sf.Type.Kind() == reflect.Slice && sf.Type.Elem().Kind() == reflect.Pointer:
			for j := range a.Len() {
				checkForms(t, c, a.Index(j), b.Index(j), form{region: f.region || cl == inRegion}, name)
			}
		case sf.Type.Kind() == reflect.Interface && !a.IsNil():
			checkForms(t, c, a.Elem(), b.Elem(), f, name)
		default:
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Fatalf("%s changed", name)
			}
		}
	}
}

func checkForm(t testing.TB, c Codec, cl class, f form, was, is []byte, name string) {
	inRegionForm := f.region && cl != value || cl == regionKey || cl == bounds
	if cl == upper && c.Version() != V2 && len(was) == 0 && bytes.Equal(is, top()) {
		return
	}
	untouched := cl >= value || c.plain() || c.Version() != V2 && !inRegionForm || len(was) == 0 && len(is) == 0
	if untouched {
		if !bytes.Equal(was, is) {
			t.Fatalf("%s: %q became %q", name, was, is)
		}
		return
	}
	prefix, end := c.Space().Start, c.Space().End
	if inRegionForm && len(is) > 0 {
		wire, _, err := keys.Decode(is)
		if err != nil {
			t.Fatalf("%s: %q is not in region form", name, is)
		}
		is = wire
	}
	if !bytes.Equal(is, append(bytes.Clone(prefix), was...)) && !(len(was) == 0 && bytes.Equal(is, end)) {
		t.Fatalf("%s: %q became %q", name, was, is)
	}
}

func TestMessagesComeBack(t *testing.T) {
	w := &Walker{}
	rounds := 8
	for i := range rounds {
		for _, m := range serviceMessages() {
			for n, c := range allCodecs {
				r := invention{rand.New(rand.NewPCG(uint64(i), uint64(n))), c}
				checkWalk(t, w, c, r.message(m, 6).Interface())
			}
		}
	}
}

func FuzzMessages(f *testing.F) {
	w, all := &Walker{}, serviceMessages()
	f.Add(uint64(1), uint16(2), uint8(3), []byte("\n\x01a"))
	f.Fuzz(func(t *testing.T, seed uint64, which uint16, codec uint8, data []byte) {
		c := allCodecs[int(codec)%len(allCodecs)]
		m := all[int(which)%len(all)]
		r := invention{rand.New(rand.NewPCG(seed, seed)), c}
		checkWalk(t, w, c, r.message(m, 6).Interface())

		// Answers of a server that follows no rule.
		resp := reflect.New(m).Interface()
		if resp.(interface{ Unmarshal([]byte) error }).Unmarshal(data) != nil {
			return
		}
		var outside *OutsideError
		if err := w.Decode(c, resp); err != nil && !errors.As(err, &outside) {
			t.Fatal(err)
		}
	})
}

// V1's raw keys are sent as they are: lists, ranges and values are the caller's own.
func TestV1RawCopiesNothing(t *testing.T) {
	w, c := &Walker{}, New(V1, Raw, 0)
	req := &kvrpcpb.RawBatchPutRequest{Pairs: []*kvrpcpb.KvPair{{Key: b("k")}}, Context: &kvrpcpb.Context{Priority: kvrpcpb.CommandPri_High}}
	out, err := w.Encode(c, req)
	if err != nil {
		t.Fatal(err)
	}
	got := out.(*kvrpcpb.RawBatchPutRequest)
	if got == req || got.Context == req.Context || &got.Pairs[0] != &req.Pairs[0] {
		t.Error("the message and its context are new, all else is shared")
	}
	if got.Context.Priority != kvrpcpb.CommandPri_High || got.Context.GetKeyspaceId() != NullKeyspaceID {
		t.Errorf("%v", got.Context)
	}
}

func TestRangesOfMessages(t *testing.T) {
	w, c := &Walker{}, New(V2, Raw, 7)
	encode := func(m any) any {
		out, err := w.Encode(c, m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const lo, hi = "r\x00\x00\x07", "r\x00\x00\x08"
	scan := encode(&kvrpcpb.RawScanRequest{}).(*kvrpcpb.RawScanRequest)
	back := encode(&kvrpcpb.RawScanRequest{Reverse: true}).(*kvrpcpb.RawScanRequest)
	if string(scan.StartKey) != lo || string(scan.EndKey) != hi || string(back.StartKey) != hi || string(back.EndKey) != lo {
		t.Errorf("%q %q, backwards %q %q", scan.StartKey, scan.EndKey, back.StartKey, back.EndKey)
	}
	if scan.Context.GetKeyspaceId() != 7 || scan.Context.GetApiVersion() != kvrpcpb.APIVersion_V2 {
		t.Errorf("%v", scan.Context)
	}
	ranges := func(r []*kvrpcpb.KeyRange) (out string) {
		for _, r := range r {
			out += fmt.Sprintf("%q-%q ", r.StartKey, r.EndKey)
		}
		return out
	}
	some := func() []*kvrpcpb.KeyRange {
		return []*kvrpcpb.KeyRange{{StartKey: b("a")}, {StartKey: b("c"), EndKey: b("d")}, {StartKey: b("e")}}
	}
	got := encode(&kvrpcpb.RawBatchScanRequest{Ranges: some()}).(*kvrpcpb.RawBatchScanRequest)
	if s := ranges(got.Ranges); s != `"r\x00\x00\aa"-"r\x00\x00\ac" "r\x00\x00\ac"-"r\x00\x00\ad" "r\x00\x00\ae"-"r\x00\x00\b" ` {
		t.Error(s)
	}
	down := []*kvrpcpb.KeyRange{{StartKey: b("d"), EndKey: b("c")}, {StartKey: b("b")}}
	got = encode(&kvrpcpb.RawBatchScanRequest{Ranges: down, Reverse: true}).(*kvrpcpb.RawBatchScanRequest)
	if s := ranges(got.Ranges); s != `"r\x00\x00\ad"-"r\x00\x00\ac" "r\x00\x00\ab"-"r\x00\x00\a" ` {
		t.Error(s)
	}
	if split := encode(&kvrpcpb.SplitRegionRequest{SplitKeys: [][]byte{b("k")}}).(*kvrpcpb.SplitRegionRequest); !split.IsRawKv {
		t.Error("a split at raw keys does not say so")
	}
	meta := encode(&mpp.DispatchTaskRequest{Meta: &mpp.TaskMeta{}}).(*mpp.DispatchTaskRequest).Meta
	if meta.GetKeyspaceId() != 7 || meta.ApiVersion != kvrpcpb.APIVersion_V2 {
		t.Errorf("%v", meta)
	}
}

// What a store says of other key spaces, or of regions that reach beyond this one.
func TestAnswersAcrossTheSpace(t *testing.T) {
	w, c, other := &Walker{}, New(V2, Txn, 7), New(V2, Txn, 8)
	enc := func(c Codec, user string) []byte { return c.RegionKey(c.Key(b(user))) }
	split := &kvrpcpb.SplitRegionResponse{Regions: []*metapb.Region{
		{Id: 1, EndKey: enc(c, "k")}, {Id: 2, StartKey: enc(c, "k")}, {Id: 3, StartKey: enc(other, "a"), EndKey: enc(other, "b")},
	}}
	if err := w.Decode(c, split); err != nil {
		t.Fatal(err)
	}
	if len(split.Regions) != 2 || len(split.Regions[0].StartKey) > 0 || string(split.Regions[0].EndKey) != "k" ||
		string(split.Regions[1].StartKey) != "k" || len(split.Regions[1].EndKey) > 0 {
		t.Errorf("%v", split)
	}
	wait := &kvrpcpb.GetLockWaitInfoResponse{Entries: []*deadlock.WaitForEntry{{Key: other.Key(b("a"))}, {Key: c.Key(b("b")), Txn: 3}}}
	if err := w.Decode(c, wait); err != nil || len(wait.Entries) != 1 || string(wait.Entries[0].Key) != "b" {
		t.Errorf("%v %v", wait, err)
	}
	get := &kvrpcpb.BatchGetResponse{RegionError: &errorpb.Error{
		KeyNotInRegion:        &errorpb.KeyNotInRegion{Key: append(enc(c, "k"), "\x00\x01\x02\x03\x04\x05\x06\x07"...), StartKey: enc(other, "a")},
		BucketVersionNotMatch: &errorpb.BucketVersionNotMatch{Keys: [][]byte{enc(New(V2, Txn, 6), "z"), enc(c, "b"), enc(c, "d"), enc(other, "a"), nil}},
	}}
	if err := w.Decode(c, get); err != nil {
		t.Fatal(err)
	}
	if e := get.RegionError.KeyNotInRegion; string(e.Key) != "k" || len(e.StartKey)+len(e.EndKey) > 0 {
		t.Errorf("%v", e)
	}
	if k := get.RegionError.BucketVersionNotMatch.Keys; fmt.Sprintf("%q", k) != `["" "b" "d" ""]` {
		t.Errorf("%q", k)
	}
	// An answer about a key of another space is no answer.
	for name, m := range map[string]any{
		"pair":  &kvrpcpb.BatchGetResponse{Pairs: []*kvrpcpb.KvPair{{Key: other.Key(b("a"))}}},
		"lock":  &coprocessor.Response{Locked: &kvrpcpb.LockInfo{Key: c.Key(b("a")), PrimaryLock: b("bare")}},
		"range": &coprocessor.Response{Range: &coprocessor.KeyRange{Start: other.Key(b("a")), End: other.Key(b("b"))}},
		"below": &coprocessor.Response{Range: &coprocessor.KeyRange{Start: b("a"), End: b("b")}},
		"batch": &coprocessor.Response{BatchResponses: []*coprocessor.StoreBatchTaskResponse{{Locked: &kvrpcpb.LockInfo{Key: b("x")}}}},
	} {
		var outside *OutsideError
		if err := w.Decode(c, m); !errors.As(err, &outside) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWalkerRefuses(t *testing.T) {
	w := &Walker{}
	for _, m := range []any{nil, 1, (*kvrpcpb.GetRequest)(nil), kvrpcpb.GetRequest{}, new(int), &bytes.Buffer{}} {
		if _, err := w.Encode(Codec{}, m); err == nil {
			t.Errorf("encodes %T", m)
		}
		if err := w.Decode(Codec{}, m); err == nil {
			t.Errorf("decodes %T", m)
		}
	}
}

func BenchmarkWalker(b *testing.B) {
	w, c := &Walker{}, New(V2, Txn, 7)
	req := &kvrpcpb.GetRequest{Context: &kvrpcpb.Context{}, Key: []byte("key")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Encode(c, req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		planOf(reflect.TypeFor[coprocessor.Response]())
	}
}
