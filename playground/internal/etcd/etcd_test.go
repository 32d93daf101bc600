package etcd

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

type view struct{ kv *KV }

func (view) ClusterID() uint64 { return 7 }
func (view) MemberID() uint64  { return 1 }
func (view) Members() []Member {
	return []Member{{1, "pd-0", []string{"http://peer"}, []string{"http://a", "http://b"}}}
}
func (v view) KV() *KV { return v.kv }

func (view) Quorum() (bool, <-chan struct{}) { return true, nil }

// abc is a view of the keys a, b and c.
func abc(t testing.TB) view {
	kv, err := OpenKV(meta.New(storage.NewMemory()))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "b", "c"} {
		if err := kv.Put(k, []byte("v"+k)); err != nil {
			t.Fatal(err)
		}
	}
	return view{kv}
}

// fields splits a message into its fields, which are those of etcd's protocol.
func fields(t *testing.T, b []byte) map[protowire.Number][][]byte {
	t.Helper()
	m := make(map[protowire.Number][][]byte)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		v := b[:n]
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(b)
		}
		m[num] = append(m[num], v)
		b = b[n:]
	}
	return m
}

func TestMemberList(t *testing.T) {
	b, err := memberList(abc(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := fields(t, b)
	if h := fields(t, m[1][0]); h[1][0][0] != 7 || h[2][0][0] != 1 || h[3] != nil {
		t.Fatal(h) // it has no revision: it is not about keys
	}
	member := fields(t, m[2][0])
	if len(m[2]) != 1 || string(member[2][0]) != "pd-0" || string(member[3][0]) != "http://peer" || len(member[4]) != 2 || string(member[4][1]) != "http://b" {
		t.Fatal(member)
	}
}

func TestRange(t *testing.T) {
	for _, test := range []struct {
		key, end string
		limit    uint64
		want     string
		more     bool
	}{
		{"a", "", 0, "a", false}, {"aa", "", 0, "", false}, {"a", "c", 0, "ab", false}, {"b", "\x00", 0, "bc", false},
		{"a", "\x00", 2, "ab", true},
	} {
		req := appendBytes(nil, 1, []byte(test.key))
		req = appendBytes(req, 2, []byte(test.end))
		req = appendVarint(req, 3, test.limit)
		req = appendVarint(req, 99, 2) // a field that is not known
		b, err := kvRange(abc(t), req)
		if err != nil {
			t.Fatal(err)
		}
		m := fields(t, b)
		got := ""
		for _, kv := range m[2] {
			f := fields(t, kv)
			got += string(f[1][0])
			if string(f[5][0]) != "v"+string(f[1][0]) {
				t.Error(f)
			}
		}
		if got != test.want || (m[3] != nil) != test.more {
			t.Errorf("%q-%q: %q, more %v", test.key, test.end, got, m[3])
		}
	}
}

// Order, bounds of revisions, and what a request leaves out (etcd: server/etcdserver/
// apply.go, Range): the whole range is counted whatever is shown of it.
func TestRangeOptions(t *testing.T) {
	v := abc(t)                                        // created at 2, 3 and 4
	if err := v.kv.Put("a", []byte("z")); err != nil { // changed at 5, the second version
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options map[protowire.Number]uint64
		want    string
		more    bool
	}{
		"descending":              {map[protowire.Number]uint64{5: 2}, "cba", false},
		"the last two":            {map[protowire.Number]uint64{5: 2, 3: 2}, "cb", true},
		"by version":              {map[protowire.Number]uint64{5: 1, 6: 1}, "bca", false},
		"by creation, descending": {map[protowire.Number]uint64{5: 2, 6: 2}, "cba", false},
		"by change, no order":     {map[protowire.Number]uint64{6: 3}, "bca", false},
		"by value":                {map[protowire.Number]uint64{5: 1, 6: 4}, "bca", false},
		"a limit before an order": {map[protowire.Number]uint64{6: 3, 3: 1}, "b", true},
		"changed since":           {map[protowire.Number]uint64{10: 4}, "ac", false},
		"changed until":           {map[protowire.Number]uint64{11: 4}, "bc", false},
		"created since":           {map[protowire.Number]uint64{12: 3}, "bc", false},
		"created until":           {map[protowire.Number]uint64{13: 3, 3: 1}, "a", true},
		"only a number":           {map[protowire.Number]uint64{9: 1, 3: 1}, "", false},
	} {
		req := appendBytes(appendBytes(nil, 1, []byte("a")), 2, []byte{0})
		for num, n := range test.options {
			req = appendVarint(req, num, n)
		}
		b, err := kvRange(v, req)
		if err != nil {
			t.Fatal(name, err)
		}
		got := ""
		m := fields(t, b)
		for _, kv := range m[2] {
			got += string(fields(t, kv)[1][0])
		}
		if got != test.want || (m[3] != nil) != test.more || m[4][0][0] != 3 {
			t.Errorf("%s: %s, more %v, of %v", name, got, m[3], m[4])
		}
	}
	b, err := kvRange(v, appendVarint(appendBytes(nil, 1, []byte("a")), 8, 1))
	if err != nil {
		t.Fatal(err)
	}
	if f := fields(t, fields(t, b)[2][0]); f[5] != nil || f[3][0][0] != 5 {
		t.Error("keys only:", f)
	}
	for _, bad := range []protowire.Number{5, 6} {
		if _, err := kvRange(v, appendVarint(appendBytes(nil, 1, []byte("a")), bad, 5)); !errors.Is(err, ErrSort) {
			t.Error(bad, err)
		}
	}
}

// A request for a revision that is none, or for no key, is refused in etcd's words.
func TestRangeRefused(t *testing.T) {
	for _, test := range []struct {
		key      string
		revision uint64
		want     error
	}{{"", 0, ErrEmptyKey}, {"a", 9, ErrFuture}, {"a", 4, nil}} {
		_, err := kvRange(abc(t), appendVarint(appendBytes(nil, 1, []byte(test.key)), 4, test.revision))
		if !errors.Is(err, test.want) {
			t.Errorf("%q at %d: %v", test.key, test.revision, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add(appendVarint(appendBytes(appendBytes(nil, 1, []byte("a")), 2, []byte("b")), 3, 4))
	f.Add([]byte{0x0a, 0xff})
	v := abc(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRange(b)
		if err != nil {
			return
		}
		again := appendVarint(appendBytes(appendBytes(nil, 1, r.Key), 2, r.End), 3, uint64(r.Limit))
		again = appendVarint(again, 4, uint64(r.Revision))
		o, err := ParseRange(again)
		if err != nil || !bytes.Equal(o.Key, r.Key) || !bytes.Equal(o.End, r.End) || o.Limit != r.Limit || o.Revision != r.Revision {
			t.Fatal(r, o, err)
		}
		if _, err := kvRange(v, b); err != nil && codeOf(err) != codes.OutOfRange && !errors.Is(err, ErrEmptyKey) && !errors.Is(err, ErrSort) {
			t.Fatal(err)
		}
	})
}

// Which requests need a majority: member lists that ask for it, and ranges that do not ask
// to do without.
func TestLinearizable(t *testing.T) {
	set := linearizable{1, func(v uint64) bool { return v != 0 }}
	unset := linearizable{7, func(v uint64) bool { return v == 0 }}
	flag := func(num protowire.Number, v uint64) []byte {
		b := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte("end"))
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
	}
	for _, test := range []struct {
		l    linearizable
		req  []byte
		want bool
	}{
		{set, nil, false}, {set, flag(1, 1), true}, {set, flag(1, 0), false}, {set, flag(7, 1), false}, {set, []byte{0x0a, 0xff}, false},
		{unset, nil, true}, {unset, flag(7, 1), false}, {unset, flag(7, 0), true}, {unset, flag(3, 1), true}, {unset, []byte{0xff}, false},
	} {
		if got := test.l.is(test.req); got != test.want {
			t.Errorf("%d, %x: %t", test.l.field, test.req, got)
		}
	}
}
