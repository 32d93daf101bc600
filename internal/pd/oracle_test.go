package pd

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/transport"
)

type stamp struct {
	ts  uint64
	err error
}

func startTimestamp(ctx context.Context, c *Client) chan stamp {
	ch := make(chan stamp, 1)
	go func() {
		ts, err := c.Timestamp(ctx)
		ch <- stamp{ts, err}
	}()
	return ch
}

func wantTimestamp(t *testing.T, c *Client) uint64 {
	t.Helper()
	ts, err := c.Timestamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func wantError(t *testing.T, err error, kind Kind, cause error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v (%#v), want %v", err, e, kind)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Fatalf("error %v, want one because of %v", err, cause)
	}
}

func TestCallersShareARequest(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		release := make(chan struct{})
		c.onTso(func(*pdpb.TsoResponse) error { <-release; return nil })
		const callers = 500
		var got []chan stamp
		for range callers {
			got = append(got, startTimestamp(t.Context(), client))
			synctest.Wait()
		}
		close(release)
		seen := map[uint64]bool{}
		for _, ch := range got {
			s := <-ch
			if s.err != nil || seen[s.ts] {
				t.Fatal(s, seen[s.ts])
			}
			seen[s.ts] = true
		}
		if r := c.tsoRequests(); !slices.Equal(r, []uint32{1, callers - 1}) {
			t.Errorf("requests for %v", r)
		}
	})
}

func TestMoreCallersThanABatch(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		release := make(chan struct{})
		c.onTso(func(*pdpb.TsoResponse) error { <-release; return nil })
		first := startTimestamp(t.Context(), client)
		synctest.Wait()
		var all []chan stamp
		for range 2*batchLimit + 1 {
			all = append(all, startTimestamp(t.Context(), client))
		}
		synctest.Wait()
		close(release)
		last := (<-first).ts
		var stamps []uint64
		for _, ch := range all {
			s := <-ch
			if s.err != nil || s.ts <= last {
				t.Fatal(s)
			}
			stamps = append(stamps, s.ts)
		}
		slices.Sort(stamps)
		if len(slices.Compact(stamps)) != 2*batchLimit+1 {
			t.Error("a timestamp was given twice")
		}
		if r := c.tsoRequests(); !slices.Equal(r, []uint32{1, batchLimit, batchLimit, 1}) {
			t.Errorf("requests for %v", r)
		}
	})
}

// TestTimestampsGrow: each is above every one returned before its call began.
func TestTimestampsGrow(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		var mu sync.Mutex
		var highest uint64
		var wg sync.WaitGroup
		for range 50 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 200 {
					mu.Lock()
					before := highest
					mu.Unlock()
					ts, err := client.Timestamp(t.Context())
					if err != nil || ts <= before {
						t.Errorf("%d after %d (%v)", ts, before, err)
						return
					}
					mu.Lock()
					highest = max(highest, ts)
					mu.Unlock()
				}
			}()
		}
		wg.Wait()
		if n := len(c.tsoRequests()); n > 50*200/2 {
			t.Errorf("%d requests", n)
		}
	})
}

var errEnough = errors.New("enough")

// TestCancelLeavesTheOthers: a caller that gives up in a shared request, or in line,
// returns at once; the others get their timestamps from that same request.
func TestCancelLeavesTheOthers(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		release := make(chan struct{})
		c.onTso(func(*pdpb.TsoResponse) error { <-release; return nil })
		ctx, cancel := context.WithCancelCause(t.Context())
		first := startTimestamp(t.Context(), client)
		synctest.Wait()
		quits, stays := startTimestamp(ctx, client), startTimestamp(t.Context(), client)
		synctest.Wait()
		began := time.Now()
		cancel(errEnough)
		wantError(t, (<-quits).err, Unavailable, errEnough)
		_, err := client.Timestamp(ctx)
		wantError(t, err, Unavailable, errEnough)
		release <- struct{}{}
		if s := <-first; s.err != nil {
			t.Fatal(s.err)
		}

		// Now in a request that is under way.
		synctest.Wait()
		ctx, cancel = context.WithCancelCause(t.Context())
		quits = startTimestamp(ctx, client)
		synctest.Wait()
		release <- struct{}{}
		if s := <-stays; s.err != nil {
			t.Fatal(s.err)
		}
		synctest.Wait()
		cancel(errEnough)
		wantError(t, (<-quits).err, Unavailable, errEnough)
		close(release)
		wantTimestamp(t, client)
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
		// Who left keeps a place in the batch, whose timestamp is nobody's.
		if r := c.tsoRequests(); !slices.Equal(r, []uint32{1, 2, 1, 1}) {
			t.Errorf("requests for %v", r)
		}
	})
}

