package playground

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// The requests of the verbs, which are also lines of the journal.
type (
	splitArgs struct {
		Mode string `json:"mode"`
		Key  []byte `json:"key"`
	}
	regionArgs struct {
		Region uint64 `json:"region"`
	}
	peerArgs struct {
		Region uint64 `json:"region"`
		Store  uint64 `json:"store"`
	}
	roleArgs struct {
		Region uint64 `json:"region"`
		Store  uint64 `json:"store"`
		Role   string `json:"role"`
	}
	mergeArgs struct {
		Region uint64 `json:"region"`
		Into   uint64 `json:"into"`
	}
	hideArgs struct {
		Region uint64 `json:"region"`
		Hidden bool   `json:"hidden"`
	}
	labelArgs struct {
		Labels map[string]string `json:"labels,omitempty"`
	}
	storeArgs struct {
		Store uint64 `json:"store"`
	}
	nodeArgs struct {
		Store  uint64 `json:"store,omitempty"`
		Member *int   `json:"member,omitempty"`
		Client bool   `json:"client,omitempty"`
	}
	cutArgs struct {
		From nodeArgs `json:"from"`
		To   nodeArgs `json:"to"`
	}
	stateArgs struct {
		Store       uint64   `json:"store"`
		Disk        string   `json:"disk,omitempty"`
		DiskDelay   duration `json:"disk_delay,omitempty"`
		ApplyLag    duration `json:"apply_lag,omitempty"`
		ResolvedLag duration `json:"resolved_lag,omitempty"`
		ReadWait    duration `json:"read_wait,omitempty"`
		SlowScore   float64  `json:"slow_score,omitempty"`
		Advertise   string   `json:"advertise,omitempty"`
	}
	byArgs struct {
		By duration `json:"by"`
	}
	stallArgs struct {
		Stalled bool `json:"stalled"`
	}
	injectionArgs struct {
		Injection uint64 `json:"injection"`
	}
)

func argsOf(n Node) nodeArgs {
	switch n.node.Kind {
	case fault.Store:
		return nodeArgs{Store: n.node.ID}
	case fault.Member:
		i := int(n.node.ID)
		return nodeArgs{Member: &i}
	case fault.Client:
		return nodeArgs{Client: true}
	}
	return nodeArgs{}
}

func (q nodeArgs) node() (Node, error) {
	switch {
	case q.Store != 0 && q.Member == nil && !q.Client:
		return Store(q.Store), nil
	case q.Store == 0 && q.Member != nil && *q.Member >= 0 && !q.Client:
		return Member(*q.Member), nil
	case q.Store == 0 && q.Member == nil && q.Client:
		return Client(), nil
	}
	return Node{}, errors.New("playground: name a store or a member, or for a cut the client")
}

func (q nodeArgs) check() error {
	_, err := q.node()
	return err
}

func (q cutArgs) check() error { return errors.Join(q.From.check(), q.To.check()) }

// verb takes a request, and returns what does it.
type verb func(request []byte) (func() (any, error), error)

// verbOf makes a verb of a function of its request.
func verbOf[Q any](f func(Q) (any, error)) verb {
	return func(request []byte) (func() (any, error), error) {
		var q Q
		if err := decode(request, &q); err != nil {
			return nil, err
		}
		if c, ok := any(q).(interface{ check() error }); ok {
			if err := c.check(); err != nil {
				return nil, err
			}
		}
		return func() (any, error) { return f(q) }, nil
	}
}

