package region

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// PD is where the cache loads from. A Found without Meta means that PD knows none.
type PD interface {
	// Region finds the region that holds key; fresh, from who knows best.
	Region(ctx context.Context, key []byte, fresh bool) (Found, error)
	// PrevRegion finds the region that holds the keys just before key; the empty key is the
	// end of all keys.
	PrevRegion(ctx context.Context, key []byte) (Found, error)
	RegionByID(ctx context.Context, id uint64) (Found, error)
	// ScanRegions finds at most limit regions that overlap the ranges, which are in order
	// and apart.
	ScanRegions(ctx context.Context, ranges []keys.Range, limit int) ([]Found, error)
	// Store returns nil for a store that PD does not know.
	Store(ctx context.Context, id uint64) (*metapb.Store, error)
	// Stores returns those that were not removed.
	Stores(ctx context.Context) ([]*metapb.Store, error)
}

// Config is what a cache may be made with.
type Config struct {
	// Probe asks the store at an address whether it serves; nil: that the next request
	// shows.
	Probe func(ctx context.Context, addr string) error
	// Waiting says whom a load waits for, for the error of a caller that gives up; nil: it
	// does not.
	Waiting func() string
	// MaxInFlight bounds the requests to a store that are under way; 0: 16384.
	MaxInFlight int32
	// Bytes bounds the memory of the entries; 0: 64 MiB, some 200,000 regions.
	Bytes int64
	// Buckets are asked for with regions.
	Buckets bool
	// Changed is told what the cache learns, on the goroutine that learns it, without locks
	// held; nil: nobody.
	Changed func(Change)
}

// Defaults of a Config.
const (
	maxInFlight = 1 << 14
	maxBytes    = 64 << 20
)

// Change is what a cache has learned.
type Change struct {
	Kind          ChangeKind
	Region, Store uint64
	Addr          string // the store's
}

// ChangeKind is a kind of change.
type ChangeKind uint8

// The kinds.
const (
	RegionLoaded  ChangeKind = iota // of which nothing valid was known; the store leads it
	LeaderMoved                     // of the region, to the store
	EpochChanged                    // split, merge or other peers; the store leads it
	RegionEvicted                   // an entry went: it was wrong, not used, one too many, or in the way of another
	StoreFound                      // PD told of it
	StoreUp                         // after StoreDown: the store answers again
	StoreDown                       // the store does not answer
	StoreSlow                       // it is slow, by its answers or its own word
	StoreQuick                      // after StoreSlow: it is not any more
	StoreMoved                      // PD told of another address, of which nothing is known
	StoreGone                       // PD does not know the store any more
)

func (c *Cache) tell(what Change) {
	if c.cfg.Changed != nil {
		c.cfg.Changed(what)
	}
}

// Failures of a load that may succeed later.
var (
	ErrNoRegion = errors.New("region: PD knows no region for the key")
	ErrNoPeer   = errors.New("region: no peer of the region can lead")
	ErrStale    = errors.New("region: PD is behind the stores")
)

// Cache is safe for concurrent use. All its keys are region keys.
type Cache struct {
	cfg   Config
	pd    PD
	tasks *task.Group
	start time.Time // of the cache's clock

	index atomic.Pointer[index]
	mu    sync.Mutex // held by writers of index, never across a wait
	bytes int64      // of all entries
	hand  []byte     // where eviction goes on
	kept  bool       // the upkeep runs

	loads    loader
	endLoads flights[*Region]
	stores   storeCache
	gate     gate // of probes

	loaded, evicted atomic.Uint64
	invalidated     [lastWhy]atomic.Uint64
}

// New returns an empty cache. Its loads are tasks of the group.
func New(pd PD, tasks *task.Group) *Cache { return NewWith(pd, tasks, Config{}) }

// NewWith is New with a configuration.
func NewWith(pd PD, tasks *task.Group, cfg Config) *Cache {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = maxInFlight
	}
	if cfg.Bytes <= 0 {
		cfg.Bytes = maxBytes
	}
	c := &Cache{cfg: cfg, pd: pd, tasks: tasks, start: time.Now()}
	c.index.Store(&index{})
	return c
}

// now is the time on the cache's clock.
func (c *Cache) now() time.Duration { return time.Since(c.start) }

