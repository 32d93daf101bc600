package membuf

// Flags are what a transaction knows, claims or wants of a key, besides what it writes
// to it (client-go kv/keyflags.go; facts section 3.2).
//
// Locks that were taken are facts of the cluster, and so no undo takes them back: after
// Undo a key has those of its flags in Lasting that it has now, and of the others those
// that it had at the savepoint. A key that was not there then, and has none of Lasting,
// is gone. (client-go keeps the others too where the key had been written before the
// savepoint, so that a claim made by a write that was undone is still checked.)
type Flags uint16

const (
	// Absent claims that the cluster has no value for the key. It is checked when the
	// key is locked, or else when the transaction commits. With nothing written under
	// it, it is checked and leaves no trace (presume-key-not-exists).
	Absent Flags = 1 << iota
	// AbsentUnchecked is set with Absent by who wants a pessimistic lock to check it,
	// and cleared when a lock has (need-check-exists).
	AbsentUnchecked
	// Locked is a key that is locked by the transaction, or, in an optimistic one, will
	// be when it commits, written or not.
	Locked
	// Shared is a lock that others share. Only with Locked.
	Shared
	// HadValue is a key that had a value when it was locked. Only with Locked.
	HadValue
	// ConflictUnchecked is a key of a pessimistic transaction that is not locked: its
	// prewrite looks for conflicts. Writing a value clears it, as finding out by a lock
	// whether there is one must (need-constraint-check-in-prewrite).
	ConflictUnchecked
	// New is a key that the transaction itself made, having known that it was absent:
	// deleted again, it needs no deletion in the cluster (newly-inserted).
	New
	// AssertExists and AssertAbsent say what every replica must find when the key is
	// prewritten. Both together say that nothing can be asserted of it any more.
	AssertExists
	AssertAbsent

	// Lasting are the flags that outlive an undo.
	Lasting = Locked | Shared | HadValue | ConflictUnchecked
)
