// Package pd is a client of PD, the placement driver: timestamps, regions, stores,
// keyspaces, safe points and resource groups. It finds the members, follows their leader,
// and bounds every wait by the caller's context or a documented default.
//
// One attempt at a member lasts at most AttemptTimeout. After one that failed, and each
// second of one that is silent, the members are asked who leads them. A leader that is
// another is tried at once; one that only we do not reach is reached through a member that
// does, until it answers us again; else the attempt is made again after a delay, until the
// call's time is over.
//
// Where PD has services beside it for timestamps and lookups of regions, these are used
// and followed. A client that is not used sends nothing, and keeps one connection.
package pd

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// The defaults of a Config.
const (
	DefaultAttemptTimeout   = 3 * time.Second  // one member's time to answer
	DefaultTimestampTimeout = 15 * time.Second // Timestamp, where ctx has no deadline; up to AttemptTimeout less for who joins others
	DefaultTimeout          = 20 * time.Second // the other calls, where ctx has no deadline
)

// Config is what a Client is made with.
type Config struct {
	Pool   *transport.Pool // required; stays the caller's
	Logger *slog.Logger    // nil: silent

	AttemptTimeout   time.Duration // 0: DefaultAttemptTimeout
	TimestampTimeout time.Duration // 0: DefaultTimestampTimeout
	Timeout          time.Duration // 0: DefaultTimeout

	OnLeader func(addr string) // told when another member leads; nil: nobody is

	TSOFollowerProxy bool // timestamps through any member, which merges the requests it passes on
	FollowerReads    bool // lookups of regions by any member; the leader where that fails
}

// Client is a client of one cluster's PD. It is safe for concurrent use.
type Client struct {
	cfg        Config
	configured []string
	tasks      *task.Group
	members    atomic.Pointer[members]
	oracle     oracle
	recent     recent
	queries    queries
	suspects   suspects
	trouble    atomic.Pointer[Error] // the last attempt, if it failed
	keyspace   atomic.Uint32         // whose timestamps the client uses

	relayUsed  atomic.Bool  // since the last probe
	relaying   atomic.Int64 // calls under way through the relay
	probing    atomic.Bool
	freshening atomic.Bool

	mu           sync.Mutex
	refresh      *refresh // under way, or nil
	shunnedUntil map[string]time.Time
}

// Open asks the members at addrs (host:port, with or without a scheme) for the cluster
// and its leader. All that answer must name the same cluster.
func Open(ctx context.Context, addrs []string, cfg Config) (*Client, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.AttemptTimeout, DefaultAttemptTimeout)
	setDefault(&cfg.TimestampTimeout, DefaultTimestampTimeout)
	setDefault(&cfg.Timeout, DefaultTimeout)
	configured, err := hostPorts(addrs)
	if err != nil {
		return nil, &Error{Op: opMembers, Kind: Rejected, Message: err.Error()}
	}
	c := &Client{cfg: cfg, configured: configured, tasks: task.Root(ctx)}
	c.keyspace.Store(codec.NullKeyspaceID)
	c.oracle.init(c)
	c.recent.client = c
	c.queries.init(c)
	c.suspects.client = c
	if err := c.discover(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// discover finds the members for the first time.
func (c *Client) discover(ctx context.Context) error {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	retry := backoff.New(0)
	for {
		answers, failed := c.survey(ctx, c.configured, c.cfg.AttemptTimeout)
		for _, a := range answers {
			if a.clusterID != answers[0].clusterID {
				return &Error{Op: opMembers, Addr: a.from, Kind: WrongCluster, Err: ErrWrongCluster,
					Message: "other than at " + answers[0].from}
			}
		}
		if m := elect(answers); m != nil {
			m.services = c.askServices(ctx, m, nil)
			c.members.Store(m)
			c.release(m)
			return nil
		}
		if err := retry.Wait(ctx, backoff.PD); err != nil {
			return c.late(ctx, failed)
		}
	}
}

// ClusterID is the cluster's id.
func (c *Client) ClusterID() uint64 { return c.members.Load().clusterID }

// Leader is the address of the member that was the leader when last heard of.
func (c *Client) Leader() string { return c.members.Load().leader }

// Waiting says whom calls wait for that have no answer, and what the last attempt met, if it
// failed.
func (c *Client) Waiting() string {
	if e := c.trouble.Load(); e != nil {
		return "PD at " + e.Addr + ", " + e.Op + ": " + e.Message
	}
	return "PD at " + c.Leader()
}

// Close ends all calls and goroutines of the client, and returns when they have ended.
func (c *Client) Close() { c.tasks.Close(ErrClosed) }

// component is what PD's metrics name the caller.
const component = "tikv-go"

func (c *Client) header() *pdpb.RequestHeader {
	return &pdpb.RequestHeader{ClusterId: c.ClusterID(), CallerComponent: component}
}

// bound returns a context that ends with ctx, with the client, and, where ctx has no
// deadline, after d.
func (c *Client) bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		d = 0
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.tasks.Context(), func() { cancel(ErrClosed) })
	end := func() { stop(); cancel(nil) }
	if d == 0 {
		return ctx, end
	}
	timed, cancelTimed := context.WithTimeoutCause(ctx, d, ErrNoAnswer)
	return timed, func() { cancelTimed(); end() }
}

// late is the error of a call whose ctx has ended, after a last failed attempt or none.
func (c *Client) late(ctx context.Context, last *Error) *Error {
	e := &Error{Op: last.Op, Addr: last.Addr, Kind: Unavailable, Code: last.Code, Message: last.Message, Tried: last.Tried, Attempts: last.Attempts}
	switch e.Err = context.Cause(ctx); e.Err {
	case ErrClosed:
		e.Kind = Closed
	case ErrNoAnswer: // the default bound
	default:
		e.Ended = ctx.Err()
	}
	return e
}
