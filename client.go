package tikv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/raw"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/txn"
)

// Client is a connection to one TiKV cluster. It is safe for concurrent use and
// owns every goroutine and connection it starts; Close ends them all.
type Client struct {
	cfg    config
	engine *engine
	reads  reading // of views without options

	walker codec.Walker

	open atomic.Pointer[ender] // *openTxns; nil: there were none

	closing  atomic.Bool
	closed   chan struct{} // closed when Close has done its work
	closeErr error         // set before closed
}

// engine is what the views of a client work with.
type engine struct {
	pool    *transport.Pool
	pd      *pd.Client
	regions atomic.Pointer[region.Cache] // the router's
	router  *router.Router
	logger  *slog.Logger
	keys    keys.Printer

	hooks interface{ end() } // tells hooks what is beside calls; nil: there are none

	tasks *task.Group // what ends with the client
	owed  *task.Group // what Close waits for: secondaries, rollbacks, unlocks

	txn, raw codec.Codec
	txns     *txn.Engine
	rawOps   raw.Pool
	starts   starts
}

// Open connects to the cluster whose PD members listen at pd, each a host:port, perhaps
// with a scheme as PD advertises it; those given need not be all. ctx bounds Open alone. It
// is ErrUnavailable where no member answers, ErrInvalid where an option is wrong: all that
// is wrong is reported at once, joined in one error. A failed Open leaves nothing behind.
func Open(ctx context.Context, pd []string, opts ...Option) (*Client, error) {
	return open(ctx, "Open", pd, opts)
}

func open(ctx context.Context, op string, addrs []string, opts []Option) (*Client, error) {
	cfg := config{closeTimeout: defaultCloseTimeout, logger: slog.New(slog.DiscardHandler), view: viewConfig{retryFor: defaultRetryFor}}
	if err := cfg.apply(op, addrs, opts); err != nil {
		return nil, err
	}
	cfg.txn = &txnConfig{view: cfg.view, assertions: AssertionsFast}
	e := &engine{logger: cfg.logger, keys: keys.Printer{Plain: cfg.plainKeys}}
	if err := e.start(ctx, &cfg, addrs); err != nil {
		e.stop(nil)
		if arg, ok := err.(*ArgumentError); ok {
			arg.Op = op
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, &canceledError{op: op, causes: []error{context.Cause(ctx), ctx.Err()}}
		}
		return nil, mapError(errorContext{op: op, keys: e.keys}, err)
	}
	c := &Client{cfg: cfg, engine: e, closed: make(chan struct{})}
	c.reads.cfg.view = cfg.view
	c.reads.opts = c.readOptions(cfg.view, routeConfig{}, false)
	return c, nil
}

// apply reads and checks all that Open is given.
func (cfg *config) apply(op string, addrs []string, opts []Option) error {
	_ = apply(op, opts, cfg, func(o Option) { o.applyOpen(cfg) })
	if len(addrs) == 0 {
		cfg.add("pd", "needs at least one address")
	}
	for _, a := range addrs {
		if strings.TrimSpace(a) == "" {
			cfg.add("pd", "has an empty address")
		} else if pd.CheckAddress(a) != nil {
			cfg.add("pd", "has the address "+strconv.Quote(a)+", which is not host:port")
		}
	}
	if cfg.hasKeyspace {
		if cfg.apiGiven && cfg.api != APIV2 {
			cfg.add("WithKeyspace", "needs APIV2")
		}
		cfg.api = APIV2
	}
	cfg.certify()
	return cfg.err()
}

// certify makes the credentials that the options ask for.
func (cfg *config) certify() {
	if cfg.tls == nil {
		if cfg.tlsNames != nil {
			cfg.add("WithTLSNames", "needs WithTLS or WithTLSFiles")
		}
		return
	}
	var err error
	if cfg.credentials, err = cfg.tls(cfg.tlsNames); err != nil {
		cfg.add("WithTLSFiles", "cannot use "+err.Error())
	}
}

// start makes the engine's parts in the order in which they need each other.
func (e *engine) start(ctx context.Context, cfg *config, addrs []string) (err error) {
	e.tasks = task.Root(ctx)
	e.owed = task.New(e.tasks.Context())
	var see seams
	if w := cfg.view.watch; w != nil {
		see = w.observe(ctx, cfg.logger, e.storeAt)
		e.hooks = see.observer
	}
	e.pool = transport.New(transport.Config{
		Dial: cfg.dial, AddressMap: cfg.addressMap, Credentials: cfg.credentials, StoreOptions: cfg.compression, PDOptions: see.pd,
		Logger: cfg.logger, OnConn: see.conn,
		OnFeedback: func(f *kvrpcpb.HealthFeedback) {
			if regions := e.regions.Load(); regions != nil {
				regions.Feedback(f)
			}
		},
	})
	if e.pd, err = pd.Open(ctx, addrs, pd.Config{
		Pool: e.pool, Logger: cfg.logger, TSOFollowerProxy: cfg.tsoProxy, FollowerReads: cfg.pdReads, OnLeader: see.leader,
	}); err != nil {
		return err
	}
	var keyspace uint32
	if cfg.api == APIV2 {
		if keyspace, err = e.keyspace(ctx, cfg.keyspace); err != nil {
			return err
		}
		e.pd.UseKeyspace(keyspace)
	}
	e.txn = codec.New(cfg.api.codec(), codec.Txn, keyspace)
	e.raw = codec.New(cfg.api.codec(), codec.Raw, keyspace)
	cfg.regions.Probe, cfg.regions.Changed = router.Probe(e.pool), see.change
	regions := router.NewRegions(e.pd, e.tasks, cfg.regions)
	e.regions.Store(regions)
	e.router = router.New(e.tasks.Context(), router.Config{
		ClusterID: e.pd.ClusterID(), Regions: regions, Transport: e.pool, Tasks: e.tasks,
		Logger: cfg.logger, RPCTimeout: cfg.rpcTimeout,
	})
	e.txns = txn.New(txn.Config{PD: e.pd, Router: e.router, Codec: e.txn, Tasks: e.tasks, Owed: e.owed, Logger: cfg.logger, Latches: cfg.latches})
	return nil
}