// Lookup returns the cached region that holds key, or nil.
func (c *Cache) Lookup(key []byte) *Region { return c.index.Load().find(key).use() }

// LookupEnd returns the cached region that holds the keys just before key, or nil. The
// empty key is the end of all keys.
func (c *Cache) LookupEnd(key []byte) *Region { return c.index.Load().findEnd(key).use() }

// Locate returns the region that holds key, from PD if it is not cached. With ErrStale
// it returns what PD says although the cache knows better, and has no answer: a store
// can tell.
func (c *Cache) Locate(ctx context.Context, key []byte) (*Region, error) {
	if r := c.Lookup(key); r != nil {
		return r, nil
	}
	return c.loads.get(ctx, c, key)
}

// LocateEnd is Locate for the region that holds the keys just before key; the empty
// key is the end of all keys.
func (c *Cache) LocateEnd(ctx context.Context, key []byte) (*Region, error) {
	if r := c.LookupEnd(key); r != nil {
		return r, nil
	}
	return c.endLoads.do(ctx, c.tasks, "region load", string(key), c.loadEnd)
}

// LocateID returns the region with the id, as PD has it now.
func (c *Cache) LocateID(ctx context.Context, id uint64) (*Region, error) {
	found, err := c.pd.RegionByID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := c.admit(found)
	if err == ErrStale {
		if newer := c.Lookup(r.Range.Start); newer != nil && newer.ID == id {
			return newer, nil
		}
	}
	return r, err
}

// load asks PD for the region that holds key: who knows best, if what was known has turned
// out to be wrong, or PD seems to be behind.
func (c *Cache) load(ctx context.Context, key []byte) (*Region, error) {
	old := c.index.Load().find(key)
	wrong := old != nil && old.marks.Load()&invalid != 0
	for fresh := wrong; ; fresh = true {
		found, failed := c.pd.Region(ctx, key, fresh)
		if failed != nil {
			if old := c.index.Load().find(key); old != nil && old.marks.Load()&invalid == 0 && ctx.Err() == nil {
				return old, nil // to be loaded again if possible: it is not
			}
			return nil, failed
		}
		if !found.holds(key) {
			return nil, ErrNoRegion
		}
		r, err := c.admit(found)
		if err != ErrStale {
			return r, err
		}
		if newer := c.Lookup(key); newer != nil {
			return newer, nil
		}
		if fresh {
			return r, err
		}
	}
}

func (c *Cache) loadEnd(ctx context.Context, at string) (*Region, error) {
	key := []byte(at)
	if r := c.LookupEnd(key); r != nil {
		return r, nil
	}
	found, err := c.pd.PrevRegion(ctx, key)
	if err != nil {
		return nil, err
	}
	r, err := c.admit(found)
	if err == ErrStale {
		if newer := c.LookupEnd(key); newer != nil {
			return newer, nil
		}
	}
	if r != nil && !r.ContainsEnd(key) { // PD changed between the two questions
		return nil, ErrNoRegion
	}
	return r, err
}

// Scan loads up to limit regions of r from PD in one round trip, in order. What the
// cache knows better stays as it is, and is not in the result.
func (c *Cache) Scan(ctx context.Context, r keys.Range, limit int) ([]*Region, error) {
	return c.scan(ctx, []keys.Range{r}, limit)
}

// preloadPage is how many regions are preloaded in a round trip.
const preloadPage = 1024

