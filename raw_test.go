package tikv_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func TestRawSmoke(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV1TTL, playground.APIV2} {
		t.Run(v.String(), func(t *testing.T) {
			cluster := startCluster(t, playground.WithAPIVersion(v), playground.WithSplitKeys(playground.KeyRaw, []byte("k3"), []byte("k6")))
			raw, ctx := openClient(t, cluster).Raw(), t.Context()
			if _, err := raw.Get(ctx, []byte("k1")); !errors.Is(err, tikv.ErrNotFound) {
				t.Fatal(err)
			}
			for i := range 9 {
				if err := raw.Put(ctx, fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil, "v%d", i)); err != nil {
					t.Fatal(err)
				}
			}
			b, err := raw.Get(ctx, []byte("k7"))
			if err != nil || string(b) != "v7" {
				t.Fatal(b, err)
			}
			pairs, err := tikv.Collect(raw.Scan(ctx, tikv.Range{}, tikv.WithReverse(), tikv.WithPageSize(2)))
			if err != nil || len(pairs) != 9 {
				t.Fatal(pairs, err)
			}
		})
	}
	_ = time.Second
}
