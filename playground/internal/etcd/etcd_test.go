package etcd

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

type view struct{}

func (view) ClusterID() uint64 { return 7 }
func (view) MemberID() uint64  { return 1 }
func (view) Members() []Member {
	return []Member{{1, "pd-0", []string{"http://peer"}, []string{"http://a", "http://b"}}}
}

func (view) Range(start, end []byte) []KeyValue {
	var all []KeyValue
	for _, k := range []string{"a", "b", "c"} {
		if InRange([]byte(k), start, end) {
			all = append(all, KeyValue{[]byte(k), []byte("v" + k)})
		}
	}
	return all
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
	b, err := memberList(view{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := fields(t, b)
	if h := fields(t, m[1][0]); h[1][0][0] != 7 || h[2][0][0] != 1 {
		t.Fatal(h)
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
		{"a", "\x00", 2, "ab", true}, {"", "", 0, "", false},
	} {
		req := appendBytes(nil, 1, []byte(test.key))
		req = appendBytes(req, 2, []byte(test.end))
		req = appendVarint(req, 3, test.limit)
		req = appendVarint(req, 6, 2) // a field that is not used
		b, err := kvRange(view{}, req)
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

func FuzzParseRange(f *testing.F) {
	f.Add(appendVarint(appendBytes(appendBytes(nil, 1, []byte("a")), 2, []byte("b")), 3, 4))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRange(b)
		if err != nil {
			return
		}
		again := appendVarint(appendBytes(appendBytes(nil, 1, r.Key), 2, r.End), 3, uint64(r.Limit))
		o, err := ParseRange(again)
		if err != nil || !bytes.Equal(o.Key, r.Key) || !bytes.Equal(o.End, r.End) || o.Limit != r.Limit {
			t.Fatal(r, o, err)
		}
		if _, err := kvRange(view{}, b); err != nil {
			t.Fatal(err)
		}
	})
}
