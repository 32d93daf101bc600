package playground

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

type resolvedAnswer struct {
	RealTime bool              `json:"is_real_time"`
	TS       uint64            `json:"min_resolved_ts"`
	Stores   map[uint64]uint64 `json:"stores_min_resolved_ts"`
}

// http is a client of HTTP over the cluster's network.
func (c *testCluster) http() *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return c.DialContext(ctx, addr) }}
	c.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// PD's address answers HTTP beside gRPC: up to which timestamp stores answer stale reads,
// as clients ask for it (PD: server/api/min_resolved_ts.go).
func TestMinResolvedTS(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3), WithStores(4), WithSplitKeys(KeyTxn, []byte("b"), []byte("c"), []byte("d")))...)
		client := c.http()
		get := func(member int, path string) (status int, a resolvedAnswer, text string) {
			t.Helper()
			resp, err := client.Get("http://" + c.PD()[member] + "/pd/api/v1/min-resolved-ts" + path)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				if err := json.Unmarshal(data, &a); err != nil || !a.RealTime {
					t.Fatal(string(data), err)
				}
			}
			return resp.StatusCode, a, string(data)
		}
		_, before, _ := get(0, "")
		if before.TS == 0 || before.Stores != nil {
			t.Fatal(before)
		}
		lagging := c.Regions(KeyTxn)[0].Leader
		if err := c.SetStore(lagging, StoreState{ResolvedLag: time.Minute}); err != nil {
			t.Fatal(err)
		}
		c.Advance(time.Hour)
		_, all, _ := get(1, "?scope=cluster") // a follower passes it on
		if len(all.Stores) != 4 || all.TS <= before.TS {
			t.Fatal(all)
		}
		others := uint64(math.MaxUint64)
		for id, ts := range all.Stores {
			if ts < all.TS {
				t.Errorf("store %d is at %d, the cluster at %d", id, ts, all.TS)
			}
			if id != lagging {
				others = min(others, ts)
			}
		}
		if behind := (others - all.Stores[lagging]) >> 18; behind < 30_000 || behind > 90_000 {
			t.Errorf("store %d is %d ms behind the others", lagging, behind)
		}
		if _, some, _ := get(0, fmt.Sprintf("?scope=%d,99", lagging)); len(some.Stores) != 2 || some.TS != some.Stores[lagging] || some.Stores[99] != math.MaxUint64 {
			t.Error(some)
		}
		if _, one, _ := get(0, fmt.Sprintf("/%d", lagging)); one.TS < all.Stores[lagging] || one.Stores != nil {
			t.Error(one)
		}
		for path, want := range map[string]int{"?scope=x": http.StatusBadRequest, "/x": http.StatusBadRequest, "/1/2": http.StatusNotFound} {
			if status, _, text := get(0, path); status != want {
				t.Errorf("%s: %d %s", path, status, text)
			}
		}
		mangled := c.Inject(Fault{Method: "MinResolvedTS", Times: 1, Mangle: func([]byte) []byte { return []byte(`{"min_resolved_ts":7,"is_real_time":true}`) }})
		if _, a, _ := get(0, ""); a.TS != 7 || mangled.Hits() != 1 {
			t.Error(a, mangled.Hits())
		}
		if m, err := c.pdc().GetMembers(t.Context(), new(pdpb.GetMembersRequest)); err != nil || len(m.Members) != 3 {
			t.Error(m, err)
		}
		// Without a majority there is no leader to pass it on to, once the lease is over.
		for _, i := range []int{0, 1} {
			if err := c.Stop(Member(i)); err != nil {
				t.Fatal(err)
			}
		}
		c.Advance(time.Minute)
		if status, _, text := get(2, ""); status != http.StatusServiceUnavailable || !strings.Contains(text, "redirect finds no leader") {
			t.Error(status, text)
		}
	})
}
