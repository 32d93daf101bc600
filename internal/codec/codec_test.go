package codec

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func b(s string) []byte { return []byte(s) }

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		codec               Codec
		user, wire, atPD    string
		spaceStart, spaceTo string
	}{
		{New(V1, Raw, 0), "a", "a", "a", "", ""},
		{New(V1TTL, Raw, 0), "a", "a", "a", "", ""},
		{New(V1, Txn, 0), "a", "a", "a\x00\x00\x00\x00\x00\x00\x00\xf8", "", ""},
		{New(V2, Raw, 0), "a", "r\x00\x00\x00a", "r\x00\x00\x00a\x00\x00\x00\xfc", "r\x00\x00\x00", "r\x00\x00\x01"},
		{New(V2, Txn, 0x010203), "abcd", "x\x01\x02\x03abcd", "x\x01\x02\x03abcd\xff\x00\x00\x00\x00\x00\x00\x00\x00\xf7",
			"x\x01\x02\x03", "x\x01\x02\x04"},
		{New(V2, Txn, 0xff), "", "x\x00\x00\xff", "x\x00\x00\xff\x00\x00\x00\x00\xfb", "x\x00\x00\xff", "x\x00\x01\x00"},
		{New(V2, Raw, MaxKeyspaceID), "a", "r\xff\xff\xffa", "r\xff\xff\xffa\x00\x00\x00\xfc", "r\xff\xff\xff", "s\x00\x00\x00"},
		{New(V2, Txn, MaxKeyspaceID), "a", "x\xff\xff\xffa", "x\xff\xff\xffa\x00\x00\x00\xfc", "x\xff\xff\xff", "y\x00\x00\x00"},
	} {
		if got := c.codec.Key(b(c.user)); string(got) != c.wire {
			t.Errorf("%v: Key(%q) = %q", c.codec, c.user, got)
		}
		if got, err := c.codec.UserKey(b(c.wire)); err != nil || string(got) != c.user {
			t.Errorf("%v: UserKey(%q) = %q, %v", c.codec, c.wire, got, err)
		}
		if got := c.codec.RegionKey(b(c.wire)); string(got) != c.atPD {
			t.Errorf("%v: RegionKey(%q) = %q", c.codec, c.wire, got)
		}
		if got := c.codec.Space(); string(got.Start) != c.spaceStart || string(got.End) != c.spaceTo {
			t.Errorf("%v: Space is %q", c.codec, got)
		}
	}
}

func TestRanges(t *testing.T) {
	v1, v2 := New(V1, Txn, 0), New(V2, Txn, 7)
	for _, c := range []struct {
		codec      Codec
		user, wire keys.Range
	}{
		{v1, keys.Range{}, keys.Range{}},
		{v1, keys.Range{Start: b("a"), End: b("b")}, keys.Range{Start: b("a"), End: b("b")}},
		{v2, keys.Range{}, keys.Range{Start: b("x\x00\x00\x07"), End: b("x\x00\x00\x08")}},
		{v2, keys.Range{Start: b("a")}, keys.Range{Start: b("x\x00\x00\x07a"), End: b("x\x00\x00\x08")}},
		{v2, keys.Range{End: b("a")}, keys.Range{Start: b("x\x00\x00\x07"), End: b("x\x00\x00\x07a")}},
	} {
		if got := c.codec.Range(c.user); !equal(got, c.wire) {
			t.Errorf("Range(%q) = %q", c.user, got)
		}
		// The range's regions hold it, and no more than its keys of the space.
		if got := c.codec.WireRange(c.codec.RegionRange(c.wire)); !equal(got, c.wire) {
			t.Errorf("%q came back as %q", c.wire, got)
		}
	}
	if got := v1.RegionRange(keys.Range{}); len(got.Start)+len(got.End) != 0 {
		t.Errorf("no bounds became %q", got)
	}
}