// Preload loads the regions of r and the stores of their leaders, and has those connected
// to; a store that cannot be is no error. It ends early where the budget does not allow
// for more.
func (c *Cache) Preload(ctx context.Context, r keys.Range) error {
	var ids []uint64
	for !r.Empty() {
		found, err := c.pd.ScanRegions(ctx, []keys.Range{r}, preloadPage)
		if err != nil {
			return err
		}
		for _, n := range c.insert(entries(found)...) {
			if id := n.Leader().StoreId; !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		if len(found) == 0 || c.Stats().Bytes > c.cfg.Bytes*9/10 {
			break
		}
		end := found[len(found)-1].Meta.GetEndKey()
		if len(end) == 0 || bytes.Compare(end, r.Start) <= 0 { // which is none of r
			break
		}
		r.Start = end
	}
	return task.Each(ctx, preloadStores, len(ids), func(ctx context.Context, i int) error {
		s, err := c.Store(ctx, ids[i])
		if errors.Is(err, ErrNoStore) {
			return nil
		}
		if err == nil && !s.Away() {
			_ = c.probe(ctx, s)
			err = context.Cause(ctx)
		}
		return err
	})
}

// preloadStores is how many stores are connected to at once.
const preloadStores = 8

func entries(found []Found) (all []*Region) {
	for _, f := range found {
		if r := f.Region(); r != nil {
			all = append(all, r)
		}
	}
	return all
}

func (c *Cache) scan(ctx context.Context, ranges []keys.Range, limit int) ([]*Region, error) {
	found, err := c.pd.ScanRegions(ctx, ranges, limit)
	if err != nil {
		return nil, err
	}
	return c.insert(entries(found)...), nil
}

// admit makes an entry of what PD said and puts it into the index. With ErrStale the
// entry is not in it.
func (c *Cache) admit(f Found) (*Region, error) {
	if f.Meta == nil {
		return nil, ErrNoRegion
	}
	r := f.Region()
	if r == nil {
		return nil, ErrNoPeer
	}
	if len(c.insert(r)) == 0 {
		return r, ErrStale
	}
	return r, nil
}

// insert puts each of the regions in the place of all it overlaps, unless one of those is
// newer and valid: another region of a higher version (splits and merges raise it above all that took
// part), or the same one of a higher epoch (PD pkg/core/region.go has the same rule). It
// returns those that are in.
func (c *Cache) insert(all ...*Region) (in []*Region) {
	if len(all) == 0 {
		return nil
	}
	var changes []Change
	c.mu.Lock()
	e := c.index.Load().edit()
	for _, r := range all {
		out := e.overlapping(r.Range)
		if slices.ContainsFunc(out, func(o *Region) bool { return o.newerThan(r) }) {
			continue
		}
		for _, o := range out {
			r.inherit(o)
			c.take(e, o)
		}
		if c.cfg.Changed != nil {
			changes = append(changes, r.news(out)...)
		}
		e.add(r)
		r.bytes = 0
		c.resize(r)
		for _, old := range c.evict(e, r) {
			if c.evicted.Add(1); !old.told() {
				changes = append(changes, Change{Kind: RegionEvicted, Region: old.ID})
			}
		}
		in = append(in, r)
	}
	c.loaded.Add(uint64(len(in)))
	c.index.Store(e.done())
	c.keep()
	c.mu.Unlock()
	for _, change := range changes {
		c.tell(change)
	}
	return in
}

// news is what there is to tell of r, which comes in the place of out.
func (r *Region) news(out []*Region) (all []Change) {
	now, same := Change{Kind: RegionLoaded, Region: r.ID, Store: r.Leader().StoreId}, false
	for _, o := range out {
		switch {
		case o.told():
		case o.ID != r.ID:
			all = append(all, Change{Kind: RegionEvicted, Region: o.ID})
		case o.Epoch != r.Epoch:
			now.Kind = EpochChanged
		case o.Leader().StoreId != now.Store:
			now.Kind = LeaderMoved
		default:
			same = true
		}
	}
	if !same {
		all = append(all, now)
	}
	return all
}

func (r *Region) newerThan(o *Region) bool {
	if r.marks.Load()&invalid != 0 {
		return false
	}
	if r.Epoch.Version != o.Epoch.Version {
		return r.Epoch.Version > o.Epoch.Version
	}
	return r.ID == o.ID && r.Epoch.ConfVer > o.Epoch.ConfVer
}

// inherit takes over what is better known of an older entry of the same region. One that
// had no leader, and is said to be led by the same peer still, is taken to be led by the
// next: PD hears last of an election.
func (r *Region) inherit(o *Region) {
	if r.ID != o.ID {
		return
	}
	if b := o.buckets.Load(); b != nil && (r.buckets.Load() == nil || r.BucketVersion() < b.version) {
		r.buckets.Store(b)
	}
	if o.why() == NoLeader && r.Epoch == o.Epoch && r.LeaderIndex() == o.LeaderIndex() {
		for i := range r.peers {
			if next := (r.LeaderIndex() + 1 + i) % len(r.peers); r.Able(next) {
				r.leader.Store(int32(next))
				return
			}
		}
	}
}

// Why is why an entry is not to be used any more.
type Why uint8

// The reasons.
const (
	Other     Why = iota
	NoLeader      // its peers have none
	NotFound      // its leader's store does not know it
	WrongKeys     // it does not hold the keys it was asked for
	WrongEpoch
	NoSuchStore // PD does not know a store of it
	Unreachable // none of its stores answers
	lastWhy
)

var whyNames = [lastWhy]string{"other", "no leader", "not found", "wrong keys", "wrong epoch", "no such store", "unreachable"}

// String is the reason in words.
func (w Why) String() string { return whyNames[min(w, lastWhy-1)] }

// Invalidate makes r be loaded again before its keys are used.
func (c *Cache) Invalidate(r *Region, why Why) {
	for {
		m := r.marks.Load()
		if m&invalid != 0 {
			return
		}
		if r.marks.CompareAndSwap(m, m|invalid|uint32(why)<<whyShift) {
			break
		}
	}
	c.invalidated[why].Add(1)
	if r.told() {
		c.tell(Change{Kind: RegionEvicted, Region: r.ID})
	}
}

// told reports whether r is known to have gone. One of a wrong epoch is going to change,
// which is told then.
func (r *Region) told() bool { return r.marks.Load()&invalid != 0 && r.why() != WrongEpoch }

// why is the reason for which r is invalid; Other also if it is not.
func (r *Region) why() Why { return Why(r.marks.Load() >> whyShift) }

// Reload makes r be loaded again before its next use, if PD answers; else it is used.
func (c *Cache) Reload(r *Region) { r.marks.Or(reload) }

// Doubt makes r be loaded again in the background within a minute, if it is used.
func (c *Cache) Doubt(r *Region) { r.marks.Or(doubted) }

// UpdateLeader notes that the peer leads r, and returns the entry that says so; nil if
// r has no such peer: it is not valid any more then.
func (c *Cache) UpdateLeader(r *Region, peer uint64) *Region {
	if cur := c.index.Load().find(r.Range.Start); cur != nil && cur.ID == r.ID && cur.Epoch.Version == r.Epoch.Version {
		r = cur
	}
	i := r.PeerIndex(peer)
	if i < 0 {
		c.Invalidate(r, Other)
		return nil
	}
	if r.leader.Swap(int32(i)) != int32(i) {
		c.tell(Change{Kind: LeaderMoved, Region: r.ID, Store: r.peers[i].StoreId})
	}
	return r
}

// ReplaceEpoch takes over the regions that a store told in an EpochNotMatch about r. It
// reports true, and changes nothing, if the store itself is behind: it has yet to
// apply what the cache has seen. The store is taken for the leader of those regions
// that have a peer on it.
func (c *Cache) ReplaceEpoch(r *Region, current []*metapb.Region, store uint64) (behind bool) {
	same := false
	for _, m := range current {
		e := m.GetRegionEpoch()
		if m.GetId() != r.ID {
			continue
		}
		if e.GetVersion() < r.Epoch.Version || e.GetConfVer() < r.Epoch.ConfVer {
			return true
		}
		same = same || (e.GetVersion() == r.Epoch.Version && e.GetConfVer() == r.Epoch.ConfVer)
	}
	if !same {
		c.Invalidate(r, WrongEpoch)
	}
	for _, m := range current {
		f := Found{Meta: m}
		if i := slices.IndexFunc(m.GetPeers(), func(p *metapb.Peer) bool { return p.GetStoreId() == store }); i >= 0 {
			f.Leader = m.GetPeers()[i]
		}
		_, _ = c.admit(f) // stale ones and those without a leader are of no use
	}
	return false
}

// Stats is a count of what a cache holds and has done.
type Stats struct {
	Regions, Stores int
	Bytes           int64 // of the regions
	Loaded, Evicted uint64
	Invalidated     map[Why]uint64
}

// Stats counts.
func (c *Cache) Stats() Stats {
	s := Stats{Regions: c.Len(), Stores: len(c.Stores()), Loaded: c.loaded.Load(), Evicted: c.evicted.Load(), Invalidated: make(map[Why]uint64)}
	for why := range c.invalidated {
		if n := c.invalidated[why].Load(); n > 0 {
			s.Invalidated[Why(why)] = n
		}
	}
	c.mu.Lock()
	s.Bytes = c.bytes
	c.mu.Unlock()
	return s
}

// Len counts the cached regions.
func (c *Cache) Len() int { return c.index.Load().n }
