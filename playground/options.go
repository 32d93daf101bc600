package playground

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tikv-go/tikv/playground/internal/cdc"
	"github.com/tikv-go/tikv/playground/internal/copr"
)

// Option configures Start.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options make; the zero value of a field that is not set by
// defaults is no such thing.
type config struct {
	stores, members int
	api             APIVersion
	apiSet          bool
	keyspaces       []string
	groups          []resourceGroup
	split           []splitKey
	labels          []storeLabels
	regionBytes     int
	feed            cdc.Limits
	dir             string
	fsync           bool
	services        bool // beside PD
	tcp             bool
	host            string
	port            int
	seed            uint64
	logger          *slog.Logger
	coprocessors    copr.Handlers
	plugins         copr.Plugins
	tls             bool
	tlsFiles        string // empty: none
	storesSet       bool
	reopened        bool // of a directory that had a cluster
	membersSet      bool
	errs            []error
}

type splitKey struct {
	mode KeyMode
	key  []byte
}

type resourceGroup struct {
	name  string
	units uint64
}

type storeLabels struct {
	store  uint64
	labels map[string]string
}

func (c *config) refuse(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("playground: "+format, args...))
}

// WithStores makes n stores; the default is 3.
func WithStores(n int) Option {
	return option(func(c *config) {
		c.stores, c.storesSet = n, true
		if n < 1 || n > maxStores {
			c.refuse("WithStores(%d): a cluster has 1 to %d stores", n, maxStores)
		}
	})
}

const (
	maxStores  = 1000
	maxMembers = 7
)

// WithMembers makes n members of PD; the default is 1.
func WithMembers(n int) Option {
	return option(func(c *config) {
		c.members, c.membersSet = n, true
		if n < 1 || n > maxMembers {
			c.refuse("WithMembers(%d): PD has 1 to %d members", n, maxMembers)
		}
	})
}

// WithPDServices lets timestamps come from a service beside PD, as in a cluster whose PD is
// split into services, and lookups of regions and stores from routers if clients want it.
// Both run in the members' processes, at their addresses: PD's leader is the primary for
// timestamps, every member is a router.
func WithPDServices() Option { return option(func(c *config) { c.services = true }) }

// WithAPIVersion sets the API version that the stores have; the default is APIV1.
func WithAPIVersion(v APIVersion) Option {
	return option(func(c *config) {
		c.api, c.apiSet = v, true
		if v > APIV2 {
			c.refuse("WithAPIVersion(%d): there is no such API version", v)
		}
	})
}

// WithKeyspaces makes keyspaces besides the one named DEFAULT, in a cluster of APIV2.
// Their ids are 1, 2, ... in the order given.
func WithKeyspaces(names ...string) Option {
	return option(func(c *config) {
		for _, name := range names {
			if !validKeyspace(name) || slices.Contains(c.keyspaces, name) {
				c.refuse("WithKeyspaces: %q is no name for another keyspace", name)
			}
			c.keyspaces = append(c.keyspaces, name)
		}
	})
}

// validKeyspace is PD's rule (pkg/keyspace/util.go, validateName): letters, digits, '_'
// and '-', 1 to 64 of them, and not the default's name.
func validKeyspace(name string) bool {
	if name == "" || len(name) > 64 || name == defaultKeyspace {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return false
		}
	}
	return true
}

const defaultKeyspace = "DEFAULT"

// WithResourceGroup makes a resource group, for clients without a keyspace, that is filled
// with request units each second; as many are its limit. The group named default is there
// without a limit; this can give it one.
func WithResourceGroup(name string, unitsPerSec uint64) Option {
	return option(func(c *config) {
		switch {
		case name == "" || len(name) > 32: // PD: pkg/mcs/resourcemanager/server, validateResourceGroupProto
			c.refuse("WithResourceGroup: %q is no name for a resource group: it has 1 to 32 bytes", name)
		case slices.ContainsFunc(c.groups, func(g resourceGroup) bool { return g.name == name }):
			c.refuse("WithResourceGroup: %q is there twice", name)
		case unitsPerSec == 0 || unitsPerSec > math.MaxInt32:
			c.refuse("WithResourceGroup: %q cannot have %d units a second", name, unitsPerSec)
		}
		c.groups = append(c.groups, resourceGroup{name, unitsPerSec})
	})
}

