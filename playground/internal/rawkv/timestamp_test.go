package rawkv

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// A V2 write without a timestamp is refused: nobody would see it.
func TestNoTimestampNoWrite(t *testing.T) {
	none := errors.New("no timestamp")
	e := New(storage.NewMemory(), Config{APIVersion: v2, Now: time.Now, Timestamp: func() (uint64, error) { return 0, none }})
	key, ctx := []byte(prefix+"k"), &kvrpcpb.Context{ApiVersion: v2}
	for name, text := range map[string]string{
		"put":    e.Put(t.Context(), keys.Range{}, &kvrpcpb.RawPutRequest{Context: ctx, Key: key, Value: []byte("v")}).Error,
		"delete": e.Delete(t.Context(), keys.Range{}, &kvrpcpb.RawDeleteRequest{Context: ctx, Key: key}).Error,
		"cas":    e.CompareAndSwap(t.Context(), keys.Range{}, &kvrpcpb.RawCASRequest{Context: ctx, Key: key, Value: []byte("v"), PreviousNotExist: true}).Error,
	} {
		if !strings.Contains(text, none.Error()) {
			t.Errorf("%s: %q", name, text)
		}
	}
}
