package rawkv

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// looking is an engine that is looked at while a batch is applied.
type looking struct {
	storage.Engine
	during func()
}

func (e *looking) Apply(b *storage.Batch) error {
	e.during()
	return e.Engine.Apply(b)
}

// The timestamp of a version that is being written is known until it is written, so that
// nobody takes it, or a later one, for resolved.
func TestFlying(t *testing.T) {
	const none = ^uint64(0)
	now := uint64(100)
	engine := &looking{Engine: storage.NewMemory()}
	e := New(engine, Config{APIVersion: kvrpcpb.APIVersion_V2, Timestamp: func() (uint64, error) { now++; return now, nil }})
	var seen []uint64
	engine.during = func() { seen = append(seen, e.Landed()) }
	for range 2 {
		r := e.Put(t.Context(), keys.Range{}, &kvrpcpb.RawPutRequest{Context: &kvrpcpb.Context{ApiVersion: kvrpcpb.APIVersion_V2}, Key: []byte("r\x00\x00\x00k"), Value: []byte("v")})
		if r.Error != "" {
			t.Fatal(r)
		}
		if e.Landed() != none {
			t.Error(e.Landed())
		}
	}
	if len(seen) != 2 || seen[0] != 100 || seen[1] != 101 {
		t.Error(seen)
	}
}