// verbs are the changes that may be asked for over HTTP and by a journal. renumbered has
// the numbers of faults that were injected under others before; nil if there are none.
func (c *Cluster) verbs(renumbered map[uint64]uint64) map[string]verb {
	all := map[string]verb{
		"split": verbOf(func(q splitArgs) (any, error) {
			mode, err := modeOf(q.Mode)
			if err != nil {
				return nil, err
			}
			id, err := c.Split(mode, q.Key)
			return map[string]uint64{"region": id}, err
		}),
		"transfer-leader": verbOf(func(q peerArgs) (any, error) { return done(c.TransferLeader(q.Region, q.Store)) }),
		"merge":           verbOf(func(q mergeArgs) (any, error) { return done(c.Merge(q.Region, q.Into)) }),
		"prepare-merge":   verbOf(func(q mergeArgs) (any, error) { return done(c.PrepareMerge(q.Region, q.Into)) }),
		"rollback-merge":  verbOf(func(q regionArgs) (any, error) { return done(c.RollbackMerge(q.Region)) }),
		"add-peer": verbOf(func(q roleArgs) (any, error) {
			role := slices.Index([]string{"voter", "learner", "witness"}, q.Role)
			if role < 0 {
				return nil, fmt.Errorf("playground: there is no role %q", q.Role)
			}
			return done(c.AddPeer(q.Region, q.Store, PeerRole(role)))
		}),
		"remove-peer": verbOf(func(q peerArgs) (any, error) { return done(c.RemovePeer(q.Region, q.Store)) }),
		"hide-region": verbOf(func(q hideArgs) (any, error) { return done(c.HideRegion(q.Region, q.Hidden)) }),
		"set-buckets": verbOf(func(q bucketArgs) (any, error) {
			mode, err := modeOf(q.Mode)
			if err != nil {
				return nil, err
			}
			return done(c.SetBuckets(q.Region, mode, q.Keys...))
		}),
		"set-leaving":       verbOf(func(q leavingArgs) (any, error) { return done(c.SetLeaving(q.Store, q.Leaving)) }),
		"set-operator-time": verbOf(func(q takesArgs) (any, error) { return done(c.SetOperatorTime(time.Duration(q.Takes))) }),
		"add-store": verbOf(func(q labelArgs) (any, error) {
			id, err := c.AddStore(q.Labels)
			return map[string]uint64{"store": id}, err
		}),
		"remove-store": verbOf(func(q storeArgs) (any, error) { return done(c.RemoveStore(q.Store)) }),
		"set-store":    verbOf(c.setStoreVerb),
		"transfer-pd": verbOf(func(q nodeArgs) (any, error) {
			n, err := q.node()
			if err != nil || n.node.Kind != fault.Member {
				return nil, errors.New("playground: name a member")
			}
			return done(c.TransferPD(int(n.node.ID)))
		}),
		"cut":        verbOf(c.cutVerb),
		"heal":       verbOf(func(struct{}) (any, error) { c.Heal(); return done(nil) }),
		"rotate-tls": verbOf(func(struct{}) (any, error) { return done(c.RotateTLS()) }),
		"renew-tls":  verbOf(func(struct{}) (any, error) { return done(c.RenewTLS()) }),
		"advance":    verbOf(func(q byArgs) (any, error) { return done(c.advance(time.Duration(q.By))) }),
		"jump-tso":   verbOf(func(q byArgs) (any, error) { return done(c.jumpTSO(time.Duration(q.By))) }),
		"stall-tso": verbOf(func(q stallArgs) (any, error) {
			c.StallTSO(q.Stalled)
			return done(nil)
		}),
	}
	for name, f := range map[string]func(Node) error{"stop": c.Stop, "pause": c.Pause, "start": c.Start, "move": c.Move} {
		all[name] = verbOf(func(q nodeArgs) (any, error) {
			n, err := q.node()
			if err != nil {
				return nil, err
			}
			return done(f(n))
		})
	}
	c.faultVerbs(all, renumbered)
	c.keyspaceVerbs(all)
	return all
}

func (c *Cluster) setStoreVerb(q stateArgs) (any, error) {
	disk := max(0, slices.Index([]string{"ok", "almost full", "already full"}, q.Disk))
	if disk == 0 && q.Disk != "" && q.Disk != "ok" {
		return nil, fmt.Errorf("playground: there is no state %q of a disk", q.Disk)
	}
	return done(c.SetStore(q.Store, StoreState{
		Disk: Disk(disk), DiskDelay: time.Duration(q.DiskDelay), SlowScore: q.SlowScore, Advertise: q.Advertise,
		ApplyLag: time.Duration(q.ApplyLag), ResolvedLag: time.Duration(q.ResolvedLag), ReadWait: time.Duration(q.ReadWait),
	}))
}

func (c *Cluster) cutVerb(q cutArgs) (any, error) {
	from, err := q.From.node()
	if err != nil {
		return nil, err
	}
	to, err := q.To.node()
	if err != nil {
		return nil, err
	}
	return done(c.Cut(from, to))
}
