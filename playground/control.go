package playground

import (
	"encoding/json"
	"errors"
	"fmt"
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
//	GET  /v1/members                 {"members": [{"index", "address", "running", "paused", "leader"}]}, of PD
//	GET  /v1/regions?mode=txn|raw    {"regions": [{"id", "leader", "start", "end", "stores", "version", "conf_version"}]}
//	GET  /v1/counts                  Counts
//	GET  /v1/keyspaces               {"keyspaces": [{"id", "name", "state", "config"}]}
//	GET  /v1/injections              {"injections": [{"injection", "hits", "waiting"}]}, those at work
//	GET  /v1/journal                 Journal, as text
//	GET  /v1/locks?start=bytes&end=bytes   {"locks": [Lock]}, both optional
//	GET  /v1/versions?key=bytes      {"versions": [Version]}
//	GET  /v1/txns                    {"txns": [start_ts]}
//	GET  /v1/waiting                 {"calls": [Call]}
//	POST /v1/trace                   {} -> {"trace": n}, which records from then on
//	POST /v1/trace-end               {"trace": n} -> {"calls": [Call]}
//	POST /v1/wait                    {"timeout_ms": n}: answers when every region has a leader
//
// Regions and stores:
//
//	POST /v1/split                   {"mode": "txn"|"raw", "key": bytes} -> {"region": id}
//	POST /v1/merge                   {"region": id, "into": id}
//	POST /v1/prepare-merge           {"region": id, "into": id}
//	POST /v1/rollback-merge          {"region": id}
//	POST /v1/transfer-leader         {"region": id, "store": id}
//	POST /v1/add-peer                {"region": id, "store": id, "role": "voter"|"learner"|"witness"}
//	POST /v1/remove-peer             {"region": id, "store": id}
//	POST /v1/hide-region             {"region": id, "hidden": bool}
//	POST /v1/set-leaving             {"store": id, "leaving": bool}
//	POST /v1/set-buckets             {"region": id, "mode": "txn"|"raw", "keys": [bytes]}
//	POST /v1/set-operator-time       {"takes": duration}
//	POST /v1/add-store               {"labels": {key: value}} -> {"store": id}
//	POST /v1/remove-store            {"store": id}
//	POST /v1/set-store               {"store": id, "disk": "ok"|"almost full"|"already full",
//	                                  "disk_delay": duration, "apply_lag": duration, "resolved_lag": duration,
//	                                  "read_wait": duration, "slow_score": n, "advertise": address}
//
// Keyspaces:
//
//	POST /v1/set-keyspace-state      {"keyspace": name, "state": "enabled"|"disabled"|"archived"|"tombstone"}
//	POST /v1/set-keyspace-config     {"keyspace": name, "key": text, "value": text}
//
// Nodes; a node is {"store": id} or {"member": index}, for a cut also {"client": true}:
//
//	POST /v1/stop, /v1/pause, /v1/start    a node
//	POST /v1/move                    a node, which restarts at another port
//	POST /v1/cut                     {"from": node, "to": node}
//	POST /v1/heal
//	POST /v1/transfer-pd             {"member": index}
//	POST /v1/rotate-tls, /v1/renew-tls
//	POST /v1/advance, /v1/jump-tso   {"by": duration}
//	POST /v1/stall-tso               {"stalled": bool}
//
// Faults, as Fault has them; of "truncate" bytes the answer is cut, "append" is put at its
// end:
//
//	POST /v1/inject                  {"method", "node", "region", "mode", "key", "start_ts", "skip", "times", "chance",
//	                                  "delay", "hold", "drop_request", "duplicate", "region_error", "key_error",
//	                                  "drop_answer", "disconnect", "truncate", "append"} -> {"injection": n}
//	POST /v1/release, /v1/remove     {"injection": n}
//	POST /v1/replay                  {"journal": text}
//
// Bytes are in base64, as encoding/json has them (in an address "+" is "%2B"), timestamps in
// answers in decimal as text, since they are above what is safe for a JSON number, and in
// requests as either; durations as in "1m30s", errors by their names in this package. The
// fields of a verb are all needed, but those of inject, of set-store all except "store",
// "keys", "labels" and "timeout_ms". set-store sets the whole state: what is not named is well.
func (c *Cluster) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { reply(w)(f(r)) })
	}
	get("/v1/cluster", func(*http.Request) (any, error) { return c.describe(), nil })
	get("/v1/stores", func(*http.Request) (any, error) { return map[string]any{"stores": c.storeViews()}, nil })
	get("/v1/keyspaces", func(*http.Request) (any, error) { return map[string]any{"keyspaces": c.keyspaceViews()}, nil })
	get("/v1/members", func(*http.Request) (any, error) { return map[string]any{"members": c.memberViews()}, nil })
	get("/v1/counts", func(*http.Request) (any, error) { return c.countsView(), nil })
	get("/v1/regions", c.regionsView)
	get("/v1/injections", func(*http.Request) (any, error) { return map[string]any{"injections": c.injectionViews()}, nil })
	c.inspectionViews(get)
	mux.HandleFunc("GET /v1/journal", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(c.Journal()) // a caller that has left hears nothing
	})
	for name, v := range c.verbs(nil) {
		mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
			request, err := read(w, r, maxControl)
			if err != nil {
				reply(w)(nil, err)
				return
			}
			do, err := v(request)
			if err != nil {
				reply(w)(nil, err)
				return
			}
			reply(w)(do())
		})
	}
	handle(mux, "/v1/wait", maxControl, c.waitVerb)
	c.traceVerbs(mux)
	handle(mux, "/v1/replay", maxJournal, func(_ *http.Request, q journalArgs) (any, error) {
		return done(c.Replay([]byte(q.Journal)))
	})
	return known(mux)
}