// storeAt is the store with the address, 0 if none is known: a member of PD.
func (e *engine) storeAt(addr string) uint64 {
	if regions := e.regions.Load(); regions != nil {
		for _, s := range regions.Stores() {
			if s.Addr == addr {
				return s.ID
			}
		}
	}
	return 0
}

// keyspace finds the id of a keyspace that is in use.
func (e *engine) keyspace(ctx context.Context, name string) (uint32, error) {
	meta, err := e.pd.Keyspace(ctx, name)
	if err != nil {
		if perr, ok := err.(*pd.Error); ok && perr.Kind == pd.NotFound {
			return 0, &ArgumentError{Arg: "WithKeyspace", Reason: "names no keyspace of the cluster: " + strconv.Quote(cmp.Or(name, "DEFAULT"))}
		}
		return 0, err
	}
	if meta.GetState() != keyspacepb.KeyspaceState_ENABLED {
		return 0, &ArgumentError{Arg: "WithKeyspace", Reason: "names a keyspace that is " + meta.GetState().String()}
	}
	return meta.GetId(), nil
}

// stop ends what was started, whatever of it there is. cause is what calls in flight
// end with.
func (e *engine) stop(cause error) {
	if e.owed != nil {
		e.owed.Refuse()
		e.owed.Cancel(cause)
	}
	if e.tasks != nil {
		e.tasks.Refuse()
		e.tasks.Cancel(cause)
	}
	if e.pd != nil {
		e.pd.Close()
	}
	if e.pool != nil {
		e.pool.Close()
	}
	if e.owed != nil {
		e.owed.Close(cause)
	}
	if e.tasks != nil {
		e.tasks.Close(cause)
	}
	if e.hooks != nil {
		e.hooks.end()
	}
}

// Close refuses new calls, ends those in flight with ErrClosed, gives commits and
// unlocks still owed up to WithCloseTimeout, and waits for every goroutine. Its error
// counts what was abandoned. It may be called again, and returns the same. It does not
// wait for callers, so it may be called from anywhere, RunTxn's fn included.
func (c *Client) Close() error {
	if c.closing.Swap(true) {
		<-c.closed
		return c.closeErr
	}
	defer close(c.closed)
	e, began := c.engine, time.Now()
	e.router.Shut()
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.closeTimeout)
	defer cancel()
	late := slices.Repeat([]string{"commit"}, e.txns.Settle(ctx)) // with locks, perhaps
	if e.owed.Wait(ctx) != nil || len(late) > 0 {
		late = append(e.owed.Running(), late...)
		c.closeErr = abandoned(late)
	}
	e.stop(router.ErrClosed)
	if open := c.open.Load(); open != nil {
		(*open).end()
	}
	if w := c.cfg.view.watch; w != nil {
		w.tellClosed(ctx, c.cfg.logger, late, time.Since(began))
	}
	return c.closeErr
}

// abandoned is Close's error: what was owed and not done in time.
func abandoned(names []string) error {
	counts, order := make(map[string]int), []string{}
	for _, name := range names {
		if counts[name]++; counts[name] == 1 {
			order = append(order, name)
		}
	}
	if len(order) == 0 {
		return nil
	}
	for i, name := range order {
		order[i] = fmt.Sprintf("%d of %s", counts[name], name)
	}
	return fmt.Errorf("tikv: Close: abandoned %s", strings.Join(order, ", "))
}

// ClusterID returns the id that PD gave the cluster.
func (c *Client) ClusterID() uint64 { return c.engine.pd.ClusterID() }

// check refuses a call on a closed client.
func (c *Client) check(op string) error {
	if c.closing.Load() {
		return &closedError{op: op}
	}
	return nil
}

// call begins a call of a view.
func (c *Client) call(op string, v *viewConfig, r replicaConfig, cd codec.Codec) router.Call {
	return router.Call{
		Op: op, Codec: cd, Priority: v.priority.wire(), RequestSource: v.source, RetryFor: v.retryFor, Route: c.route(*v, r, false), Extra: c.extra(*v),
	}
}

func (c *Client) errorContext(op string, cd codec.Codec) errorContext {
	return errorContext{op: op, codec: cd, keys: c.engine.keys, cluster: c.engine.pd.ClusterID()}
}

// Reader is what Snapshot, Txn and Raw have in common. The package accepts it
// nowhere; it is for code that reads from any of them. Keys may be reused when a call
// returns; results are the caller's for good.
type Reader interface {
	// Get returns ErrNotFound for an absent key.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// BatchGet returns values in the order of keys: nil for an absent key, non-nil
	// and perhaps empty for a present one. On error there are no values.
	BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error)
	// Scan yields the pairs of r in key order. An error is yielded once, last, with
	// a zero Pair. The scan's resources live exactly as long as the loop.
	Scan(ctx context.Context, r Range, opts ...ScanOption) iter.Seq2[Pair, error]
}

var (
	_ Reader = (*Raw)(nil)
	_ Reader = (*AtomicRaw)(nil)
)

// Collect gathers what a scan yields. On an error it returns that and what came before.
func Collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

// Optional turns ErrNotFound into a nil value: v, err := tikv.Optional(tx.Get(ctx, k)).
func Optional(value []byte, err error) ([]byte, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return value, err
}
