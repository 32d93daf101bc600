package pd

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The bounds of shared lookups.
const (
	queryLimit = 1024        // lookups in one request
	queryIdle  = time.Second // how long a stream without lookups is kept
)

// queries shares lookups of regions: one that is alone is a call of its own; those that
// come while another is under way go together, as many as there are, in one message of a
// QueryRegion stream, one message at a time. The stream is there while lookups are. A
// lookup that fails so is made alone, which tries again and follows the leader.
type queries struct {
	client *Client
	wake   chan struct{}

	mu      sync.Mutex
	alone   int // lookups under way by themselves
	running bool
	waiting []*query
	refused string // the leader that has no QueryRegion
}

// query is a lookup of one region: of a key, or of the keys before it, or of an id.
type query struct {
	op      string
	key     []byte
	id      uint64
	options LookupOption

	done   chan struct{}
	ok     bool
	region *Region
}

func (q *queries) init(c *Client) { q.client, q.wake = c, make(chan struct{}, 1) }

// lookup returns the region of one query, nil where PD knows none.
func (c *Client) lookup(ctx context.Context, one *query) (*Region, error) {
	q := &c.queries
	if q.enter(one) {
		select {
		case <-one.done:
			if one.ok {
				return one.region, nil
			}
		case <-ctx.Done(): // the call below says so
		}
	} else {
		defer q.leave()
	}
	return oneRegion(readRegions(ctx, c, one.op, one.options, func(ctx context.Context, pd regionReader) (*pdpb.GetRegionResponse, error) {
		buckets := one.options&NeedBuckets != 0
		switch one.op {
		case opRegionByID:
			return pd.GetRegionByID(ctx, &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: one.id, NeedBuckets: buckets})
		case opPrevRegion:
			return pd.GetPrevRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: one.key, NeedBuckets: buckets})
		}
		return pd.GetRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: one.key, NeedBuckets: buckets})
	}, func(resp *pdpb.GetRegionResponse) bool { return resp.GetRegion().GetId() != 0 }))
}

// enter puts a lookup in line where it is not alone, or reports false.
func (q *queries) enter(one *query) bool {
	m := q.client.members.Load()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.alone == 0 && len(q.waiting) == 0 || m.relay != "" || q.refused == m.leader {
		q.alone++
		return false
	}
	if !q.running {
		if q.running = q.client.tasks.Go("pd regions", q.run); !q.running {
			q.alone++
			return false
		}
	}
	one.done = make(chan struct{})
	q.waiting = append(q.waiting, one)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

func (q *queries) leave() {
	q.mu.Lock()
	q.alone--
	q.mu.Unlock()
}

// run is the task that has the stream.
func (q *queries) run(ctx context.Context) {
	var s *queryStream
	defer func() { s.close() }()
	idle := time.NewTimer(queryIdle)
	defer idle.Stop()
	for {
		batch := q.take()
		if len(batch) == 0 {
			idle.Reset(queryIdle)
			select {
			case <-q.wake:
				continue
			case <-idle.C:
			case <-ctx.Done():
			}
			if q.stop(ctx.Err() != nil) {
				return
			}
			continue
		}
		s = q.serve(ctx, s, batch)
		for _, one := range batch {
			close(one.done)
		}
	}
}

// take returns the next lookups.
func (q *queries) take() []*query {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), queryLimit)
	batch := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	return batch
}

// stop ends the task if nobody waits, or if it must.
func (q *queries) stop(must bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if must {
		for _, one := range q.waiting {
			close(one.done)
		}
		q.waiting = nil
	}
	q.running = len(q.waiting) > 0
	return !q.running
}

// serve looks a batch up. It returns the stream for the next one, nil after a failure.
func (q *queries) serve(ctx context.Context, s *queryStream, batch []*query) *queryStream {
	c := q.client
	var options LookupOption
	for _, one := range batch {
		options |= one.options
	}
	m := c.members.Load()
	if s != nil && !s.fits(m, options) {
		s.close()
		s = nil
	}
	// Whoever is silent for as long as that has its lookups made one by one, which look
	// for another leader.
	limited, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(suspicion, func() { cancel(errSilent) })
	defer timer.Stop()
	if s == nil {
		s = q.connect(limited, cancel, c.readTarget(m, options))
	} else {
		stop := context.AfterFunc(limited, s.close)
		defer func() { stop(); cancel(nil) }()
	}
	if s == nil {
		return nil
	}
	resp, err := s.exchange(c.queryRequest(batch, options))
	if status.Code(err) == codes.Unimplemented && s.addr == m.leader {
		q.mu.Lock()
		q.refused = m.leader
		q.mu.Unlock()
	}
	e := judge("QueryRegion", s.addr, m.clusterID, resp.GetHeader(), err)
	if e != nil || !distribute(batch, resp, s.follower || s.router) {
		if s.addr != m.leader {
			c.shun(s.addr)
		}
		s.close()
		return nil
	}
	return s
}

func (c *Client) queryRequest(batch []*query, options LookupOption) *pdpb.QueryRegionRequest {
	req := &pdpb.QueryRegionRequest{Header: c.header(), NeedBuckets: options&NeedBuckets != 0}
	for _, one := range batch {
		switch one.op {
		case opRegionByID:
			req.Ids = append(req.Ids, one.id)
		case opPrevRegion:
			req.PrevKeys = append(req.PrevKeys, one.key)
		default:
			req.Keys = append(req.Keys, one.key)
		}
	}
	return req
}