// TestSilentTso: the leader takes requests and answers none, or is paused as a whole,
// and another one is elected.
func TestSilentTso(t *testing.T) {
	for name, silence := range map[string]func(*cluster){
		"handler": func(c *cluster) {
			c.onTso(func(*pdpb.TsoResponse) error {
				c.onTso(nil)
				c.lead(1)
				timer := time.NewTimer(time.Hour)
				<-timer.C
				return errors.New("late")
			})
		},
		"process": func(c *cluster) {
			c.members[0].pause()
			time.AfterFunc(leaseTime, func() { c.lead(1) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
				client := c.open(t, pool)
				before := wantTimestamp(t, client)
				silence(c)
				began := time.Now()
				all := []chan stamp{startTimestamp(t.Context(), client), startTimestamp(t.Context(), client)}
				for _, ch := range all {
					if s := <-ch; s.err != nil || s.ts <= before {
						t.Fatal(s)
					}
				}
				if d := time.Since(began); d > DefaultAttemptTimeout+2*time.Second {
					t.Errorf("took %v", d)
				}
				if l := client.Leader(); l != "pd1:2379" {
					t.Errorf("leader %s", l)
				}
				for range 10 { // from now on at once
					began = time.Now()
					wantTimestamp(t, client)
					if d := time.Since(began); d != 0 {
						t.Errorf("took %v", d)
					}
				}
				c.members[0].resume()
				advance(t, time.Hour)
			})
		})
	}
}

// advance lets fake time pass. For none it makes no timer: see backoff.Sleep.
func advance(t *testing.T, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// TestNoTimestamp: with no PD at all a call ends with its context, or after its default,
// and says what it met.
func TestNoTimestamp(t *testing.T) {
	for name, end := range map[string]func(*member){"dead": (*member).stop, "paused": (*member).pause} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
				client := c.open(t, pool)
				wantTimestamp(t, client)
				end(c.members[0])
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				defer cancel()
				short, long := startTimestamp(ctx, client), startTimestamp(t.Context(), client)
				err := (<-short).err
				wantError(t, err, Unavailable, context.DeadlineExceeded)
				var e *Error
				if errors.As(err, &e); e.Addr != "pd0:2379" || e.Message == "" || e.Op != opTso {
					t.Errorf("%#v", e)
				}
				if d := time.Since(began); d != 7*time.Second {
					t.Errorf("took %v", d)
				}
				wantError(t, (<-long).err, Unavailable, ErrNoAnswer)
				if d := time.Since(began); d != DefaultTimestampTimeout {
					t.Errorf("took %v", d)
				}

				// And it comes back.
				if name == "dead" {
					c.members[0].start()
				} else {
					c.members[0].resume()
				}
				began = time.Now()
				wantTimestamp(t, client)
				if d := time.Since(began); d > 10*time.Second {
					t.Errorf("took %v to come back", d)
				}
			})
		})
	}
}

// TestBadTimestamps: an answer that breaks the rules is never given to a caller; the
// stream is left and the request made again.
func TestBadTimestamps(t *testing.T) {
	for name, spoil := range map[string]func(*pdpb.TsoResponse) error{
		"count":       func(r *pdpb.TsoResponse) error { r.Count++; return nil },
		"none":        func(r *pdpb.TsoResponse) error { r.Timestamp = nil; return nil },
		"backwards":   func(r *pdpb.TsoResponse) error { r.Timestamp.Physical--; return nil },
		"again":       func(r *pdpb.TsoResponse) error { r.Timestamp.Logical = 1; return nil },
		"too few":     func(r *pdpb.TsoResponse) error { r.Timestamp.Logical = -1; return nil },
		"too large":   func(r *pdpb.TsoResponse) error { r.Timestamp.Logical = 1 << logicalBits; return nil },
		"negative":    func(r *pdpb.TsoResponse) error { r.Timestamp.Physical = -1; return nil },
		"overflowing": func(r *pdpb.TsoResponse) error { r.Timestamp.Physical = 1 << 50; return nil },
		"error": func(*pdpb.TsoResponse) error {
			return status.Error(codes.Unknown, "requested pd is not leader of cluster")
		},
		"end": func(*pdpb.TsoResponse) error { return errors.New("generate timestamp failed") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
				client := c.open(t, pool)
				before := wantTimestamp(t, client)
				times := 3
				c.onTso(func(r *pdpb.TsoResponse) error {
					if times--; times < 0 {
						return nil
					}
					return spoil(r)
				})
				if ts := wantTimestamp(t, client); ts <= before || ts-before > 10 {
					t.Errorf("%d after %d", ts, before)
				}
				if times >= 0 {
					t.Error("not spoilt")
				}
			})
		})
	}
}

