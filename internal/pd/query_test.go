package pd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/transport"
)

// crowdOfLookups makes lookups of all kinds while the first of them is held, and returns
// how many were wrong. An id may be unknown, since PD says nothing else about it.
func crowdOfLookups(t *testing.T, c *cluster, client *Client, unknown bool) (wrong int) {
	t.Helper()
	type lookup struct {
		do   func() (*Region, error)
		id   uint64
		byID bool
	}
	ctx := t.Context()
	var all []lookup
	for i := range 30 {
		key := fmt.Appendf(nil, "%c", 'a'+i%26)
		id := uint64(1 + i%26/2)
		all = append(all,
			lookup{func() (*Region, error) { return client.Region(ctx, key) }, id, false},
			lookup{func() (*Region, error) { return client.RegionByID(ctx, id) }, id, true})
	}
	all = append(all,
		lookup{func() (*Region, error) { return client.RegionByID(ctx, 99) }, 0, true},
		lookup{func() (*Region, error) { return client.PrevRegion(ctx, []byte("c")) }, 1, false},
		lookup{func() (*Region, error) { return client.PrevRegion(ctx, nil) }, 13, false})
	release := make(chan struct{})
	c.mu.Lock()
	c.hold = release
	c.mu.Unlock()
	outcomes := make(chan error, len(all))
	for i, one := range all {
		if i == 1 {
			synctest.Wait() // the first is alone, and held
		}
		go func() {
			r, err := one.do()
			if err == nil && (r == nil) != (one.id == 0) && !(one.byID && unknown) || r != nil && r.Meta.Id != one.id {
				err = fmt.Errorf("region %v, not %d", r, one.id)
			}
			outcomes <- err
		}()
	}
	synctest.Wait()
	c.mu.Lock()
	c.hold = nil
	c.mu.Unlock()
	close(release)
	for range all {
		if err := <-outcomes; err != nil {
			t.Log(err)
			wrong++
		}
	}
	return wrong
}

// TestLookupsShareRequests: one alone is a call of its own, those that come meanwhile are
// few messages, and a stream does not outlive its use.
func TestLookupsShareRequests(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "c", "e", "g", "i", "k", "m", "o", "q", "s", "u", "w", "y", "")
		c.query = func(*pdpb.QueryRegionResponse) error { return nil }
		client := c.open(t, pool)
		for range 3 {
			if r, err := client.Region(t.Context(), []byte("d")); err != nil || r.Meta.Id != 2 {
				t.Fatal(r, err)
			}
		}
		if n := c.count(opRegion); n != 3 || len(c.queries()) != 0 {
			t.Errorf("%d calls, %v", n, c.queries())
		}
		if n := crowdOfLookups(t, c, client, false); n != 0 {
			t.Errorf("%d wrong", n)
		}
		asked := 0
		for _, n := range c.queries() {
			asked += n
		}
		// A first message, all that came meanwhile, and perhaps what PrevRegion asks next.
		if len(c.queries()) > 3 || asked < 62 {
			t.Errorf("requests of %v", c.queries())
		}
		advance(t, 2*queryIdle)
		if names := client.tasks.Running(); len(names) != 0 {
			t.Errorf("still running: %v", names)
		}
	})
}