// WithSplitKeys lets regions begin at keys, user keys of the mode.
func WithSplitKeys(mode KeyMode, keys ...[]byte) Option {
	return option(func(c *config) {
		if mode != KeyTxn && mode != KeyRaw {
			c.refuse("WithSplitKeys: %d is no key mode", mode)
		}
		for _, k := range keys {
			c.split = append(c.split, splitKey{mode, slices.Clone(k)})
		}
	})
}

// WithLabels adds labels to those of a store.
func WithLabels(storeID uint64, labels map[string]string) Option {
	return option(func(c *config) {
		c.labels = append(c.labels, storeLabels{storeID, maps.Clone(labels)})
	})
}

// WithRegionBytes lets regions split by themselves once they hold more than n bytes of
// keys and values, all versions counted, into parts of two thirds of that.
func WithRegionBytes(n int) Option {
	return option(func(c *config) {
		if c.regionBytes = n; n < minRegionBytes {
			c.refuse("WithRegionBytes(%d): it takes at least %d", n, minRegionBytes)
		}
	})
}

const minRegionBytes = 64

// WithFeedInterval sets how often change feeds tell resolved timestamps; the default is
// TiKV's, a second (cdc.min-ts-interval).
func WithFeedInterval(d time.Duration) Option {
	return option(func(c *config) {
		if c.feed.Interval = d; d <= 0 {
			c.refuse("WithFeedInterval(%v): it takes some time", d)
		}
	})
}

// WithFeedQuota sets how many bytes a store keeps for clients of its change feed that do
// not read, before it ends subscriptions as congested; the default is TiKV's, 512 MiB
// (cdc.sink-memory-quota).
func WithFeedQuota(bytes int) Option {
	return option(func(c *config) {
		if c.feed.Quota = bytes; bytes < 1 {
			c.refuse("WithFeedQuota(%d): it takes at least 1", bytes)
		}
	})
}

// WithDir keeps the cluster in a directory, which is made if it is not there and locked
// while the cluster runs; the default is memory. What was acknowledged survives the end
// of the process, with fsync that of the machine too. A directory remembers the
// cluster's API version, stores, members, keyspaces and resource groups: to open it again with others is
// an error, options that were not given are taken from it.
func WithDir(path string, fsync bool) Option {
	return option(func(c *config) {
		c.dir, c.fsync = path, fsync
		if path == "" {
			c.refuse("WithDir: no path")
		}
	})
}

// WithTCP lets the cluster listen on host, where its clients find it: PD on port, its further members and the
// stores on the ports that follow, or all on any ports if port is 0. The default is a
// network in memory that only DialContext reaches.
func WithTCP(host string, port int) Option {
	return option(func(c *config) {
		c.tcp, c.host, c.port = true, host, port
		if host == "" {
			c.refuse("WithTCP: no host")
		}
		if port < 0 || port > 65535 {
			c.refuse("WithTCP: %d is no port", port)
		}
	})
}

// WithSeed sets the source of everything random in the cluster; the default is 1.
func WithSeed(seed uint64) Option { return option(func(c *config) { c.seed = seed }) }

// WithLogger lets the cluster log; the default is silence.
func WithLogger(l *slog.Logger) Option {
	return option(func(c *config) {
		if c.logger = l; l == nil {
			c.refuse("WithLogger: no logger")
		}
	})
}

// newConfig applies the options to the defaults and reports every bad one.
func newConfig(opts []Option) (*config, error) {
	c := &config{stores: 3, members: 1, seed: 1, logger: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		if o == nil {
			c.refuse("an option is nil")
			continue
		}
		o.apply(c)
	}
	if len(c.keyspaces) > 0 && c.apiSet && c.api != APIV2 {
		c.refuse("keyspaces need APIV2, the cluster has %v", c.api)
	}
	for _, s := range c.split {
		if s.mode == KeyTxn && c.api == APIV1TTL {
			c.refuse("WithSplitKeys: a cluster of %v has no transactional keys", c.api)
		}
	}
	return c, errors.Join(c.errs...)
}
