package router

import "strings"

// Class is what a refusal is about, where TiKV says so only in words.
type Class uint8

// The classes.
const (
	ClassOther Class = iota
	ClassUnsupported
	ClassTooLarge
	ClassGone // the transaction that the request is about has lost what it had locked
)

// texts is the only place in which the words of a server are looked at: the strings
// that TiKV gives no code for, each with its source.
var texts = [...]struct {
	text  string
	class Class
	from  string
}{
	{"ttl is not enabled", ClassUnsupported, "src/storage/errors.rs TtlNotEnabled"},
	{"cf is deprecated in API V2", ClassUnsupported, "src/storage/errors.rs CfDeprecated"},
	{"Api version in request does not match", ClassUnsupported, "src/storage/errors.rs ApiVersionNotMatched"},
	{"Key mode mismatched with the request mode", ClassUnsupported, "src/storage/errors.rs InvalidKeyMode"},
	// Transactional requests have them in Rust's Debug form (src/storage/txn/mod.rs, extract_key_error).
	{"ApiVersionNotMatched {", ClassUnsupported, "src/storage/errors.rs ApiVersionNotMatched"},
	{"InvalidKeyMode {", ClassUnsupported, "src/storage/errors.rs InvalidKeyMode"},
	{"InvalidKeyRangeMode {", ClassUnsupported, "src/storage/errors.rs InvalidKeyRangeMode"},
	{"PessimisticLockNotFound {", ClassGone, "src/storage/mvcc/mod.rs PessimisticLockNotFound"},
	{"PessimisticLockRolledBack {", ClassGone, "src/storage/mvcc/mod.rs PessimisticLockRolledBack"},
	{"max key size exceeded", ClassTooLarge, "src/storage/errors.rs KeyTooLarge"},
}

// overdue reports whether a store that is busy means that a request's own time was over
// (components/tikv_util/src/deadline.rs, set_deadline_exceeded_busy_error).
func overdue(reason string) bool { return strings.Contains(reason, "deadline is exceeded") }

// isFuture reports whether a region error without a code means that a timestamp is none
// that PD can have given out (components/concurrency_manager/src/lib.rs, InvalidMaxTsUpdate).
func isFuture(message string) bool { return strings.Contains(message, "invalid max_ts update") }

// Classify tells what the text of a server's error is about.
func Classify(text string) Class {
	for i := range texts {
		if strings.Contains(text, texts[i].text) {
			return texts[i].class
		}
	}
	return ClassOther
}
