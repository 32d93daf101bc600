package tikv

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/txn"
)

// One interface a call family. An option that makes sense in several families
// implements each; giving one to the wrong call does not compile. The indented ones
// name those that fit more than one.
type (
	// Option is an option of Open and OpenURL.
	Option interface{ applyOpen(*config) }
	// RawOption is an option of Client.Raw and Client.AtomicRaw.
	RawOption interface{ applyRaw(*rawConfig) }
	// ScanOption is an option of every scan.
	ScanOption interface{ applyScan(*scanConfig) }
	// BatchPutOption is an option of Raw.BatchPut.
	BatchPutOption interface{ applyBatchPut(*putConfig) }
	// DestroyOption is an option of calls that destroy a range.
	DestroyOption interface{ applyDestroy(*destroyConfig) }

	// PutOption is an option of every raw write of a value.
	PutOption interface {
		BatchPutOption
		applyPut(*putConfig)
	}
	// ViewOption is an option of every view and transaction; given to Open, it is
	// their default.
	ViewOption interface {
		Option
		RawOption
		ReadOption
		TxnOption
		RPCOption
	}
)

// config is what Open is given.
type config struct {
	problems
	view viewConfig

	api          APIVersion
	apiGiven     bool
	keyspace     string
	hasKeyspace  bool
	tls          func(names []string) (credentials.TransportCredentials, error) // nil: plain text
	tlsNames     []string
	credentials  credentials.TransportCredentials // what tls made
	compression  []grpc.DialOption
	dial         func(ctx context.Context, addr string) (net.Conn, error)
	addressMap   func(advertised string) string
	logger       *slog.Logger
	plainKeys    bool
	tsoProxy     bool
	pdReads      bool
	rpcTimeout   time.Duration
	closeTimeout time.Duration
	zone         string
	regions      region.Config // Bytes, MaxInFlight
	latches      txn.Latches
	txn          *txnConfig // the defaults of transactions
}

// viewConfig is what all views have in common.
type viewConfig struct {
	priority Priority
	source   string
	retryFor time.Duration
	failFast bool

	group  string
	tag    []byte
	taskID uint64
	watch  watching // nil: nobody
}

// rawConfig is a raw view's.
type rawConfig struct {
	problems
	view    viewConfig
	replica replicaConfig
	cf      string
}

// scanConfig is one scan's.
type scanConfig struct {
	problems
	limit    int // 0: none
	pageSize int // 0: adaptive
	reverse  bool
	keysOnly bool
}

// putConfig is one raw write's.
type putConfig struct {
	problems
	ttl     time.Duration
	ttls    []time.Duration
	hasTTLs bool
	keepTTL bool
}

// destroyConfig is one destructive range call's.
type destroyConfig struct {
	problems
	unbounded bool
}

// The defaults.
const (
	defaultCloseTimeout = 3 * time.Second
	defaultRetryFor     = 20 * time.Second
)

// apply applies options and returns what is wrong with them, all of it.
func apply[O any](op string, opts []O, c interface{ setOp(string) *problems }, one func(O)) error {
	p := c.setOp(op)
	for i, o := range opts {
		if any(o) == nil {
			p.add("option "+strconv.Itoa(i), "is nil")
			continue
		}
		one(o)
	}
	return p.err()
}

// problems gathers what is wrong with the arguments of one call.
type problems struct {
	op   string
	errs []error
}

func (p *problems) setOp(op string) *problems { p.op = op; return p }

// add notes a problem, unless reason is empty.
func (p *problems) add(arg, reason string) {
	if reason != "" {
		p.errs = append(p.errs, &ArgumentError{Op: p.op, Arg: arg, Reason: reason})
	}
}

func (p *problems) err() error { return errors.Join(p.errs...) }

// The kinds of options. set returns what is wrong with the value, or nothing.
type (
	openOption struct {
		name string
		set  func(*config) string
	}
	viewOption struct {
		name string
		set  func(*viewConfig) string
	}
	rawOption struct {
		name string
		set  func(*rawConfig) string
	}
	scanOption struct {
		name string
		set  func(*scanConfig) string
	}
	putOption struct {
		name string
		set  func(*putConfig) string
	}
	batchPutOption struct {
		name string
		set  func(*putConfig) string
	}
	destroyOption struct {
		name string
		set  func(*destroyConfig) string
	}
)

