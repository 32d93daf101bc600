// Package check is what TiKV checks of a request before it runs: its API version, the
// mode of its keys, their size. The texts are TiKV's own, since clients see no more.
package check

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// MaxKeySize is how long a key may be: a raw one as it is, a transactional one
// memcomparable-encoded (TiKV src/storage/config.rs, DEFAULT_MAX_KEY_SIZE).
const MaxKeySize = 8 << 10

// Error is a refusal in the two forms in which TiKV's answers carry it: its message,
// in the error field of raw answers, and its Rust debug form, in KeyError.abort.
type Error struct{ Message, Debug string }

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// KeyError is the form in which key-value pairs and transactional answers carry it.
func (e *Error) KeyError() *kvrpcpb.KeyError { return &kvrpcpb.KeyError{Abort: e.Debug} }

// Other is an error of TiKV's catch-all kind.
func Other(text string) *Error { return &Error{text, fmt.Sprintf("Error(Other(%q))", text)} }

// KeySize refuses keys above MaxKeySize (TiKV src/storage/mod.rs, check_key_size).
func KeySize(size int) *Error {
	if size <= MaxKeySize {
		return nil
	}
	return &Error{
		fmt.Sprintf("max key size exceeded, size: %d, limit: %d", size, MaxKeySize),
		fmt.Sprintf("Error(KeyTooLarge { size: %d, limit: %d })", size, MaxKeySize),
	}
}

// InvalidRange refuses to delete a range that is empty or inverted (TiKV components/
// raftstore/src/store/fsm/apply.rs, handle_delete_range).
func InvalidRange(start, end []byte) string {
	list := func(b []byte) string { return strings.ReplaceAll(fmt.Sprint(b), " ", ", ") }
	return fmt.Sprintf("invalid delete range command, start_key: %s, end_key: %s", list(start), list(end))
}

// Command is a request's kind, by TiKV's own name (src/storage/metrics.rs,
// CommandKind). A raw one's name begins with "raw_".
type Command string

func (c Command) raw() bool { return strings.HasPrefix(string(c), "raw_") }

type keyMode uint8

const (
	unknown keyMode = iota
	raw
	txn
	tidb
)

// modeOf is TiKV components/api_version/src/api_v2.rs, parse_key_mode.
func modeOf(key []byte) keyMode {
	if len(key) == 0 {
		return unknown
	}
	switch key[0] {
	case 'r':
		return raw
	case 'x':
		return txn
	case 'm', 't':
		return tidb
	}
	return unknown
}

// modeOfRange is the mode of both ends, the upper one of which may be the first key
// behind the mode (api_v2.rs, parse_range_mode).
func modeOfRange(start, end []byte) keyMode {
	if len(start) == 0 || len(end) == 0 {
		return unknown
	}
	if start[0] == end[0] || len(end) == 1 && end[0] == start[0]+1 {
		return modeOf(start)
	}
	return unknown
}

// required returns the mode that keys of a request must have (unknown: any), or the
// refusal of the request's API version (TiKV src/storage/mod.rs, check_api_version).
func required(store kvrpcpb.APIVersion, ctx *kvrpcpb.Context, cmd Command) (keyMode, *Error) {
	const v1, v1ttl, v2 = kvrpcpb.APIVersion_V1, kvrpcpb.APIVersion_V1TTL, kvrpcpb.APIVersion_V2
	req := ctx.GetApiVersion()
	switch {
	case store == v1 && req == v1, store == v1ttl && req == v1 && cmd.raw():
		return unknown, nil
	case store == v2 && req == v2 && cmd.raw():
		return raw, nil
	case store == v2 && req == v2:
		return txn, nil
	case store == v2 && req == v1 && !cmd.raw():
		return tidb, nil
	}
	return unknown, &Error{
		fmt.Sprintf("Api version in request does not match with TiKV storage, cmd: %s, storage: %s, request: %s",
			cmd, versionName(store), versionName(req)),
		fmt.Sprintf("Error(ApiVersionNotMatched { cmd: %s, storage_api_version: %s, req_api_version: %s })",
			cmd, versionName(store), versionName(req)),
	}
}

// versionName is the version's name in Rust.
func versionName(v kvrpcpb.APIVersion) string {
	if v == kvrpcpb.APIVersion_V1TTL {
		return "V1ttl"
	}
	return v.String()
}

// Keys checks the API version of a request and the mode of its keys, which may be
// encoded or not. store is the version that the store has.
func Keys(store kvrpcpb.APIVersion, ctx *kvrpcpb.Context, cmd Command, keys ...[]byte) *Error {
	want, err := required(store, ctx, cmd)
	if err != nil || want == unknown {
		return err
	}
	for _, key := range keys {
		if modeOf(key) != want {
			name := strings.ToUpper(hex.EncodeToString(key))
			return &Error{
				fmt.Sprintf("Key mode mismatched with the request mode, cmd: %s, storage: %s, key: %s", cmd, versionName(store), name),
				fmt.Sprintf("Error(InvalidKeyMode { cmd: %s, storage_api_version: %s, key: %q })", cmd, versionName(store), name),
			}
		}
	}
	return nil
}

// Range checks the API version of a request and the mode of one of its ranges. An empty
// end is none.
func Range(store kvrpcpb.APIVersion, ctx *kvrpcpb.Context, cmd Command, start, end []byte) *Error {
	want, err := required(store, ctx, cmd)
	if err != nil || want == unknown || modeOfRange(start, end) == want {
		return err
	}
	bounds := "(" + optional(start) + ", " + optional(end) + ")"
	return &Error{
		fmt.Sprintf("Key mode mismatched with the request mode, cmd: %s, storage: %s, range: %s", cmd, versionName(store), bounds),
		fmt.Sprintf("Error(InvalidKeyRangeMode { cmd: %s, storage_api_version: %s, range: %s })", cmd, versionName(store), bounds),
	}
}

func optional(bound []byte) string {
	if len(bound) == 0 {
		return "None"
	}
	return fmt.Sprintf("Some(%q)", strings.ToUpper(hex.EncodeToString(bound)))
}
