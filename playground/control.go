package playground

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ControlHandler serves the cluster's controls over HTTP, for other processes. Answers
// are JSON objects; a refusal has a status of 400 or above and the field "error".
//
//	GET  /v1/cluster                 its id, api, PD's addresses, number of regions
//	GET  /v1/stores                  {"stores": [{"id", "address", "running", "paused", "leaders"}]}
//	GET  /v1/regions?mode=txn|raw    {"regions": [{"id", "leader", "start", "end", "stores", "version", "conf_version"}]}
//	GET  /v1/counts                  Counts
//	POST /v1/split                   {"mode": "txn"|"raw", "key": bytes} -> {"region": id}
//	POST /v1/transfer-leader         {"region": id, "store": id}
//	POST /v1/stop                    {"store": id} or {"member": index}
//	POST /v1/pause                   the same
//	POST /v1/start                   the same
//	POST /v1/wait                    {"timeout_ms": n}: answers when every region has a leader
//
// Bytes are in base64, as encoding/json has them.
func (c *Cluster) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { reply(w)(f(r)) })
	}
	get("/v1/cluster", func(*http.Request) (any, error) { return c.describe(), nil })
	get("/v1/stores", func(*http.Request) (any, error) { return map[string]any{"stores": c.storeViews()}, nil })
	get("/v1/counts", func(*http.Request) (any, error) { return c.countsView(), nil })
	get("/v1/regions", c.regionsView)
	handle(mux, "/v1/split", c.splitVerb)
	handle(mux, "/v1/transfer-leader", func(_ *http.Request, q struct{ Region, Store uint64 }) (any, error) {
		return done(c.TransferLeader(q.Region, q.Store))
	})
	for verb, f := range map[string]func(Node) error{"stop": c.Stop, "pause": c.Pause, "start": c.Start} {
		handle(mux, "/v1/"+verb, func(_ *http.Request, q nodeRequest) (any, error) {
			n, err := q.node()
			if err != nil {
				return nil, err
			}
			return done(f(n))
		})
	}
	handle(mux, "/v1/wait", c.waitVerb)
	return mux
}

// maxControl is how long a control request may be: a key of TiKV's largest size fits.
const maxControl = 1 << 20

// handle serves a verb that takes a JSON object.
func handle[Q any](mux *http.ServeMux, path string, f func(*http.Request, Q) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControl))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&q); err != nil && !errors.Is(err, io.EOF) {
			reply(w)(nil, fmt.Errorf("the request is no JSON object of this verb: %w", err))
			return
		}
		reply(w)(f(r, q))
	})
}

func done(err error) (any, error) { return struct{}{}, err }

// errTimeout is a wait that took too long: the one refusal that is not the caller's
// mistake.
var errTimeout = errors.New("playground: not every region has a leader yet")

func reply(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case errors.Is(err, errTimeout):
			w.WriteHeader(http.StatusGatewayTimeout)
		case err != nil:
			w.WriteHeader(http.StatusBadRequest)
		}
		if err != nil {
			v = map[string]string{"error": strings.TrimPrefix(err.Error(), "playground: ")}
		}
		_ = json.NewEncoder(w).Encode(v) // a caller that has left hears nothing
	}
}

type nodeRequest struct {
	Store  uint64
	Member *int
}

func (q nodeRequest) node() (Node, error) {
	switch {
	case q.Store != 0 && q.Member == nil:
		return Store(q.Store), nil
	case q.Store == 0 && q.Member != nil && *q.Member >= 0:
		return Member(*q.Member), nil
	}
	return Node{}, errors.New("playground: name a store or a member")
}

type clusterView struct {
	ID      string   `json:"id"` // in decimal: above what a JSON number is safe for
	API     string   `json:"api"`
	PD      []string `json:"pd"`
	Regions int      `json:"regions"`
}

func (c *Cluster) describe() clusterView {
	return clusterView{strconv.FormatUint(c.id, 10), c.api.String(), c.PD(), c.topo.Len()}
}

type storeView struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	Running bool   `json:"running"`
	Paused  bool   `json:"paused"`
	Leaders int    `json:"leaders"`
}

func (c *Cluster) storeViews() []storeView {
	leaders := c.topo.Leaders()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []storeView
	for _, s := range c.stores {
		all = append(all, storeView{s.ID, s.Server().Addr(), s.Server().Running(), c.paused[Store(s.ID)], leaders[s.ID]})
	}
	return all
}

type countsView struct {
	Commits     int            `json:"commits"`
	Rollbacks   int            `json:"rollbacks"`
	Conflicts   int            `json:"conflicts"`
	Splits      int            `json:"splits"`
	LeaderMoves int            `json:"leader_moves"`
	Starts      int            `json:"starts"`
	Dropped     int            `json:"dropped"`
	Calls       map[string]int `json:"calls"`
}

func (c *Cluster) countsView() countsView {
	return countsView(c.Counts())
}

type regionView struct {
	ID          uint64   `json:"id"`
	Leader      uint64   `json:"leader"`
	Start       []byte   `json:"start"`
	End         []byte   `json:"end"`
	Stores      []uint64 `json:"stores"`
	Version     uint64   `json:"version"`
	ConfVersion uint64   `json:"conf_version"`
}

func modeOf(name string) (KeyMode, error) {
	switch name {
	case "txn":
		return KeyTxn, nil
	case "raw":
		return KeyRaw, nil
	}
	return 0, fmt.Errorf("playground: mode is txn or raw, not %q", name)
}

func (c *Cluster) regionsView(r *http.Request) (any, error) {
	mode, err := modeOf(r.URL.Query().Get("mode"))
	if err == nil {
		err = c.checkMode(mode)
	}
	if err != nil {
		return nil, err
	}
	all := []regionView{}
	for _, r := range c.Regions(mode) {
		all = append(all, regionView(r))
	}
	return map[string]any{"regions": all}, nil
}

func (c *Cluster) splitVerb(_ *http.Request, q struct {
	Mode string
	Key  []byte
}) (any, error) {
	mode, err := modeOf(q.Mode)
	if err != nil {
		return nil, err
	}
	id, err := c.Split(mode, q.Key)
	return map[string]uint64{"region": id}, err
}

// waitVerb waits, looking again after each change of a leader.
func (c *Cluster) waitVerb(r *http.Request, q struct {
	Timeout int64 `json:"timeout_ms"`
}) (any, error) {
	limit := 30 * time.Second
	if q.Timeout > 0 {
		limit = time.Duration(min(q.Timeout, 3_600_000)) * time.Millisecond
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		changed := c.topo.Changed()
		if c.topo.Led() {
			return struct{}{}, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, errTimeout
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}
