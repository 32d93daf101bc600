package playground

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// APIVersion is what the stores are set to: which requests they take and how they keep
// keys.
type APIVersion uint8

// The API versions. V1 takes raw and transactional requests, for separate key ranges;
// V1TTL raw ones with a time to live; V2 has both side by side, in keyspaces.
const (
	APIV1 APIVersion = iota
	APIV1TTL
	APIV2
)

// String returns the version's name as the tool has it.
func (v APIVersion) String() string {
	switch v {
	case APIV1:
		return "v1"
	case APIV1TTL:
		return "v1ttl"
	case APIV2:
		return "v2"
	}
	return fmt.Sprintf("APIVersion(%d)", uint8(v))
}

func (v APIVersion) proto() kvrpcpb.APIVersion {
	switch v {
	case APIV1TTL:
		return kvrpcpb.APIVersion_V1TTL
	case APIV2:
		return kvrpcpb.APIVersion_V2
	}
	return kvrpcpb.APIVersion_V1
}

// KeyMode tells transactional keys from raw ones: two spaces that differ in how keys
// are kept.
type KeyMode uint8

// The key modes.
const (
	KeyTxn KeyMode = iota + 1
	KeyRaw
)

// String returns "txn" or "raw".
func (m KeyMode) String() string {
	switch m {
	case KeyTxn:
		return "txn"
	case KeyRaw:
		return "raw"
	}
	return fmt.Sprintf("KeyMode(%d)", uint8(m))
}

// prefix begins the wire keys of the mode: in V2 the mode's byte and the id of the
// keyspace DEFAULT, whose keys this package speaks of.
func (v APIVersion) prefix(m KeyMode) []byte {
	switch {
	case v != APIV2:
		return nil
	case m == KeyRaw:
		return []byte{'r', 0, 0, 0}
	}
	return []byte{'x', 0, 0, 0}
}

// wireKey is a user key as requests carry it.
func (v APIVersion) wireKey(m KeyMode, key []byte) []byte {
	return append(v.prefix(m), key...)
}

// regionKey is a user key as regions have it.
func (v APIVersion) regionKey(m KeyMode, key []byte) []byte {
	if m == KeyRaw && v != APIV2 {
		return append([]byte(nil), key...)
	}
	return keys.Encode(v.wireKey(m, key))
}

// userKey takes a wire key's prefix off: that of any keyspace.
func (v APIVersion) userKey(wire []byte) []byte {
	if v == APIV2 && len(wire) >= 4 && (wire[0] == 'r' || wire[0] == 'x') {
		return wire[4:]
	}
	return wire
}

// userOf is the user key of a region key, which is left as it is where it cannot be
// one that was encoded.
func (v APIVersion) userOf(regionKey []byte) []byte {
	wire, rest, err := keys.Decode(regionKey)
	if v == APIV1TTL || err != nil || len(rest) > 0 {
		return regionKey
	}
	return v.userKey(wire)
}
