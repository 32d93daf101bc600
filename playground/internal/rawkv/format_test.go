package rawkv

import (
	"bytes"
	"testing"
)

// The vectors follow TiKV components/api_version/src/lib.rs, test_value_encode_decode.
func TestValueVectors(t *testing.T) {
	for _, c := range []struct {
		format format
		value  value
		stored string
	}{
		{formatV1, value{data: []byte("value")}, "value"},
		{formatV1TTL, value{data: []byte("value")}, "value\x00\x00\x00\x00\x00\x00\x00\x00"},
		{formatV1TTL, value{data: []byte("value"), expires: 100}, "value\x00\x00\x00\x00\x00\x00\x00\x64"},
		{formatV2, value{data: []byte("value")}, "value\x00"},
		{formatV2, value{data: []byte("value"), expires: 100}, "value\x00\x00\x00\x00\x00\x00\x00\x64\x01"},
		{formatV2, value{deleted: true}, "\x02"},
		{formatV2, value{data: []byte("v"), expires: 2, deleted: true}, "v\x00\x00\x00\x00\x00\x00\x00\x02\x03"},
	} {
		if got := c.format.encode(c.value); string(got) != c.stored {
			t.Errorf("%d %+v: %q", c.format, c.value, got)
		}
		got, err := c.format.decode([]byte(c.stored))
		if err != nil || !bytes.Equal(got.data, c.value.data) || got.expires != c.value.expires || got.deleted != c.value.deleted {
			t.Errorf("%d %q: %+v %v", c.format, c.stored, got, err)
		}
	}
	for _, c := range []struct {
		format format
		stored string
	}{
		{formatV1TTL, ""}, {formatV1TTL, "1234567"},
		{formatV2, ""}, {formatV2, "\x04"}, {formatV2, "1234567\x01"}, {formatV2, "v\x80"},
	} {
		if got, err := c.format.decode([]byte(c.stored)); err == nil {
			t.Errorf("%d %q: %+v", c.format, c.stored, got)
		}
	}
}

func FuzzDecodeValue(f *testing.F) {
	f.Add(uint8(1), []byte("value\x00\x00\x00\x00\x00\x00\x00\x64"))
	f.Add(uint8(2), []byte("value\x00\x00\x00\x00\x00\x00\x00\x64\x01"))
	f.Add(uint8(2), []byte("\x02"))
	f.Fuzz(func(t *testing.T, n uint8, stored []byte) {
		format := format(n % 3)
		v, err := format.decode(stored)
		if err != nil || format == formatV2 && v.expires == 0 && v.deleted && stored[len(stored)-1]&flagExpires != 0 {
			return // the one form with two encodings
		}
		if got := format.encode(v); !bytes.Equal(got, stored) {
			t.Fatalf("%q decodes to %+v, which encodes to %q", stored, v, got)
		}
	})
}

func TestVersionKeys(t *testing.T) {
	key := []byte("r\x00\x00\x00key")
	r := versions(key)
	for _, ts := range []uint64{1, 2, 1 << 60, ^uint64(0)} {
		k := versionKey(key, ts)
		if !r.Contains(k) {
			t.Errorf("ts %d is not in the range", ts)
		}
		enc, got, ok := splitVersion(k)
		if !ok || got != ts || !bytes.Equal(enc, r.Start) {
			t.Errorf("%x: %x %d", k, enc, got)
		}
	}
	if bytes.Compare(versionKey(key, 2), versionKey(key, 1)) >= 0 {
		t.Error("the newest is not first")
	}
	if r.Contains(versionKey([]byte("r\x00\x00\x00kez"), 1)) || r.Contains(versionKey([]byte("r\x00\x00\x00key\x00"), 1)) {
		t.Error("another key is in the range")
	}
	if _, _, ok := splitVersion([]byte("1234567")); ok {
		t.Error("too short")
	}
}
