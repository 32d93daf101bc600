package playground

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// What the control address shows of locks, versions and requests.

type lockView struct {
	Key         []byte   `json:"key"`
	Primary     []byte   `json:"primary"`
	StartTS     uint64   `json:"start_ts,string"`
	ForUpdateTS uint64   `json:"for_update_ts,string"`
	MinCommitTS uint64   `json:"min_commit_ts,string"`
	TTL         string   `json:"ttl"`
	Pessimistic bool     `json:"pessimistic"`
	Shared      bool     `json:"shared"`
	AsyncCommit bool     `json:"async_commit"`
	Secondaries [][]byte `json:"secondaries,omitempty"`
}

type versionView struct {
	Kind     string `json:"kind"`
	StartTS  uint64 `json:"start_ts,string"`
	CommitTS uint64 `json:"commit_ts,string"`
	Value    []byte `json:"value,omitempty"`
}

type callView struct {
	Method      string    `json:"method"`
	Node        string    `json:"node"`
	Region      uint64    `json:"region,omitempty"`
	StartTS     uint64    `json:"start_ts,string"`
	Keys        int       `json:"keys"`
	At          time.Time `json:"at"`
	Took        string    `json:"took"`
	RegionError string    `json:"region_error,omitempty"`
	Dropped     bool      `json:"dropped"`
}

func (c *Cluster) inspectionViews(get func(path string, f func(*http.Request) (any, error))) {
	get("/v1/locks", c.locksView)
	get("/v1/versions", c.versionsView)
	get("/v1/waiting", func(*http.Request) (any, error) { return callViews(c.Waiting()), nil })
	get("/v1/txns", func(*http.Request) (any, error) {
		all := []string{}
		for _, ts := range c.Txns() {
			all = append(all, fmt.Sprint(ts))
		}
		return map[string]any{"txns": all}, nil
	})
}

func (c *Cluster) locksView(r *http.Request) (any, error) {
	start, err := bytesOf(r, "start")
	if err != nil {
		return nil, err
	}
	end, err := bytesOf(r, "end")
	if err != nil {
		return nil, err
	}
	all := []lockView{}
	for _, l := range c.Locks(start, end) {
		all = append(all, lockView{l.Key, l.Primary, l.StartTS, l.ForUpdateTS, l.MinCommitTS, l.TTL.String(),
			l.Pessimistic, l.Shared, l.AsyncCommit, l.Secondaries})
	}
	return map[string]any{"locks": all}, nil
}

func (c *Cluster) versionsView(r *http.Request) (any, error) {
	if !r.URL.Query().Has("key") {
		return nil, errors.New("playground: key is missing")
	}
	key, err := bytesOf(r, "key")
	if err != nil {
		return nil, err
	}
	versions, err := c.Versions(key)
	if err != nil {
		return nil, err
	}
	kinds := [...]string{WritePut: "put", WriteDelete: "delete", WriteLock: "lock", WriteRollback: "rollback"}
	all := []versionView{}
	for _, v := range versions {
		all = append(all, versionView{kinds[v.Kind], v.StartTS, v.CommitTS, v.Value})
	}
	return map[string]any{"versions": all}, nil
}

// bytesOf is a parameter in base64.
func bytesOf(r *http.Request, name string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(r.FormValue(name))
	if err != nil {
		return nil, fmt.Errorf("playground: %s is not in base64: %w", name, err)
	}
	return b, nil
}

func callViews(calls []Call) any {
	all := []callView{}
	for _, k := range calls {
		v := callView{Method: k.Method, Node: k.Node.String(), Region: k.Region, StartTS: k.StartTS, Keys: k.Keys,
			At: k.At, Took: k.Took.String(), Dropped: k.Dropped}
		if k.RegionError != 0 {
			v.RegionError = k.RegionError.String()
		}
		all = append(all, v)
	}
	return map[string]any{"calls": all}
}

// traces are those that were begun over the control address and not ended.
type traces struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*Trace
}

type traceArgs struct {
	Trace uint64 `json:"trace"`
}

func (c *Cluster) traceVerbs(mux *http.ServeMux) {
	all := traces{open: make(map[uint64]*Trace)}
	handle(mux, "/v1/trace", maxControl, func(*http.Request, struct{}) (any, error) {
		all.mu.Lock()
		defer all.mu.Unlock()
		all.last++
		all.open[all.last] = c.Trace()
		return traceArgs{all.last}, nil
	})
	handle(mux, "/v1/trace-end", maxControl, func(_ *http.Request, q traceArgs) (any, error) {
		all.mu.Lock()
		defer all.mu.Unlock()
		t := all.open[q.Trace]
		if t == nil {
			return nil, fmt.Errorf("playground: there is no trace %d", q.Trace)
		}
		delete(all.open, q.Trace)
		t.Stop()
		return callViews(t.Calls()), nil
	})
}
