package nullstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/bench/internal/harness"
)

const nKeys, keySize, valueSize = 1000, 24, 100

// eachLayout runs f with this project's client against servers of one region and of many,
// for raw keys and for transactional ones, quick and slow.
func eachLayout(t *testing.T, f func(t *testing.T, s *Server, c *tikv.Client, d harness.Data)) {
	for _, c := range []Config{
		{Regions: 1},
		{Regions: 100},
		{Regions: 100, Encoded: true, Stores: 3},
		{Regions: 7, Encoded: true, Delay: 2 * time.Millisecond},
	} {
		c.Keys, c.KeySize, c.ValueSize = nKeys, keySize, valueSize
		t.Run(fmt.Sprintf("%d regions, encoded %v, delay %v, %d stores", c.Regions, c.Encoded, c.Delay, c.Stores), func(t *testing.T) {
			s := start(t, c)
			client, err := tikv.Open(t.Context(), []string{s.PD()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			f(t, s, client, harness.MakeData(nKeys, keySize, valueSize, 1))
		})
	}
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// What a client reads is what it asked for: each workload's answers, in full.
func TestReads(t *testing.T) {
	eachLayout(t, func(t *testing.T, s *Server, c *tikv.Client, d harness.Data) {
		ctx := t.Context()
		ts, err := c.Timestamp(ctx)
		if err != nil {
			t.Fatal(err)
		}
		views := map[string]tikv.Reader{"snapshot": c.SnapshotAt(ts)}
		if !s.driver.encoded {
			views = map[string]tikv.Reader{"raw": c.Raw()}
		}
		for name, view := range views {
			for i := 0; i < nKeys; i += 37 {
				if v, err := view.Get(ctx, d.Keys[i]); err != nil || !bytes.Equal(v, d.Value) {
					t.Fatalf("%s get %d: %q %v", name, i, v, err)
				}
			}
			vs, err := view.BatchGet(ctx, d.Batch(make([][]byte, 50), 3, 5))
			if err != nil || len(vs) != 50 || slices.ContainsFunc(vs, func(v []byte) bool { return !bytes.Equal(v, d.Value) }) {
				t.Fatalf("%s batch get: %d values %v", name, len(vs), err)
			}
			for _, limit := range []int{1, 100, 700} {
				checkScan(t, view, d, 123, limit)
			}
		}
	})
}

// checkScan wants pairs in order, from a key on, as many as asked for.
func checkScan(t *testing.T, view tikv.Reader, d harness.Data, from, limit int) {
	t.Helper()
	kvs, err := tikv.Collect(view.Scan(t.Context(), tikv.Range{Start: d.Keys[from]}, tikv.WithLimit(limit)))
	if err != nil || len(kvs) != limit {
		t.Fatalf("scan of %d: %d pairs, %v", limit, len(kvs), err)
	}
	for i, kv := range kvs {
		if !bytes.Equal(kv.Value, d.Value) || bytes.Compare(kv.Key, d.Keys[from]) < 0 || i > 0 && bytes.Compare(kv.Key, kvs[i-1].Key) <= 0 {
			t.Fatalf("scan of %d: pair %d is %q %q", limit, i, kv.Key, kv.Value)
		}
	}
}

func TestWrites(t *testing.T) {
	eachLayout(t, func(t *testing.T, s *Server, c *tikv.Client, d harness.Data) {
		ctx := t.Context()
		if !s.driver.encoded {
			before := s.Stats().Requests
			for i := 0; i < nKeys; i += 100 {
				if err := c.Raw().Put(ctx, d.Keys[i], d.Value); err != nil {
					t.Fatal(err)
				}
			}
			if n := s.Stats().Requests - before; n < 10 {
				t.Fatalf("10 puts were %d requests", n)
			}
			return
		}
		for _, n := range []int{1, nKeys} {
			before := s.Stats().Requests
			tx, err := c.Begin(ctx, tikv.WithCommitMode(tikv.CommitTwoPhase))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Spread(n, 0, 0, func(key []byte) error { return tx.Put(key, d.Value) }); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if ts, ok := tx.CommitTS(); !ok || ts <= tx.StartTS() || tx.Len() != n {
				t.Fatalf("%d keys (%d buffered) of %d committed at %d %v", n, tx.Len(), tx.StartTS(), ts, ok)
			}
			// A prewrite for each region, and the primary's commit.
			least := min(n, len(s.driver.regions)) + 1
			if got := s.Stats().Requests - before; int(got) < least {
				t.Fatalf("a transaction of %d keys was %d requests", n, got)
			}
		}
	})
}

// Timestamps are all different, and later ones larger, whoever asks.
func TestTimestamps(t *testing.T) {
	s := start(t, Config{Regions: 1, Keys: nKeys, KeySize: keySize, ValueSize: valueSize})
	c, err := tikv.Open(t.Context(), []string{s.PD()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const callers, each = 16, 50
	all := make([][]tikv.Timestamp, callers)
	var wait sync.WaitGroup
	for w := range callers {
		wait.Go(func() {
			for range each {
				ts, err := c.Timestamp(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				all[w] = append(all[w], ts)
			}
		})
	}
	wait.Wait()
	seen := map[tikv.Timestamp]bool{}
	for _, mine := range all {
		if !slices.IsSorted(mine) {
			t.Error("timestamps went back")
		}
		for _, ts := range mine {
			seen[ts] = true
		}
	}
	if len(seen) != callers*each {
		t.Errorf("%d different timestamps of %d", len(seen), callers*each)
	}
	if st := s.Stats(); st.Timestamps < callers*each || st.TimestampRequests == 0 {
		t.Errorf("%+v", st)
	}
}

// A slow store holds answers back, and each no longer for those before it.
func TestDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	s := start(t, Config{Regions: 1, Keys: nKeys, KeySize: keySize, ValueSize: valueSize, Delay: delay})
	c, err := tikv.Open(t.Context(), []string{s.PD()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	for range 2 {
		if _, err := c.Raw().Get(t.Context(), harness.Key(0, keySize)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 2*delay {
		t.Errorf("two gets took %v", took)
	}
}

// Frames that are no protocol end their stream, not the server.
func TestMalformed(t *testing.T) {
	s := start(t, Config{Regions: 1, Keys: nKeys, KeySize: keySize, ValueSize: valueSize})
	conn, err := grpc.NewClient(s.driver.stores[0].Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, message := range map[string][]byte{
		"a cut field":             {1<<3 | 2, 100, 1},
		"an endless varint":       {2 << 3, 0xff},
		"an empty request":        {1<<3 | 2, 0},
		"a group":                 {1<<3 | 3},
		"a cut batch get inside":  {1<<3 | 2, 5, 14<<3 | 2, 3, 2<<3 | 2, 50, 0},
		"a cut prewrite inside":   {1<<3 | 2, 4, 3<<3 | 2, 2, 4 << 3, 0xff},
		"a scan whose key is cut": {1<<3 | 2, 5, (19<<3|2)&0x7f | 0x80, 1, 2, 2<<3 | 2, 9},
	} {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/tikvpb.Tikv/BatchCommands", grpc.ForceCodecV2(codec{}))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&frame{out: mem.SliceBuffer(message)}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(new(frame)); status.Code(err) != codes.Unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := tikv.Open(context.Background(), []string{s.PD()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Raw().Get(t.Context(), []byte("k")); err != nil {
		t.Error("after malformed frames:", err)
	}
}
