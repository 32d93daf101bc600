package rawkv

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// The texts are those of TiKV src/storage/errors.rs.

func errTTLNotEnabled() *check.Error {
	return &check.Error{Message: "ttl is not enabled, but get put request with ttl", Debug: "Error(TtlNotEnabled)"}
}

func errTTLCount() *check.Error {
	return &check.Error{
		Message: "The length of ttls does not equal to the length of pairs",
		Debug:   "Error(TtlLenNotEqualsToPairs)",
	}
}

func namedError(text, rust, name string) *check.Error {
	return &check.Error{Message: text + name, Debug: fmt.Sprintf("Error(%s(%q))", rust, name)}
}

// errorPair is how answers that are pairs carry an error (TiKV src/storage/errors.rs,
// extract_kv_pairs).
func errorPair(err *check.Error) []*kvrpcpb.KvPair {
	return []*kvrpcpb.KvPair{{Error: err.KeyError()}}
}

// message is the text of err, empty for nil.
func message(err *check.Error) string {
	if err == nil {
		return ""
	}
	return err.Message
}
