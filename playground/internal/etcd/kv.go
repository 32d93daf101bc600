package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// KeyValue is a pair, with the revisions of its creation and last change, and the number
// of its changes since then (etcd: api/mvccpb/kv.proto).
type KeyValue struct {
	Key, Value   []byte
	Created, Mod int64
	Version      int64
}

// Event is a change of one key: to KV, or its end at the revision KV.Mod. Prev is what
// was there before, nil for nothing.
type Event struct {
	Deleted bool
	KV      KeyValue
	Prev    *KeyValue
}

// Write puts a value under a key, or deletes the key.
type Write struct {
	Key, Value []byte
	Delete     bool
}

// What a read or watch is refused with (etcd: api/v3rpc/rpctypes/error.go).
var (
	ErrEmptyKey  = errors.New("etcdserver: key is not provided")
	ErrCompacted = errors.New("etcdserver: mvcc: required revision has been compacted")
	ErrFuture    = errors.New("etcdserver: mvcc: required revision is a future revision")
	ErrNoLease   = errors.New("etcdserver: requested lease not found")
)

// KV are keys with their values of some revisions: the present one, and those since the
// last compaction. Its methods may be called concurrently.
type KV struct {
	meta *meta.Store

	mu        sync.Mutex
	pairs     map[string]KeyValue
	revision  int64
	compacted int64   // revisions below are gone
	events    []Event // those since, by revision
	changed   chan struct{}
}

// maxEvents is how many changes are kept: etcd under PD keeps those of the last hour
// (auto-compaction-retention), of which no test makes more. Those of an earlier start
// are compacted.
const maxEvents = 10000

const (
	pairPrefix   = "etcd/"
	revisionName = "etcd-revision"
	first        = 1 // revision of an etcd without keys
)

// OpenKV returns the keys that were saved in m.
func OpenKV(m *meta.Store) (*KV, error) {
	kv := &KV{meta: m, pairs: make(map[string]KeyValue), changed: make(chan struct{})}
	kv.revision = first
	if saved := int64(m.Number(revisionName)); saved > 0 {
		kv.revision = saved + 1 // PD writes when it begins: who watches from what is gone hears of it
	}
	kv.compacted = kv.revision
	for key, data := range m.Values(pairPrefix) {
		var pair KeyValue
		if err := json.Unmarshal(data, &pair); err != nil {
			return nil, fmt.Errorf("playground: the directory's metadata %q is damaged: %w", key, err)
		}
		kv.pairs[key] = pair
	}
	return kv, nil
}

// Revision is the present one.
func (kv *KV) Revision() int64 {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return kv.revision
}

