package etcd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func show(pairs []KeyValue) string {
	var all []string
	for _, p := range pairs {
		all = append(all, fmt.Sprintf("%s=%s/%d/%d/%d", p.Key, p.Value, p.Created, p.Mod, p.Version))
	}
	return strings.Join(all, " ")
}

// Revisions, creation, versions and deletion as etcd counts them, and what was there at
// each revision; the same after the keys were opened again.
func TestRevisions(t *testing.T) {
	engine := storage.NewMemory()
	kv, err := OpenKV(meta.New(engine))
	if err != nil {
		t.Fatal(err)
	}
	put := func(k, v string) Write { return Write{Key: []byte(k), Value: []byte(v)} }
	del := func(k string) Write { return Write{Key: []byte(k), Delete: true} }
	for i, step := range []struct {
		writes   []Write
		revision int64
		before   int // pairs that were there
	}{
		{[]Write{put("a", "1")}, 2, 0},
		{[]Write{put("b", "1"), put("a", "2")}, 3, 1},
		{[]Write{del("x")}, 3, 0},
		{[]Write{del("a")}, 4, 1},
		{[]Write{put("a", "3")}, 5, 0},
	} {
		before, revision, err := kv.Apply(step.writes...)
		there := 0
		for _, b := range before {
			if b != nil {
				there++
			}
		}
		if err != nil || revision != step.revision || there != step.before || len(before) != len(step.writes) {
			t.Fatal(i, before, revision, err)
		}
	}
	if _, revision, err := kv.Apply(put("c", "1"), Write{}); !errors.Is(err, ErrEmptyKey) || revision != 5 {
		t.Fatal(revision, err)
	}
	for at, want := range map[int64]string{
		0: "a=3/5/5/1 b=1/3/3/1", 5: "a=3/5/5/1 b=1/3/3/1", 4: "b=1/3/3/1", 3: "a=2/2/3/2 b=1/3/3/1", 2: "a=1/2/2/1", 1: "",
	} {
		got, revision, err := kv.Range([]byte("a"), []byte{0}, at)
		if err != nil || revision != 5 || show(got) != want {
			t.Errorf("at %d: %s, want %s: %v", at, show(got), want, err)
		}
	}
	again, err := OpenKV(meta.New(engine))
	if err != nil {
		t.Fatal(err)
	}
	got, revision, err := again.Range([]byte("a"), []byte{0}, 0)
	if err != nil || revision != 6 || show(got) != "a=3/5/5/1 b=1/3/3/1" { // as in PD, whose leader writes when it begins
		t.Fatal(show(got), revision, err)
	}
	if _, _, err := again.Range([]byte("a"), nil, 5); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	// Who had not seen the last change is told that it is gone; who had goes on.
	if _, first, _, err := again.Watch([]byte("a"), nil, 5).Next(); !errors.Is(err, ErrCompacted) || first != 6 {
		t.Fatal(first, err)
	}
	w := again.Watch([]byte("a"), nil, 6)
	if err := again.Put("a", []byte("4")); err != nil {
		t.Fatal(err)
	}
	if events, revision, _, err := w.Next(); err != nil || revision != 7 || len(events) != 1 || events[0].KV.Version != 2 {
		t.Fatal(events, revision, err)
	}
}

// A watcher gets what its range had since its revision, once, and hears of more; what is
// compacted it is refused.
func TestWatcher(t *testing.T) {
	kv := abc(t).kv // revisions 2 to 4
	w := kv.Watch([]byte("b"), []byte{0}, 2)
	events, revision, wait, err := w.Next()
	if err != nil || len(events) != 2 || revision != 4 || string(events[0].KV.Key) != "b" || events[1].KV.Mod != 4 {
		t.Fatal(events, revision, err)
	}
	if events, _, _, err := w.Next(); err != nil || len(events) != 0 {
		t.Fatal(events, err)
	}
	late := kv.Watch([]byte("b"), nil, 0)
	if _, _, err := kv.Apply(Write{Key: []byte("b"), Delete: true}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wait:
	default:
		t.Fatal("the watcher was not woken")
	}
	for _, w := range []*Watcher{w, late} {
		events, revision, _, err := w.Next()
		if err != nil || revision != 5 || len(events) != 1 || !events[0].Deleted || events[0].Prev.Mod != 3 || events[0].KV.Mod != 5 {
			t.Fatal(events, revision, err)
		}
	}
	slow := kv.Watch([]byte("b"), nil, 5)
	for i := range maxEvents {
		if err := kv.Put("z", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, first, _, err := slow.Next(); !errors.Is(err, ErrCompacted) || first <= 5 {
		t.Fatal(first, err)
	}
	if events, _, _, err := kv.Watch([]byte("z"), nil, kv.compacted).Next(); err != nil || len(events) == 0 || events[0].KV.Mod != kv.compacted {
		t.Fatal(len(events), err)
	}
}