func TestRegionsAcrossTheSpace(t *testing.T) {
	v2, enc := New(V2, Raw, 7), keys.Encode
	for name, c := range map[string]struct{ region, wire keys.Range }{
		"all":          {keys.Range{}, keys.Range{Start: b("r\x00\x00\x07"), End: b("r\x00\x00\x08")}},
		"begins lower": {keys.Range{Start: enc(b("a")), End: enc(b("r\x00\x00\x07k"))}, keys.Range{Start: b("r\x00\x00\x07"), End: b("r\x00\x00\x07k")}},
		"ends higher":  {keys.Range{Start: enc(b("r\x00\x00\x07k")), End: enc(b("z"))}, keys.Range{Start: b("r\x00\x00\x07k"), End: b("r\x00\x00\x08")}},
	} {
		if got := v2.WireRange(c.region); !equal(got, c.wire) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, region := range map[string]keys.Range{
		"lower":     {Start: nil, End: enc(b("r\x00\x00\x07"))},
		"higher":    {Start: enc(b("r\x00\x00\x08")), End: nil},
		"txn":       {Start: enc(b("x")), End: enc(b("y"))},
		"to 0x00":   {Start: nil, End: b("\x00")},
		"one point": {Start: enc(b("r\x00\x00\x07k")), End: enc(b("r\x00\x00\x07k"))},
	} {
		if got := v2.WireRange(region); !got.Empty() {
			t.Errorf("%s: %q", name, got)
		}
	}
	v1 := New(V1, Txn, 0)
	if got := v1.WireRange(keys.Range{End: b("\x00")}); !got.Empty() {
		t.Errorf("no encoding is below 0x00, but the region up to there holds %q", got)
	}
	// Boundaries that raw keys have left behind.
	if got := v1.WireRange(keys.Range{Start: b("a"), End: b("b\x01")}); !equal(got, keys.Range{Start: b("a"), End: b("b\x01")}) {
		t.Errorf("%q", got)
	}
	raw := New(V1, Raw, 0)
	if got := raw.WireRange(keys.Range{Start: b("a")}); string(got.Start) != "a" || got.End != nil {
		t.Errorf("%q", got)
	}
}

func equal(a, b keys.Range) bool {
	return bytes.Equal(a.Start, b.Start) && bytes.Equal(a.End, b.End)
}

func TestKeysOutside(t *testing.T) {
	c := New(V2, Raw, 7)
	for _, wire := range []string{"", "r", "r\x00\x00", "r\x00\x00\x06k", "r\x00\x00\x08", "x\x00\x00\x07secret"} {
		_, err := c.UserKey(b(wire))
		var outside *OutsideError
		if !errors.As(err, &outside) || string(outside.Key) != wire {
			t.Errorf("UserKey(%q): %v", wire, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q shows the key", err)
		}
	}
}

func TestFill(t *testing.T) {
	for _, c := range []struct {
		codec    Codec
		version  kvrpcpb.APIVersion
		keyspace uint32
	}{
		{New(V1, Txn, 5), kvrpcpb.APIVersion_V1, math.MaxUint32},
		{New(V1, Raw, 5), kvrpcpb.APIVersion_V1, math.MaxUint32},
		{New(V1TTL, Raw, 5), kvrpcpb.APIVersion_V1, math.MaxUint32},
		{New(V2, Raw, 5), kvrpcpb.APIVersion_V2, 5},
	} {
		ctx := kvrpcpb.Context{RegionId: 3}
		c.codec.Fill(&ctx)
		if ctx.ApiVersion != c.version || ctx.GetKeyspaceId() != c.keyspace || ctx.RegionId != 3 {
			t.Errorf("%v %v: %v", c.codec.Version(), c.codec.Mode(), &ctx)
		}
		if c.codec.KeyspaceID() != c.keyspace {
			t.Errorf("keyspace %d", c.codec.KeyspaceID())
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		V1.String(): "V1", V1TTL.String(): "V1TTL", V2.String(): "V2", APIVersion(9).String(): "APIVersion(9)",
		Txn.String(): "txn", Raw.String(): "raw", Mode(9).String(): "Mode(9)",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzRoundTrip: keys come back, keep their order at PD, and a region holds exactly the
// wire keys whose region keys lie in it, whatever its bounds.
func FuzzRoundTrip(f *testing.F) {
	f.Add(b("key"), b("other"), keys.Encode(b("k")), b("l"), uint32(7), uint8(5))
	f.Add(b(""), b("\x00"), b("\x00"), b("\x00\x00\x00\x00\x00\x00\x00\x00\xf7"), uint32(0), uint8(0))
	f.Add(b("12345678"), b("12345678\x00"), b("12345678\xfe\x01"), b("12345678\xff"), uint32(0xffffff), uint8(0))
	f.Add(b("\xff\xff\xff\xff\xff\xff\xff\xff"), b("\xff"), b("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), b(""), uint32(1), uint8(3))
	f.Add(b("a"), b("a\x00"), b("a\x00\x00\x00\x00\x00\x00\x00\xf8\x00"), b("a\x00\x00\x00\x00\x00\x00\x00\xf9"), uint32(1), uint8(0))
	f.Fuzz(func(t *testing.T, key, other, start, end []byte, id uint32, kind uint8) {
		c := New(APIVersion(kind%3), Mode(kind/3%2), id&MaxKeyspaceID)
		wire, otherWire := c.Key(key), c.Key(other)
		if back, err := c.UserKey(wire); err != nil || !bytes.Equal(back, key) {
			t.Fatalf("%q came back as %q (%v)", key, back, err)
		}
		if bytes.Compare(key, other) != bytes.Compare(c.RegionKey(wire), c.RegionKey(otherWire)) {
			t.Fatalf("order of %q and %q changed", key, other)
		}
		if !c.Space().Contains(wire) {
			t.Fatalf("%q is outside of its space", wire)
		}
		if back, err := c.UserKey(other); err == nil && !bytes.Equal(c.Key(back), other) {
			t.Fatalf("%q decodes to %q, which encodes differently", other, back)
		}
		// Neighbours find bounds that are off by one.
		region := keys.Range{Start: start, End: end}
		held := c.WireRange(region)
		for _, k := range [][]byte{wire, otherWire, c.Key(held.Start), c.Key(held.End), keys.Next(wire), held.Start, held.End} {
			if !c.Space().Contains(k) {
				continue
			}
			if at, in := region.Contains(c.RegionKey(k)), held.Contains(k); at != in {
				t.Fatalf("%v %v: %q in region %q: %v, in its keys %q: %v", c.Version(), c.Mode(), k, region, at, held, in)
			}
		}
	})
}