func (o openOption) applyOpen(c *config)              { c.add(o.name, o.set(c)) }
func (o viewOption) applyOpen(c *config)              { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyRaw(c *rawConfig)            { c.add(o.name, o.set(&c.view)) }
func (o rawOption) applyRaw(c *rawConfig)             { c.add(o.name, o.set(c)) }
func (o scanOption) applyScan(c *scanConfig)          { c.add(o.name, o.set(c)) }
func (o putOption) applyPut(c *putConfig)             { c.add(o.name, o.set(c)) }
func (o putOption) applyBatchPut(c *putConfig)        { c.add(o.name, o.set(c)) }
func (o batchPutOption) applyBatchPut(c *putConfig)   { c.add(o.name, o.set(c)) }
func (o destroyOption) applyDestroy(c *destroyConfig) { c.add(o.name, o.set(c)) }

// WithTLS makes every connection use TLS. The default is plain text.
func WithTLS(cfg *tls.Config) Option {
	return openOption{"WithTLS", func(c *config) string {
		if cfg == nil {
			return "needs a configuration"
		}
		cfg := cfg.Clone()
		c.tls = func(names []string) (credentials.TransportCredentials, error) {
			transport.AllowNames(cfg, names)
			return credentials.NewTLS(cfg), nil
		}
		return ""
	}}
}

// WithTLSFiles is WithTLS with files in PEM: the authorities to trust ("": those of the
// system), and the certificate to show and its key ("" both: none). The client looks at
// the files every 10 s, and sooner when a connection fails. When they have changed,
// authorities included, each connection is replaced by one made with the new files; the
// old one ends with its calls, at most 30 s later. New files that cannot be used, or get
// no connection, leave the old connections in place; the logger is told.
func WithTLSFiles(ca, cert, key string) Option {
	return openOption{"WithTLSFiles", func(c *config) string {
		if (cert == "") != (key == "") {
			return "needs cert and key together"
		}
		c.tls = func(names []string) (credentials.TransportCredentials, error) {
			f, err := transport.LoadTLS(transport.TLSFiles{CA: ca, Cert: cert, Key: key, Names: names})
			if err != nil {
				return nil, err
			}
			return f, nil
		}
		return ""
	}}
}

// WithTLSNames lets the client speak only to servers whose certificate is for one of the
// names: its common name, or a DNS name, IP address, e-mail address or URI (SPIFFE) among
// its alternative names. Authority and host are verified as without it.
func WithTLSNames(names ...string) Option {
	return openOption{"WithTLSNames", func(c *config) string {
		c.tlsNames = names
		if len(names) == 0 || slices.Contains(names, "") {
			return "needs names"
		}
		return ""
	}}
}

// WithCompression compresses what is sent to stores, with gzip, and lets TiKV compress its answers,
// which it does where it is configured to. It saves bytes at the price of time on both
// sides. The default is no compression.
func WithCompression() Option {
	return openOption{"WithCompression", func(c *config) string {
		// These two, and not grpc's registry of compressors, because that links gzip
		// into every program and is one for all clients of a process.
		c.compression = []grpc.DialOption{
			grpc.WithCompressor(grpc.NewGZIPCompressor()),     //lint:ignore SA1019 see above
			grpc.WithDecompressor(grpc.NewGZIPDecompressor()), //lint:ignore SA1019 see above
		}
		return ""
	}}
}

// WithKeyspace chooses the keyspace by name; it implies APIV2. On APIV2 the default is
// the keyspace DEFAULT.
func WithKeyspace(name string) Option {
	return openOption{"WithKeyspace", func(c *config) string {
		c.keyspace, c.hasKeyspace = name, true
		if name == "" {
			return "needs a name"
		}
		return ""
	}}
}

// WithAPIVersion says how the cluster stores keys. The default is APIV1.
func WithAPIVersion(v APIVersion) Option {
	return openOption{"WithAPIVersion", func(c *config) string {
		c.api, c.apiGiven = v, true
		if v > APIV2 {
			return "is not known: " + strconv.Itoa(int(v))
		}
		return ""
	}}
}

// WithDialer makes every connection of the client go through dial. The default is TCP.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return openOption{"WithDialer", func(c *config) string {
		c.dial = dial
		if dial == nil {
			return "needs a function"
		}
		return ""
	}}
}