// Apply does writes to different keys together, under one revision, and returns what was
// there under each. To delete what is not there changes nothing.
func (kv *KV) Apply(writes ...Write) (before []*KeyValue, revision int64, err error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	next := kv.revision + 1
	var events []Event
	var c meta.Change
	for _, w := range writes {
		if len(w.Key) == 0 {
			return nil, kv.revision, ErrEmptyKey
		}
		var prev *KeyValue
		if p, ok := kv.pairs[string(w.Key)]; ok {
			prev = &p
		}
		before = append(before, prev)
		if w.Delete && prev == nil {
			continue
		}
		e := Event{Deleted: w.Delete, Prev: prev, KV: KeyValue{Key: bytes.Clone(w.Key), Mod: next}}
		if !w.Delete {
			e.KV.Value, e.KV.Created, e.KV.Version = bytes.Clone(w.Value), next, 1
			if prev != nil {
				e.KV.Created, e.KV.Version = prev.Created, prev.Version+1
			}
		}
		if err := save(&c, e); err != nil {
			return nil, kv.revision, err
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return before, kv.revision, nil
	}
	c.Number(revisionName, uint64(next))
	if err := kv.meta.Apply(&c); err != nil {
		return nil, kv.revision, err
	}
	kv.take(next, events)
	return before, next, nil
}

func save(c *meta.Change, e Event) error {
	name := pairPrefix + string(e.KV.Key)
	if e.Deleted {
		c.DeleteValue(name)
		return nil
	}
	data, err := json.Marshal(e.KV)
	if err == nil {
		c.Value(name, data)
	}
	return err
}

// take makes a revision the present one. Callers hold the lock.
func (kv *KV) take(revision int64, events []Event) {
	for _, e := range events {
		if e.Deleted {
			delete(kv.pairs, string(e.KV.Key))
		} else {
			kv.pairs[string(e.KV.Key)] = e.KV
		}
	}
	kv.revision = revision
	kv.events = append(kv.events, events...)
	if len(kv.events) > maxEvents { // a revision goes whole or not at all
		kv.compacted = kv.events[maxEvents/2].KV.Mod + 1
		kv.events = slices.DeleteFunc(slices.Clone(kv.events), func(e Event) bool { return e.KV.Mod < kv.compacted })
	}
	close(kv.changed)
	kv.changed = make(chan struct{})
}

// Put sets a key.
func (kv *KV) Put(key string, value []byte) error {
	_, _, err := kv.Apply(Write{Key: []byte(key), Value: value})
	return err
}

// Range returns the pairs of [start, end) in order, of start alone if end is empty, and
// of all from start if end is a zero byte, as of a revision, 0 for the present one; and
// the present revision.
func (kv *KV) Range(start, end []byte, at int64) ([]KeyValue, int64, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	switch {
	case len(start) == 0:
		return nil, kv.revision, ErrEmptyKey
	case at > kv.revision:
		return nil, kv.revision, ErrFuture
	case at > 0 && at < kv.compacted:
		return nil, kv.revision, ErrCompacted
	}
	pairs := kv.pairs
	if at > 0 && at < kv.revision {
		pairs = kv.as(at)
	}
	var found []KeyValue
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		if InRange([]byte(key), start, end) {
			found = append(found, pairs[key])
		}
	}
	return found, kv.revision, nil
}

// as are the pairs as of an earlier revision that is kept: later changes are undone.
func (kv *KV) as(revision int64) map[string]KeyValue {
	pairs := maps.Clone(kv.pairs)
	for _, e := range slices.Backward(kv.events) {
		if e.KV.Mod <= revision {
			break
		}
		if e.Prev == nil {
			delete(pairs, string(e.KV.Key))
		} else {
			pairs[string(e.KV.Key)] = *e.Prev
		}
	}
	return pairs
}

// InRange reports whether key is what a range request for start and end asks for.
func InRange(key, start, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, start)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, start) >= 0
	}
	return bytes.Compare(key, start) >= 0 && bytes.Compare(key, end) < 0
}

// Watcher follows the changes of a range of keys. It is for one goroutine.
type Watcher struct {
	kv         *KV
	start, end []byte
	next       int64 // the first revision not yet seen
}

// Watch returns a watcher of the changes from a revision on, 0 for those to come.
func (kv *KV) Watch(start, end []byte, from int64) *Watcher {
	if from <= 0 {
		from = kv.Revision() + 1
	}
	return &Watcher{kv, start, end, from}
}

// Next returns the changes since the last call, up to the revision that it returns too,
// or a channel that is closed when it is worth to look again. Of changes that are gone
// it returns ErrCompacted and the first revision that is not.
func (w *Watcher) Next() (events []Event, revision int64, wait <-chan struct{}, err error) {
	w.kv.mu.Lock()
	defer w.kv.mu.Unlock()
	if w.next < w.kv.compacted {
		return nil, w.kv.compacted, nil, ErrCompacted
	}
	i, _ := slices.BinarySearchFunc(w.kv.events, w.next, func(e Event, rev int64) int { return int(e.KV.Mod - rev) })
	for _, e := range w.kv.events[i:] {
		if InRange(e.KV.Key, w.start, w.end) {
			events = append(events, e)
		}
	}
	w.next = max(w.next, w.kv.revision+1)
	return events, w.kv.revision, w.kv.changed, nil
}
