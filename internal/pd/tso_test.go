package pd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/playground"
)

// TestPipeline: over a slow network several requests are under way, apart, so that who
// comes meanwhile does not wait for the answer to another; near PD there is one.
func TestPipeline(t *testing.T) {
	for latency, c := range map[time.Duration]struct {
		most int
		wait time.Duration // of any caller
	}{
		0:                      {1, 0},
		200 * time.Microsecond: {1, 400 * time.Microsecond},
		8 * time.Millisecond:   {window, 10 * time.Millisecond},
		time.Second / 2:        {window, 625 * time.Millisecond},
	} {
		t.Run(latency.String(), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, cl *cluster, pool *transport.Pool) {
				cl.latency = latency
				client := cl.open(t, pool)
				wantTimestamp(t, client) // measures
				var wg sync.WaitGroup
				var mu sync.Mutex
				var slowest time.Duration
				for range 500 {
					wg.Go(func() {
						began := time.Now()
						_, err := client.Timestamp(t.Context())
						mu.Lock()
						defer mu.Unlock()
						if slowest = max(slowest, time.Since(began)); err != nil {
							t.Error(err)
						}
					})
					advance(t, latency/50)
				}
				wg.Wait()
				if cl.most != c.most || slowest > c.wait {
					t.Errorf("%d under way, slowest %v", cl.most, slowest)
				}
				if n := len(cl.tsoRequests()); latency > 0 && n > 60 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

// TestTimestampsGrowForEver: whatever becomes of PD, each timestamp is above all that were
// returned before its call began, and no two are the same.
func TestTimestampsGrowForEver(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		opts []playground.Option
	}{
		"leader":   {},
		"proxy":    {cfg: Config{TSOFollowerProxy: true}},
		"services": {opts: []playground.Option{playground.WithPDServices()}},
	} {
		t.Run(name, func(t *testing.T) {
			onPlayground(t, c.cfg, append(c.opts, playground.WithMembers(3)), func(t *testing.T, cluster *playground.Cluster, client *Client) {
				random := rand.New(rand.NewPCG(1, 2))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var mu sync.Mutex
				var highest uint64
				got := map[uint64]bool{}
				callers := task.New(ctx)
				defer callers.Close(nil)
				for range 6 {
					callers.Go("caller", func(ctx context.Context) {
						for ctx.Err() == nil {
							mu.Lock()
							before := highest
							mu.Unlock()
							each, end := context.WithTimeout(ctx, 20*time.Second)
							ts, err := client.Timestamp(each)
							end()
							mu.Lock()
							switch {
							case ctx.Err() != nil:
							case err != nil:
								t.Error(err)
							case ts <= before || got[ts]:
								t.Errorf("%d after %d, again %v", ts, before, got[ts])
							}
							got[ts] = true
							highest = max(highest, ts)
							mu.Unlock()
							advance(t, 50*time.Millisecond)
						}
					})
				}
				delay := cluster.Inject(playground.Fault{Method: "Tso", Chance: 0.2, Delay: 30 * time.Millisecond})
				for range 12 {
					i := random.IntN(3)
					m := playground.Member(i)
					switch random.IntN(6) {
					case 0:
						must(t, cluster.TransferPD(i))
					case 1:
						must(t, cluster.Pause(m))
						advance(t, 7*time.Second)
						must(t, cluster.Start(m))
					case 2:
						must(t, cluster.Stop(m))
						advance(t, time.Second)
						must(t, cluster.Start(m))
					case 3:
						must(t, errors.Join(cluster.Cut(playground.Client(), m), cluster.Cut(m, playground.Client())))
						advance(t, 5*time.Second)
						cluster.Heal()
					case 4:
						cluster.StallTSO(true)
						advance(t, 2*time.Second)
						cluster.StallTSO(false)
					case 5:
						cluster.JumpTSO(time.Second)
					}
					advance(t, 500*time.Millisecond)
				}
				delay.Remove()
				cancel()
				callers.Close(nil)
				if len(got) < 500 {
					t.Errorf("%d timestamps", len(got))
				}
			})
		})
	}
}

// echo is a server of timestamps without a network.
type echo struct {
	requests chan uint32
	ctx      context.Context
	last     uint64
	now      pdpb.Timestamp
	header   pdpb.ResponseHeader
}

func (e *echo) send(count uint32) error { e.requests <- count; return nil }

func (e *echo) recv() (tsoAnswer, error) {
	select {
	case count := <-e.requests:
		e.last += uint64(count)
		e.now.Physical, e.now.Logical = int64(1000+e.last>>16), int64(1<<16+e.last&(1<<16-1))
		return tsoAnswer{&e.header, count, &e.now}, nil
	case <-e.ctx.Done():
		return tsoAnswer{}, e.ctx.Err()
	}
}

// withEcho runs f with a client whose timestamps come from an echo.
func withEcho(t testing.TB, f func(c *Client)) {
	pool := transport.New(transport.Config{})
	defer pool.Close()
	c := &Client{tasks: task.New(t.Context())}
	c.cfg = Config{Pool: pool, AttemptTimeout: time.Minute, TimestampTimeout: time.Minute}
	m := &members{clusterID: 7, leader: "pd:1", until: time.Now().Add(time.Hour)}
	c.members.Store(m)
	c.oracle.init(c)
	c.oracle.running = true
	ctx, cancel := context.WithCancelCause(c.tasks.Context())
	e := &echo{requests: make(chan uint32, window), ctx: ctx, header: pdpb.ResponseHeader{ClusterId: 7}}
	s := &tsoStream{target: m.direct(), members: m, ctx: ctx, cancel: cancel, tsoConn: e}
	c.tasks.Go("stream", func(context.Context) { c.oracle.serve(s) })
	defer c.tasks.Close(nil)
	for range 10 { // the stream is there
		if _, err := c.Timestamp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f(c)
}

// BenchmarkTimestampClient is the client's own part, without gRPC and a server.
func BenchmarkTimestampClient(b *testing.B) {
	for _, callers := range []int{1, 64, 256, 1024} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			withEcho(b, func(c *Client) {
				b.ReportAllocs()
				b.SetParallelism(max(callers/2, 1))
				b.ResetTimer()
				b.RunParallel(func(p *testing.PB) {
					ctx := b.Context()
					for p.Next() {
						if _, err := c.Timestamp(ctx); err != nil {
							b.Error(err)
						}
					}
				})
			})
		})
	}
}

// TestDeadPDIsLeftAlone: many that want something of a PD that is gone ask little of it.
func TestDeadPDIsLeftAlone(t *testing.T) {
	for name, end := range map[string]func(*member){"dead": (*member).stop, "paused": (*member).pause} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
				client := c.open(t, pool)
				wantTimestamp(t, client)
				for _, m := range c.members {
					end(m)
				}
				synctest.Wait()
				before := c.dialled()
				var wg sync.WaitGroup
				for range 60 {
					wg.Go(func() {
						_, err := client.Timestamp(t.Context())
						if !errors.Is(err, ErrNoAnswer) {
							t.Error(err)
						}
					})
					wg.Go(func() {
						_, err := client.Stores(t.Context())
						if !errors.Is(err, ErrNoAnswer) {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if n := c.dialled() - before; n > 3*25 {
					t.Errorf("%d connections in %v", n, DefaultTimeout)
				}
			})
		})
	}
}
