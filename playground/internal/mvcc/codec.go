package mvcc

import (
	"encoding/binary"
	"errors"

	"github.com/tikv-go/tikv/internal/keys"
)

// errFormat is a stored record that no TiKV writes.
var errFormat = errors.New("mvcc: bad format of a stored record")

// key is a transactional key, as the request has it and memcomparable-encoded, as it is
// stored and as regions are bounded.
type key struct{ raw, enc []byte }

func keyOf(raw []byte) key {
	// Room for a timestamp, so that the first versioned key of it need not be copied.
	return key{raw, keys.AppendEncoded(make([]byte, 0, keys.EncodedLen(len(raw))+tsLen), raw)}
}

const (
	tsLen = 8
	maxTS = ^uint64(0)
)

// at returns the stored key of a version: the encoded key and the timestamp, inverted
// so that the newest version comes first (TiKV components/txn_types/src/types.rs,
// Key::append_ts).
func at(enc []byte, ts uint64) []byte {
	k := make([]byte, len(enc), len(enc)+tsLen)
	copy(k, enc)
	return binary.BigEndian.AppendUint64(k, ^ts)
}

// splitVersion is the encoded key and the timestamp of a stored version.
func splitVersion(stored []byte) (enc []byte, ts uint64, err error) {
	n := len(stored) - tsLen
	if n < 0 {
		return nil, 0, errFormat
	}
	return stored[:n:n], ^binary.BigEndian.Uint64(stored[n:]), nil
}

// versionsFrom is the range of the versions of a key at or below ts.
func versionsFrom(enc []byte, ts uint64) keys.Range {
	return keys.Range{Start: at(enc, ts), End: append(at(enc, 0), 0)}
}

// physical is a timestamp's time in milliseconds (TiKV components/txn_types/src/
// timestamp.rs).
func physical(ts uint64) uint64 { return ts >> 18 }

// decoder reads the fields of a record; after a bad field it is failed and all that
// follows is zero.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) take(n uint64) []byte {
	if d.failed || n > uint64(len(d.b)) {
		d.failed, d.b = true, nil
		return nil
	}
	head := d.b[:n:n]
	d.b = d.b[n:]
	return head
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.take(uint64(n))
	return v
}

// bytes reads what TiKV calls compact bytes: a length as a signed varint, and so many
// bytes.
func (d *decoder) bytes() []byte {
	v, n := binary.Varint(d.b)
	if n <= 0 || v < 0 {
		d.failed, d.b = true, nil
		return nil
	}
	d.take(uint64(n))
	return d.take(uint64(v))
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// The optional fields that locks and writes share.
const (
	fieldShortValue = 'v'
	fieldLastChange = 'l'

	// maxShortValue is how long a value may be that is kept in the record itself
	// (TiKV components/txn_types/src/types.rs, SHORT_VALUE_MAX_LEN).
	maxShortValue = 255
)

func appendShortValue(dst, v []byte) []byte {
	return append(append(dst, fieldShortValue, byte(len(v))), v...)
}

// lastChange points from a record that changes no value to the one that did. We never
// make one (it saves TiKV steps over records without values) and keep those we find.
type lastChange struct{ ts, versions uint64 }

func (c lastChange) append(dst []byte) []byte {
	if c.versions == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint64(append(dst, fieldLastChange), c.ts)
	return binary.AppendUvarint(dst, c.versions)
}
