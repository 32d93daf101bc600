package keys

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRange(t *testing.T) {
	r := Range{[]byte("b"), []byte("d")}
	for key, want := range map[string]bool{"a": false, "b": true, "c": true, "d": false, "": false} {
		if r.Contains([]byte(key)) != want {
			t.Errorf("Contains(%q) = %v", key, !want)
		}
	}
	if !(Range{}).Contains([]byte("x")) || !(Range{}).Contains(nil) {
		t.Error("the zero range is every key")
	}
	if got := r.Intersect(Range{[]byte("c"), nil}); string(got.Start) != "c" || string(got.End) != "d" {
		t.Error(got)
	}
	if got := (Range{}).Intersect(r); string(got.Start) != "b" || string(got.End) != "d" {
		t.Error(got)
	}
	if !r.Intersect(Range{[]byte("e"), nil}).Empty() || r.Empty() || (Range{}).Empty() {
		t.Error("Empty")
	}
	if !(Range{}).Covers(r) || r.Covers(Range{}) || !r.Covers(r) || r.Covers(Range{[]byte("b"), nil}) {
		t.Error("Covers")
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "\xff\xff": "", "": "", "ab": "ac"} {
		if got := PrefixEnd([]byte(prefix)); string(got) != want {
			t.Errorf("PrefixEnd(%q) = %q", prefix, got)
		}
	}
	if string(Next([]byte("a"))) != "a\x00" {
		t.Error("Next")
	}
}

// The vectors are those of TiKV's own test of the encoding.
func TestEncodeVectors(t *testing.T) {
	for _, v := range []struct{ key, enc string }{
		{"", "\x00\x00\x00\x00\x00\x00\x00\x00\xf7"},
		{"\x01\x02\x03", "\x01\x02\x03\x00\x00\x00\x00\x00\xfa"},
		{"\x01\x02\x03\x04\x05\x06\x07\x08", "\x01\x02\x03\x04\x05\x06\x07\x08\xff\x00\x00\x00\x00\x00\x00\x00\x00\xf7"},
		{"\x01\x02\x03\x04\x05\x06\x07\x08\x09", "\x01\x02\x03\x04\x05\x06\x07\x08\xff\x09\x00\x00\x00\x00\x00\x00\x00\xf8"},
	} {
		if got := Encode([]byte(v.key)); string(got) != v.enc || len(got) != EncodedLen(len(v.key)) {
			t.Errorf("Encode(%q) = %q", v.key, got)
		}
		key, rest, err := Decode(append([]byte(v.enc), "tail"...))
		if err != nil || string(key) != v.key || string(rest) != "tail" {
			t.Errorf("Decode: %q %q %v", key, rest, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x00\x00\x00\x00\x00\xfa"), []byte("a"))
	f.Add(Encode([]byte("12345678")), []byte(""))
	f.Fuzz(func(t *testing.T, enc, other []byte) {
		key, rest, err := Decode(enc)
		if err == nil && !bytes.Equal(append(Encode(key), rest...), enc) {
			t.Fatalf("%q decodes to %q, which encodes differently", enc, key)
		}
		back, rest, err := Decode(Encode(other))
		if err != nil || len(rest) != 0 || !bytes.Equal(back, other) {
			t.Fatalf("%q came back as %q (%v)", other, back, err)
		}
		if err == nil && bytes.Compare(key, other) != bytes.Compare(Encode(key), Encode(other)) {
			t.Fatalf("order of %q and %q changed", key, other)
		}
	})
}

func TestCommon(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "a", 0}, {"a", "b", 0}, {"ab", "abc", 2}, {"abx", "aby", 2}, {"ab", "ab", 2}} {
		if got := Common([]byte(c.a), []byte(c.b)); got != c.want || got != Common([]byte(c.b), []byte(c.a)) {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
