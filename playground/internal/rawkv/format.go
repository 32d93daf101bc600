package rawkv

import (
	"encoding/binary"
	"errors"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// format is how keys and values are stored (TiKV components/api_version/src).
//
//	V1     key, value
//	V1TTL  key, value + expiry (8 bytes, big endian; seconds since 1970, 0: never)
//	V2     memcomparable key + timestamp (8 bytes, big endian, inverted),
//	       value + [expiry] + flags (1 byte)
type format uint8

const (
	formatV1 format = iota
	formatV1TTL
	formatV2
)

func formatOf(v kvrpcpb.APIVersion) format {
	switch v {
	case kvrpcpb.APIVersion_V1TTL:
		return formatV1TTL
	case kvrpcpb.APIVersion_V2:
		return formatV2
	}
	return formatV1
}

// value is a stored value: what the client wrote, when it ends, and whether it is a
// deletion. In V2 an expiry of 0 is one that has passed, in V1TTL it is none.
type value struct {
	data    []byte
	expires uint64 // 0: never
	deleted bool
}

func (v value) visible(now uint64) bool {
	return !v.deleted && (v.expires == 0 || v.expires > now)
}

// The flags of a V2 value (api_v2.rs, ValueMeta).
const (
	flagExpires = 1 << iota
	flagDeleted
)

var errStoredValue = errors.New("a stored raw value is not of the store's API version")

func (f format) decode(stored []byte) (value, error) {
	switch f {
	case formatV1TTL:
		n := len(stored) - 8
		if n < 0 {
			return value{}, errStoredValue
		}
		return value{data: stored[:n:n], expires: binary.BigEndian.Uint64(stored[n:])}, nil
	case formatV2:
		return decodeV2(stored)
	}
	return value{data: stored}, nil
}

func decodeV2(stored []byte) (value, error) {
	n := len(stored) - 1
	if n < 0 || stored[n]&^(flagExpires|flagDeleted) != 0 {
		return value{}, errStoredValue
	}
	flags := stored[n]
	v := value{deleted: flags&flagDeleted != 0}
	if flags&flagExpires != 0 {
		if n -= 8; n < 0 {
			return value{}, errStoredValue
		}
		v.expires = binary.BigEndian.Uint64(stored[n:])
		if v.expires == 0 {
			v.deleted = true // the first second of 1970 is over
		}
	}
	v.data = stored[:n:n]
	return v, nil
}

func (f format) encode(v value) []byte {
	switch f {
	case formatV1TTL:
		stored := append(make([]byte, 0, len(v.data)+8), v.data...)
		return binary.BigEndian.AppendUint64(stored, v.expires)
	case formatV2:
		var flags byte
		stored := append(make([]byte, 0, len(v.data)+9), v.data...)
		if v.expires != 0 {
			flags |= flagExpires
			stored = binary.BigEndian.AppendUint64(stored, v.expires)
		}
		if v.deleted {
			flags |= flagDeleted
		}
		return append(stored, flags)
	}
	return v.data
}

// bound is the engine's form of a scan's bound; an empty one stays empty.
func (f format) bound(key []byte) []byte {
	if f != formatV2 || len(key) == 0 {
		return key
	}
	return keys.Encode(key)
}

const tsLen = 8

// versionKey is a V2 engine key.
func versionKey(key []byte, ts uint64) []byte {
	enc := keys.AppendEncoded(make([]byte, 0, keys.EncodedLen(len(key))+tsLen), key)
	return binary.BigEndian.AppendUint64(enc, ^ts)
}

// versions is the range of a key's versions, newest first. It leaves out the timestamp
// 0, which nothing is written at (TiKV src/storage/raw/raw_mvcc.rs).
func versions(key []byte) keys.Range {
	last := versionKey(key, 0)
	n := len(last) - tsLen
	return keys.Range{Start: last[:n:n], End: last}
}

// splitVersion is the encoded key and the timestamp of a V2 engine key.
func splitVersion(engineKey []byte) (enc []byte, ts uint64, ok bool) {
	n := len(engineKey) - tsLen
	if n < 0 {
		return nil, 0, false
	}
	return engineKey[:n:n], ^binary.BigEndian.Uint64(engineKey[n:]), true
}