// WithAddressMap translates the addresses that PD and the stores advertise into those
// to dial. f must not block.
func WithAddressMap(f func(advertised string) (dialled string)) Option {
	return openOption{"WithAddressMap", func(c *config) string {
		c.addressMap = f
		if f == nil {
			return "needs a function"
		}
		return ""
	}}
}

// WithLogger gives the client a logger. The default is silence.
func WithLogger(l *slog.Logger) Option {
	return openOption{"WithLogger", func(c *config) string {
		c.logger = l
		if l == nil {
			return "needs a logger"
		}
		return ""
	}}
}

// WithTSOFollowerProxy takes timestamps from any of PD's members, which merge the requests
// of many clients before they pass them on to the leader: less work for the leader, one
// more hop for the client. The default is the leader itself.
func WithTSOFollowerProxy() Option {
	return openOption{"WithTSOFollowerProxy", func(c *config) string { c.tsoProxy = true; return "" }}
}

// WithPDFollowerReads lets any of PD's members answer which region holds a key, and the
// leader where that turns out to be old. The default is the leader alone.
func WithPDFollowerReads() Option {
	return openOption{"WithPDFollowerReads", func(c *config) string { c.pdReads = true; return "" }}
}

// WithPlainKeys shows keys in logs and errors, in hexadecimal. Otherwise they are
// redacted.
func WithPlainKeys() Option {
	return openOption{"WithPlainKeys", func(c *config) string { c.plainKeys = true; return "" }}
}

// WithRPCTimeout bounds one attempt to get an answer from a store. The default is 30 s
// for reads and 20 s for writes.
func WithRPCTimeout(d time.Duration) Option {
	return openOption{"WithRPCTimeout", func(c *config) string { c.rpcTimeout = d; return positive(d) }}
}

// WithCloseTimeout bounds the time that Close gives to commits and unlocks still owed.
// The default is 3 s; 0 abandons them.
func WithCloseTimeout(d time.Duration) Option {
	return openOption{"WithCloseTimeout", func(c *config) string {
		c.closeTimeout = d
		if d < 0 {
			return "must not be negative"
		}
		return ""
	}}
}

// WithPriority sets the priority of requests in TiKV's pools. The default is
// PriorityNormal.
func WithPriority(p Priority) ViewOption {
	return viewOption{"WithPriority", func(c *viewConfig) string {
		c.priority = p
		if p > PriorityHigh {
			return "is not known: " + strconv.Itoa(int(p))
		}
		return ""
	}}
}

// WithRequestSource names the origin of requests in TiKV's statistics. The default is none.
func WithRequestSource(name string) ViewOption {
	return viewOption{"WithRequestSource", func(c *viewConfig) string { c.source = name; return "" }}
}

// WithRetryFor bounds for how long a call is tried again where its context has no deadline;
// an attempt that is under way then still has its time (WithRPCTimeout). The default is 20 s.
func WithRetryFor(d time.Duration) ViewOption {
	return viewOption{"WithRetryFor", func(c *viewConfig) string { c.retryFor = d; return positive(d) }}
}

// WithColumnFamily makes a raw view work on another column family than "default": TiKV
// takes "lock" and "write". It does not exist on API V2.
func WithColumnFamily(cf string) RawOption {
	return rawOption{"WithColumnFamily", func(c *rawConfig) string {
		c.cf = cf
		if cf == "" {
			return "needs a name"
		}
		return ""
	}}
}

// WithLimit ends a scan after n pairs in all. The default is no limit.
func WithLimit(n int) ScanOption {
	return limitOption(n)
}

// limitOption is an integer, so that a small one costs nothing.
type limitOption int

func (o limitOption) applyScan(c *scanConfig) {
	c.limit = int(o)
	c.add("WithLimit", atLeastOne(c.limit))
}

