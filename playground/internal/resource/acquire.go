package resource

import (
	"errors"
	"maps"
	"slices"
	"time"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"

	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// Acquire grants a client the tokens that it asks for, group by group, and notes what it
// used; it leaves out groups that are not there (PD: grpc_service.go,
// AcquireTokenBuckets).
func (g *Groups) Acquire(req *rmpb.TokenBucketsRequest, now time.Time) (*rmpb.TokenBucketsResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	resp := new(rmpb.TokenBucketsResponse)
	for _, q := range req.GetRequests() {
		keyspace, name := KeyspaceOf(q.GetKeyspaceId()), q.GetResourceGroupName()
		all, err := g.keyspaceOf(keyspace, name)
		if err != nil || all[name] == nil {
			continue
		}
		if q.GetIsBackground() && q.GetIsTiflash() {
			return nil, errors.New("background and tiflash cannot be true at the same time")
		}
		of := all[name]
		if keyspace == nullKeyspace || g.known(keyspace) {
			of.use(q.GetConsumptionSinceLastRequest())
		}
		if q.GetIsBackground() {
			continue
		}
		answer := &rmpb.TokenBucketResponse{ResourceGroupName: name, KeyspaceId: keyspaceValue(keyspace)}
		for _, item := range q.GetRuItems().GetRequestRU() {
			if granted := of.acquire(item, req, now); granted != nil {
				answer.GrantedRUTokens = append(answer.GrantedRUTokens, granted)
			}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp, g.save(now)
}

func (g *group) acquire(item *rmpb.RequestUnitItem, req *rmpb.TokenBucketsRequest, now time.Time) *rmpb.GrantedRUTokenBucket {
	if item.GetType() != rmpb.RequestUnitType_RU {
		return nil
	}
	client := req.GetClientUniqueId()
	g.bucket.sample(client, now, item.GetValue())
	if g.bucket.settings == nil {
		return nil
	}
	tokens, trickle := g.bucket.request(now, item.GetValue(), req.GetTargetRequestPeriodMs(), client)
	if tokens == nil {
		return nil
	}
	return &rmpb.GrantedRUTokenBucket{GrantedTokens: tokens, TrickleTimeMs: trickle}
}

// save saves the groups' states as often as PD does (manager.go, persistLoop), but only
// while tokens are asked for.
func (g *Groups) save(now time.Time) error {
	if passed := now.Sub(g.saved); !g.saved.IsZero() && passed >= 0 && passed < saveEvery {
		return nil
	}
	g.saved = now
	var writes []etcd.Write
	for _, keyspace := range slices.Sorted(maps.Keys(g.all)) {
		for _, name := range slices.Sorted(maps.Keys(g.all[keyspace])) {
			state, err := g.all[keyspace][name].state()
			if err != nil {
				return err
			}
			_, path := paths(keyspace, name)
			writes = append(writes, etcd.Write{Key: []byte(path), Value: state})
		}
	}
	_, _, err := g.kv.Apply(writes...)
	return err
}
