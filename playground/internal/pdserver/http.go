package pdserver

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// The part of PD's HTTP interface that clients of transactions use: up to which timestamp
// stores can answer stale reads (PD: server/api/min_resolved_ts.go). Any member passes a
// request on to the leader (PD: pkg/utils/apiutil/serverapi/middleware.go), and so needs
// one.

// minResolved is the answer; the interval is PD's default, in the form in which PD has it.
type minResolved struct {
	RealTime bool   `json:"is_real_time,omitempty"`
	TS       uint64 `json:"min_resolved_ts"`
	Interval struct {
		Duration int64
	} `json:"persist_interval"`
	Stores map[uint64]uint64 `json:"stores_min_resolved_ts"`
}

func (m *Member) http() http.Handler {
	mux := http.NewServeMux()
	const path = "/pd/api/v1/min-resolved-ts"
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		m.answer(w, r, m.minResolved)
	})
	mux.HandleFunc("GET "+path+"/{store}", func(w http.ResponseWriter, r *http.Request) {
		m.answer(w, r, func(r *http.Request) (*minResolved, error) {
			id, err := strconv.ParseUint(r.PathValue("store"), 10, 64)
			return realTime(m.pd.storeResolved(id), nil), err
		})
	})
	return mux
}

// answer answers a request under the faults, whose method is MinResolvedTS.
func (m *Member) answer(w http.ResponseWriter, r *http.Request, look func(*http.Request) (*minResolved, error)) {
	if m.leader() == nil {
		http.Error(w, "[PD:apiutil:ErrRedirectNoLeader]redirect finds no leader", http.StatusServiceUnavailable)
		return
	}
	found, err := m.through(r.Context(), "MinResolvedTS", r, func() (any, error) { return look(r) })
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(err.Error()) // into memory
		return
	}
	switch a := found.(type) {
	case *minResolved:
		_ = json.NewEncoder(w).Encode(a)
	case *serve.Raw:
		_, _ = w.Write(*a)
	}
}

// Marshal returns the answer's encoding, for faults that change it.
func (a *minResolved) Marshal() ([]byte, error) { return json.Marshal(a) }

func realTime(ts uint64, stores map[uint64]uint64) *minResolved {
	a := &minResolved{RealTime: true, TS: ts, Stores: stores}
	a.Interval.Duration = int64(time.Second)
	return a
}

// minResolved answers for the cluster, and for stores if the request names some, or all.
func (m *Member) minResolved(r *http.Request) (*minResolved, error) {
	var ids []uint64
	switch scope := r.URL.Query().Get("scope"); scope {
	case "":
		ts, _ := m.pd.clusterResolved()
		return realTime(ts, nil), nil
	case "cluster":
		return realTime(m.pd.clusterResolved()), nil
	default:
		for id := range strings.SplitSeq(scope, ",") {
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil {
				return nil, err
			}
			ids = append(ids, n)
		}
	}
	least, stores := m.pd.resolved(ids)
	return realTime(least, stores), nil
}

// storeResolved is a store's, and the largest timestamp for one that has no say (PD:
// server/cluster/cluster.go, GetStoreMinResolvedTS; pkg/core/store.go,
// IsAvailableForMinResolvedTS: removed ones, TiFlash's, and those that lead no region).
func (pd *PD) storeResolved(id uint64) uint64 {
	if pd.Topology.Removed(id) || pd.Store(id) == nil || pd.special(id) || pd.Topology.Leaders()[id] == 0 {
		return math.MaxUint64
	}
	return pd.reportedTS(id)
}

func (pd *PD) resolved(ids []uint64) (least uint64, all map[uint64]uint64) {
	least, all = math.MaxUint64, make(map[uint64]uint64)
	for _, id := range ids {
		all[id] = pd.storeResolved(id)
		least = min(least, all[id])
	}
	return least, all
}

// clusterResolved is that of all stores, which never goes back, and stays where it is
// while no store has a say.
func (pd *PD) clusterResolved() (uint64, map[uint64]uint64) {
	least, stores := pd.resolved(pd.Topology.Stores())
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if least != math.MaxUint64 {
		pd.minResolved = max(pd.minResolved, least)
	}
	return pd.minResolved, stores
}
