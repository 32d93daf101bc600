package tikv

import (
	"bytes"
	"slices"
)

// RPCOption is an option of Client.RPC.
type RPCOption interface{ applyRPC(*rpcConfig) }

// rpcConfig is an any-request view's.
type rpcConfig struct {
	problems
	view   viewConfig
	route  routeConfig
	readAt *Snapshot
}

type rpcOption struct {
	name string
	set  func(*rpcConfig) string
}

func (o rpcOption) applyRPC(c *rpcConfig)     { c.add(o.name, o.set(c)) }
func (o viewOption) applyRPC(c *rpcConfig)    { c.add(o.name, o.set(&c.view)) }
func (o routeOption) applyRPC(c *rpcConfig)   { c.add(o.name, o.set(&c.route)) }
func (o replicaOption) applyRPC(c *rpcConfig) { c.add(o.name, o.set(&c.route.replica)) }

// WithReadAt makes requests that read at a timestamp, and leave it out, read at that of s,
// and as s reads: its options are the view's, where they are not followed by others. Locks
// that they meet are resolved, and what is behind the safe point is ErrSnapshotTooOld. A
// request that reads at no timestamp is ErrInvalid.
func WithReadAt(s *Snapshot) RPCOption {
	return rpcOption{"WithReadAt", func(c *rpcConfig) string {
		if s == nil {
			return "needs a snapshot"
		}
		c.readAt, c.view, c.route = s, s.cfg.view, s.cfg.route
		return ""
	}}
}

// WithResourceGroup makes calls use the share of the cluster that a resource group has.
// The default is the group of TiKV's.
func WithResourceGroup(name string) ViewOption {
	return viewOption{"WithResourceGroup", func(c *viewConfig) string {
		c.group = name
		if name == "" {
			return "needs a name"
		}
		return ""
	}}
}

// WithTag marks requests with a tag, by which TiKV breaks its statistics down (its
// resource_group_tag).
func WithTag(tag []byte) ViewOption {
	return viewOption{"WithTag", func(c *viewConfig) string {
		c.tag = bytes.Clone(tag)
		if len(tag) == 0 {
			return "needs a tag"
		}
		return ""
	}}
}

// WithTaskID says which requests belong together: TiKV's read pool shares its time out
// between tasks. The default lets TiKV judge by transaction.
func WithTaskID(id uint64) ViewOption {
	return viewOption{"WithTaskID", func(c *viewConfig) string {
		c.taskID = id
		if id == 0 {
			return "must not be 0"
		}
		return ""
	}}
}

// WithInterceptors adds interceptors to those of Open, and of the option before it. They
// run in order.
func WithInterceptors(is ...Interceptor) ViewOption {
	is = slices.Clone(is)
	return viewOption{"WithInterceptors", func(c *viewConfig) string {
		w := watchOf(c.watch)
		w.interceptors = slices.Concat(w.interceptors, is) // never in place: views share it
		c.watch = w
		for _, i := range is {
			if i == nil {
				return "has one that is nil"
			}
		}
		return ""
	}}
}

// WithHooks makes hooks see what the client does. Hooks of several options are called in
// order. A value that implements no interface of a hook is ErrInvalid.
func WithHooks(hooks ...Hook) Option {
	hooks = slices.Clone(hooks)
	return openOption{"WithHooks", func(c *config) string {
		w := watchOf(c.view.watch)
		c.view.watch = w
		for _, h := range hooks {
			if !w.add(h) {
				return "has a value that is no hook"
			}
		}
		return ""
	}}
}