// known is mux, with refusals in JSON of what it does not have.
func known(mux *http.ServeMux) http.Handler {
	has := func(method string, r *http.Request) bool {
		r = r.Clone(r.Context())
		r.Method = method
		_, pattern := mux.Handler(r)
		return pattern != ""
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if has(r.Method, r) {
			mux.ServeHTTP(w, r)
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if has(method, r) {
				w.Header().Set("Allow", method)
				refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s", r.URL.Path, method))
				return
			}
		}
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no %s", r.URL.Path))
	})
}

type journalArgs struct {
	Journal string `json:"journal"`
}

type injectionView struct {
	Injection uint64 `json:"injection"`
	Hits      int    `json:"hits"`
	Waiting   int    `json:"waiting"`
}

func (c *Cluster) injectionViews() []injectionView {
	all := []injectionView{}
	for _, id := range c.journal.all() {
		if i := c.journal.injection(id); i != nil {
			all = append(all, injectionView{id, i.Hits(), i.Waiting()})
		}
	}
	return all
}

// How long a control request may be: a key of TiKV's largest size fits, and in a replay
// the journal of a long day.
const (
	maxControl = 1 << 20
	maxJournal = 1 << 28
)

// handle serves a verb that is no change, whose requests are that long at most.
func handle[Q any](mux *http.ServeMux, path string, limit int64, f func(*http.Request, Q) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		request, err := read(w, r, limit)
		if err == nil {
			err = decode(request, &q)
		}
		if err != nil {
			reply(w)(nil, err)
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
		switch {
		case errors.Is(err, errTimeout):
			refuse(w, http.StatusGatewayTimeout, err.Error())
		case err != nil:
			refuse(w, http.StatusBadRequest, err.Error())
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // a caller that has left hears nothing
		}
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": strings.TrimPrefix(why, "playground: ")})
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

type memberView struct {
	Index   int    `json:"index"`
	Address string `json:"address"`
	Running bool   `json:"running"`
	Paused  bool   `json:"paused"`
	Leader  bool   `json:"leader"`
}

func (c *Cluster) memberViews() []memberView {
	leader := c.pd.Leader()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []memberView
	for i, m := range c.pd.Members() {
		all = append(all, memberView{i, m.Server().Addr(), m.Server().Running(), c.paused[Member(i)], i == leader})
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
	Merges      int            `json:"merges"`
	Calls       map[string]int `json:"calls"`
}

func (c *Cluster) countsView() countsView {
	v := countsView(c.Counts())
	if v.Calls == nil {
		v.Calls = map[string]int{}
	}
	return v
}

type regionView struct {
	ID          uint64   `json:"id"`
	Leader      uint64   `json:"leader"`
	Start       []byte   `json:"start"`
	End         []byte   `json:"end"`
	Stores      []uint64 `json:"stores"`
	Version     uint64   `json:"version"`
	ConfVersion uint64   `json:"conf_version"`
	Flashback   uint64   `json:"flashback,omitempty"`
	MergingInto uint64   `json:"merging_into,omitempty"`
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

// waitVerb waits, looking again after each change of a leader.
func (c *Cluster) waitVerb(r *http.Request, q struct {
	Timeout int64 `json:"timeout_ms,omitempty"`
}) (any, error) {
	if q.Timeout < 0 {
		return nil, fmt.Errorf("playground: a timeout of %d ms", q.Timeout)
	}
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