// TestRangeOfTimestamps: the answer has the last one of the range.
func TestRangeOfTimestamps(t *testing.T) {
	at := func(physical, logical uint64) uint64 { return physical<<logicalBits + logical }
	for name, c := range map[string]struct {
		physical, logical int64
		count             uint32
		newest            uint64
		first             uint64 // 0: refused
	}{
		"one":                {5, 1, 1, 0, at(5, 1)},
		"one, from zero":     {5, 0, 1, 0, at(5, 0)},
		"many":               {5, 10, 10, at(5, 0), at(5, 1)},
		"many, from zero":    {5, 9, 10, at(4, 7), at(5, 0)},
		"borrows":            {5, 8, 10, 0, 0},
		"overlaps":           {5, 10, 10, at(5, 1), 0},
		"all given before":   {5, 10, 10, at(5, 10), 0},
		"older":              {5, 10, 10, at(6, 0), 0},
		"last of its time":   {5, 1<<logicalBits - 1, 1, 0, at(5, 1<<logicalBits-1)},
		"beyond its time":    {5, 1 << logicalBits, 1, 0, 0},
		"no time":            {0, 10, 1, 0, 0},
		"the end of time":    {1<<45 - 1, 1, 1, 0, at(1<<45-1, 1)},
		"after the last day": {1 << 45, 1, 1, 0, 0},
	} {
		s := &tsoAnswer{count: c.count, timestamp: &pdpb.Timestamp{Physical: c.physical, Logical: c.logical}}
		first, err := s.first(c.count, c.newest)
		if (err != nil) != (c.first == 0) || first != c.first {
			t.Errorf("%s: %d, %v", name, first, err)
		}
		if _, err := s.first(c.count+1, c.newest); err == nil {
			t.Errorf("%s: the wrong count is accepted", name)
		}
	}
}

// TestQuitBeforeARetry: what nobody waits for any more is not asked again; who waits in
// the same batch still gets an answer.
func TestQuitBeforeARetry(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		wantTimestamp(t, client)
		for _, stay := range []bool{false, true} {
			before := len(c.tsoRequests())
			c.members[0].stop()
			synctest.Wait()
			ctx, cancel := context.WithCancelCause(t.Context())
			quits := startTimestamp(ctx, client)
			synctest.Wait()
			var stays chan stamp
			want := []uint32{}
			if stay {
				stays, want = startTimestamp(t.Context(), client), []uint32{2}
			}
			synctest.Wait()
			cancel(errEnough)
			wantError(t, (<-quits).err, Unavailable, errEnough)
			advance(t, 2*time.Second)
			c.members[0].start()
			if stay {
				if s := <-stays; s.err != nil {
					t.Fatal(s.err)
				}
			}
			advance(t, 10*time.Second)
			if r := c.tsoRequests()[before:]; !slices.Equal(r, want) {
				t.Errorf("requests for %v, want %v", r, want)
			}
		}
	})
}

// TestTimestampsFollowTheLeader: as soon as any call has found the new leader, also
// while the old one would still answer.
func TestTimestampsFollowTheLeader(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		wantTimestamp(t, client)
		c.lead(1)
		if _, err := client.Stores(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := c.count("Tso")
		wantTimestamp(t, client)
		if n := c.count("Tso") - before; n != 1 {
			t.Errorf("%d requests for one timestamp", n)
		}
	})
}

func TestCloseEndsCalls(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		c.members[0].pause()
		inFlight := startTimestamp(t.Context(), client)
		synctest.Wait()
		inLine := startTimestamp(t.Context(), client)
		asking := make(chan error, 1)
		go func() {
			_, err := client.Region(t.Context(), nil)
			asking <- err
		}()
		synctest.Wait()
		began := time.Now()
		client.Close()
		client.Close()
		wantError(t, (<-inFlight).err, Closed, ErrClosed)
		wantError(t, (<-inLine).err, Closed, ErrClosed)
		wantError(t, <-asking, Closed, ErrClosed)
		_, err := client.Timestamp(t.Context())
		wantError(t, err, Closed, ErrClosed)
		_, err = client.Stores(t.Context())
		wantError(t, err, Closed, ErrClosed)
		if names := client.tasks.Running(); len(names) != 0 || time.Since(began) != 0 {
			t.Errorf("still running: %v, after %v", names, time.Since(began))
		}
	})
}

// BenchmarkTimestamp counts client and server, which share the process.
func BenchmarkTimestamp(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			c := newCluster(b, 1)
			pool := transport.New(transport.Config{Dial: c.dial})
			b.Cleanup(pool.Close)
			client := c.open(b, pool)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, callers)
			for range callers {
				go func() {
					for left.Add(-1) >= 0 {
						if _, err := client.Timestamp(b.Context()); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