// WithPageSize sets how many pairs a scan asks for at a time. The default is 256 at first, and
// doubles up to 4,096 as long as the pages are light.
func WithPageSize(n int) ScanOption {
	return scanOption{"WithPageSize", func(c *scanConfig) string { c.pageSize = n; return atLeastOne(n) }}
}

// WithReverse scans from the end of the range to its start.
func WithReverse() ScanOption {
	return scanOption{"WithReverse", func(c *scanConfig) string { c.reverse = true; return "" }}
}

// WithKeysOnly leaves values out: they are nil.
func WithKeysOnly() ScanOption {
	return scanOption{"WithKeysOnly", func(c *scanConfig) string { c.keysOnly = true; return "" }}
}

// WithTTL makes a key expire: whole seconds, at least one. Clusters of APIV1 have no
// TTLs.
func WithTTL(d time.Duration) PutOption {
	return putOption{"WithTTL", func(c *putConfig) string {
		c.ttl = d
		if d < time.Second {
			return "must be at least a second"
		}
		return wholeSeconds(d)
	}}
}

// WithKeepTTL keeps the time that a present key has left. It is read first, which costs
// one more round trip; on an AtomicRaw the write happens only if the value is still
// the one that was read with it.
func WithKeepTTL() PutOption {
	return putOption{"WithKeepTTL", func(c *putConfig) string { c.keepTTL = true; return "" }}
}

// WithTTLs gives each pair of a batch its own TTL: whole seconds; 0 for none.
func WithTTLs(ds []time.Duration) BatchPutOption {
	return batchPutOption{"WithTTLs", func(c *putConfig) string {
		c.ttls, c.hasTTLs = ds, true
		for _, d := range ds {
			if d < 0 {
				return "must not be negative"
			}
			if reason := wholeSeconds(d); reason != "" {
				return reason
			}
		}
		return ""
	}}
}

// WithUnbounded allows a destructive call on a range without an end.
func WithUnbounded() DestroyOption {
	return destroyOption{"WithUnbounded", func(c *destroyConfig) string { c.unbounded = true; return "" }}
}

func positive(d time.Duration) string {
	if d <= 0 {
		return "must be positive"
	}
	return ""
}

func atLeastOne(n int) string {
	if n < 1 {
		return "must be at least one"
	}
	return ""
}

func wholeSeconds(d time.Duration) string {
	if d%time.Second != 0 {
		return "must be whole seconds"
	}
	return ""
}

// APIVersion is how the cluster stores keys; it must be the cluster's.
type APIVersion uint8

// The API versions.
const (
	APIV1    APIVersion = iota // raw and transactional keys share one space
	APIV1TTL                   // raw keys alone, with TTLs
	APIV2                      // keyspaces, raw and transactional keys apart, TTLs
)

// String is the version's name in lower case: v1, v1ttl, v2.
func (v APIVersion) String() string {
	switch v {
	case APIV1:
		return "v1"
	case APIV1TTL:
		return "v1ttl"
	case APIV2:
		return "v2"
	}
	return "APIVersion(" + strconv.Itoa(int(v)) + ")"
}

func (v APIVersion) codec() codec.APIVersion {
	switch v {
	case APIV1TTL:
		return codec.V1TTL
	case APIV2:
		return codec.V2
	}
	return codec.V1
}

// Priority is a call's, in TiKV's read and write pools.
type Priority uint8

// The priorities.
const (
	PriorityNormal Priority = iota
	PriorityLow
	PriorityHigh
)

// String is the priority in a word.
func (p Priority) String() string {
	switch p {
	case PriorityNormal:
		return "normal"
	case PriorityLow:
		return "low"
	case PriorityHigh:
		return "high"
	}
	return "Priority(" + strconv.Itoa(int(p)) + ")"
}

func (p Priority) wire() kvrpcpb.CommandPri {
	switch p {
	case PriorityLow:
		return kvrpcpb.CommandPri_Low
	case PriorityHigh:
		return kvrpcpb.CommandPri_High
	}
	return kvrpcpb.CommandPri_Normal
}
