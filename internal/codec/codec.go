// Package codec turns user keys into the keys that TiKV's requests carry (wire keys)
// and into the keys that PD divides into regions (region keys), and back.
package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// APIVersion is the storage format that a cluster was started with (TiKV
// storage.api-version, storage.enable-ttl).
type APIVersion uint8

// The API versions.
const (
	V1    APIVersion = iota // keys are stored as given; raw and transactional keys overlap
	V1TTL                   // V1 with TTLs on raw keys; no transactions
	V2                      // keys stand behind a mode byte and a keyspace id
)

// String is the version's name in TiKV's terms.
func (v APIVersion) String() string {
	switch v {
	case V1:
		return "V1"
	case V1TTL:
		return "V1TTL"
	case V2:
		return "V2"
	}
	return fmt.Sprintf("APIVersion(%d)", uint8(v))
}

// Mode is the kind of keys: those of transactions or raw ones.
type Mode uint8

// The modes.
const (
	Txn Mode = iota
	Raw
)

// String is the mode's name.
func (m Mode) String() string {
	switch m {
	case Txn:
		return "txn"
	case Raw:
		return "raw"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MaxKeyspaceID is the highest id of a keyspace: the id takes 3 bytes of a key (PD
// pkg/keyspace, MaxValidKeyspaceID).
const MaxKeyspaceID = 0xffffff

// NullKeyspaceID stands for no keyspace, in the requests of API V1 and in calls to PD.
const NullKeyspaceID = 0xffffffff

const prefixLen = 4

// Codec is the encoding of one key space: an API version, a mode and, on V2, a
// keyspace. The zero Codec is that of V1's transactional keys, but for Fill. It is
// immutable and safe for concurrent use.
type Codec struct {
	version  APIVersion
	mode     Mode
	prefix   [prefixLen]byte // V2: of the key space
	end      [prefixLen]byte // V2: the first key after it
	keyspace *kvrpcpb.Context_KeyspaceId
}

// New returns the codec of a key space. keyspaceID counts on V2 only, where it is at
// most MaxKeyspaceID: who reads it from PD checks it.
func New(v APIVersion, m Mode, keyspaceID uint32) Codec {
	c := Codec{version: v, mode: m}
	if v != V2 {
		c.keyspace = &kvrpcpb.Context_KeyspaceId{KeyspaceId: NullKeyspaceID}
		return c
	}
	mode := uint32('x')
	if m == Raw {
		mode = 'r'
	}
	keyspaceID &= MaxKeyspaceID
	// The end is the next id, or the next mode byte after the last id (PD
	// pkg/keyspace/util.go, MakeRegionBound).
	binary.BigEndian.PutUint32(c.prefix[:], mode<<24|keyspaceID)
	binary.BigEndian.PutUint32(c.end[:], (mode<<24|keyspaceID)+1)
	c.keyspace = &kvrpcpb.Context_KeyspaceId{KeyspaceId: keyspaceID}
	return c
}

// Version is the codec's API version.
func (c Codec) Version() APIVersion { return c.version }

// Mode is the codec's mode.
func (c Codec) Mode() Mode { return c.mode }

// KeyspaceID is the codec's keyspace, or NullKeyspaceID where the API version has none.
func (c Codec) KeyspaceID() uint32 {
	if c.keyspace == nil {
		return NullKeyspaceID
	}
	return c.keyspace.KeyspaceId
}

// Space is all wire keys of the codec.
func (c Codec) Space() keys.Range {
	if c.version != V2 {
		return keys.Range{}
	}
	return keys.Range{Start: bytes.Clone(c.prefix[:]), End: bytes.Clone(c.end[:])}
}

// Key returns the wire key of a user key: on V1 the same slice, on V2 a new one.
func (c Codec) Key(user []byte) []byte {
	if c.version != V2 {
		return user
	}
	wire := make([]byte, prefixLen+len(user))
	copy(wire, c.prefix[:])
	copy(wire[prefixLen:], user)
	return wire
}

// Keys returns the wire keys of user keys: on V1 the same slice, on V2 a new one.
func (c *Codec) Keys(user [][]byte) [][]byte {
	if c.version != V2 {
		return user
	}
	size := 0
	for _, key := range user {
		size += prefixLen + len(key)
	}
	wire, room := make([][]byte, len(user)), make([]byte, 0, size)
	for i, key := range user {
		begin := len(room)
		room = append(append(room, c.prefix[:]...), key...)
		wire[i] = room[begin:len(room):len(room)]
	}
	return wire
}

// OutsideError is a key that does not belong to the codec's key space.
type OutsideError struct{ Key []byte }

// Error describes the key without showing it.
func (e *OutsideError) Error() string {
	return "codec: key " + keys.Printer{}.Key(e.Key) + " lies outside of the key space"
}

// UserKey returns the user key of a wire key, which shares its bytes. The error is an
// *OutsideError.
func (c Codec) UserKey(wire []byte) ([]byte, error) {
	if c.version != V2 {
		return wire, nil
	}
	if !bytes.HasPrefix(wire, c.prefix[:]) {
		return nil, &OutsideError{Key: wire}
	}
	return wire[prefixLen:], nil
}

// Range returns the wire range of a range of user keys. On V2 an empty end becomes the
// end of the keyspace.
func (c Codec) Range(user keys.Range) keys.Range {
	if c.version != V2 {
		return user
	}
	wire := keys.Range{Start: c.Key(user.Start)}
	if len(user.End) == 0 {
		wire.End = bytes.Clone(c.end[:])
	} else {
		wire.End = c.Key(user.End)
	}
	return wire
}

// RegionKey returns a wire key as PD holds it: the same slice for raw keys of V1, else
// a new one in memcomparable form.
func (c Codec) RegionKey(wire []byte) []byte {
	if c.plain() {
		return wire
	}
	return keys.Encode(wire)
}

// AppendRegionKey returns a wire key as PD holds it: the same slice for raw keys of V1,
// else dst with the memcomparable form appended.
func (c *Codec) AppendRegionKey(dst, wire []byte) []byte {
	if c.plain() {
		return wire
	}
	return keys.AppendEncoded(dst, wire)
}

// RegionRange returns a wire range as PD holds it. An empty bound stays empty.
func (c Codec) RegionRange(wire keys.Range) keys.Range {
	if len(wire.Start) > 0 {
		wire.Start = c.RegionKey(wire.Start)
	}
	if len(wire.End) > 0 {
		wire.End = c.RegionKey(wire.End)
	}
	return wire
}

// WireRange returns the wire keys of the codec's key space that a region with the
// given bounds holds; it is Empty for a region without any. Every bound has an answer,
// also one that no key encodes to (a region may end anywhere): it falls to the first
// key that is not below it.
func (c Codec) WireRange(region keys.Range) keys.Range {
	if !c.plain() {
		if len(region.Start) > 0 {
			region.Start = firstFrom(region.Start)
		}
		if len(region.End) > 0 {
			if region.End = firstFrom(region.End); len(region.End) == 0 {
				// Below every key: the region holds none, and an empty end would say
				// the opposite.
				return keys.Range{Start: []byte{0}, End: []byte{0}}
			}
		}
	}
	if c.version == V2 {
		region = region.Intersect(c.Space())
	}
	return region
}

// Fill sets the fields of a request's context that name the key space. V1TTL is not
// said: a server in that mode takes requests marked V1 only (TiKV
// src/storage/mod.rs, check_api_version).
func (c Codec) Fill(ctx *kvrpcpb.Context) {
	ctx.ApiVersion = kvrpcpb.APIVersion_V1
	if c.version == V2 {
		ctx.ApiVersion = kvrpcpb.APIVersion_V2
	}
	if c.keyspace != nil {
		ctx.Keyspace = c.keyspace
	}
}

// plain reports whether PD holds the keys as they are.
func (c Codec) plain() bool { return c.version != V2 && c.mode == Raw }