// TestLookupsWithoutQueryRegion: PD has no such call, fails it, says nothing or nonsense:
// each lookup is made alone then, and what PD does not have is not asked for again.
func TestLookupsWithoutQueryRegion(t *testing.T) {
	for name, spoil := range map[string]func(*pdpb.QueryRegionResponse) error{
		"unimplemented": nil,
		"error":         func(*pdpb.QueryRegionResponse) error { return errors.New("no") },
		"silent":        func(*pdpb.QueryRegionResponse) error { return errHush },
		"header": func(r *pdpb.QueryRegionResponse) error {
			r.Header.Error = &pdpb.Error{Type: pdpb.ErrorType_REGION_NOT_FOUND}
			return nil
		},
		"no header":  func(r *pdpb.QueryRegionResponse) error { r.Header = nil; return nil },
		"cluster":    func(r *pdpb.QueryRegionResponse) error { r.Header.ClusterId++; return nil },
		"too few":    func(r *pdpb.QueryRegionResponse) error { r.KeyIdMap = r.KeyIdMap[:0]; return nil },
		"too many":   func(r *pdpb.QueryRegionResponse) error { r.PrevKeyIdMap = append(r.PrevKeyIdMap, 1); return nil },
		"unknown id": func(r *pdpb.QueryRegionResponse) error { clear(r.RegionsById); return nil },
		"empty regions": func(r *pdpb.QueryRegionResponse) error {
			for id := range r.RegionsById {
				r.RegionsById[id] = nil
			}
			return nil
		},
		"other regions": func(r *pdpb.QueryRegionResponse) error {
			for id := range r.RegionsById {
				r.RegionsById[id] = r.RegionsById[1]
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
				c.addRegions("", "c", "e", "g", "i", "k", "m", "o", "q", "s", "u", "w", "y", "")
				c.query = spoil
				client := c.open(t, pool)
				began := time.Now()
				for range 2 {
					if n := crowdOfLookups(t, c, client, true); n != 0 {
						t.Errorf("%d wrong", n)
					}
				}
				if d := time.Since(began); d > 5*suspicion {
					t.Errorf("took %v", d)
				}
				if n := len(c.queries()); n == 0 || spoil == nil && n > 2 {
					t.Errorf("requests of %v", c.queries())
				}
			})
		})
	}
}

// TestLookupsEnd: who gives up leaves the others, and at once; the end of the client is
// the end of all.
func TestLookupsEnd(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "")
		release := make(chan struct{})
		c.query = func(*pdpb.QueryRegionResponse) error { <-release; return nil }
		c.hold = release
		client := c.open(t, pool)
		ctx, cancel := context.WithCancelCause(t.Context())
		outcomes := make([]chan error, 4)
		for i := range outcomes {
			outcomes[i] = make(chan error, 1)
			ctx := ctx
			if i%2 == 0 {
				ctx = t.Context()
			}
			go func() {
				_, err := client.Region(ctx, []byte("k"))
				outcomes[i] <- err
			}()
			synctest.Wait()
		}
		began := time.Now()
		cancel(errEnough)
		wantError(t, <-outcomes[1], Unavailable, errEnough)
		wantError(t, <-outcomes[3], Unavailable, errEnough)
		client.Close()
		wantError(t, <-outcomes[0], Closed, ErrClosed)
		wantError(t, <-outcomes[2], Closed, ErrClosed)
		_, err := client.Region(t.Context(), nil)
		wantError(t, err, Closed, ErrClosed)
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
		close(release)
	})
}

// FuzzDistribute: whatever PD answers, a lookup gets a region that was asked for, none, or
// is made again; and no answer does harm.
func FuzzDistribute(f *testing.F) {
	good := &pdpb.QueryRegionResponse{
		KeyIdMap: []uint64{1, 0}, PrevKeyIdMap: []uint64{2},
		RegionsById: map[uint64]*pdpb.RegionResponse{
			1: {Region: &metapb.Region{Id: 1}}, 2: {Region: &metapb.Region{Id: 2}}, 3: {Region: &metapb.Region{Id: 3}},
		},
	}
	for _, spoil := range []func(){
		func() {}, func() { good.KeyIdMap[0] = 2 }, func() { good.RegionsById[3] = nil }, func() { good.PrevKeyIdMap = nil },
	} {
		spoil()
		data, err := good.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
		f.Add(data[:len(data)/2], false)
	}
	f.Fuzz(func(t *testing.T, data []byte, behind bool) {
		resp := new(pdpb.QueryRegionResponse)
		if resp.Unmarshal(data) != nil {
			return
		}
		batch := []*query{{op: opRegion}, {op: opRegionByID, id: 3}, {op: opPrevRegion}, {op: opRegion, options: NeedBuckets}}
		keyed := resp.GetKeyIdMap()
		if !distribute(batch, resp, behind) {
			for _, one := range batch {
				if one.ok || one.region != nil {
					t.Fatal("half an answer")
				}
			}
			return
		}
		for i, want := range []uint64{keyed[0], 3, resp.GetPrevKeyIdMap()[0], keyed[1]} {
			one := batch[i]
			if one.region != nil && (one.region.Meta.GetId() != want || !one.ok) || one.region == nil && one.ok == behind {
				t.Fatalf("%d: %v", i, one)
			}
		}
	})
}
