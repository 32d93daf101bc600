package txn

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
)

const (
	// broadcastFor is how long a store is tried, broadcastTimeout one attempt's time.
	broadcastFor     = 10 * time.Second
	broadcastTimeout = 5 * time.Second
	// broadcastParallel is how many stores are told at a time.
	broadcastParallel = 10
	// forgetAfter lets followers catch up with the last locks' end, before stores forget
	// the transaction (client-go txnkv/transaction/2pc.go, broadcastGracePeriod).
	forgetAfter = 5 * time.Second
)

// beat prolongs the primary lock. It also says that the transaction commits no earlier than
// now, and when the primary lock has it, tells all stores: until it has committed, which
// takes a timestamp that is issued later, they may let stale reads up to there pass its
// locks (TiKV src/storage/txn/commands/txn_heart_beat.rs; components/resolved_ts/src/
// resolver.rs, oldest_transaction).
func (p *pipe) beat(ctx context.Context, key []byte) (gone bool, err error) {
	var now uint64
	if !p.decided.Load() {
		asking, cancel := context.WithTimeout(ctx, beatEvery/2)
		defer cancel()
		if now, err = p.t.e.pd.Timestamp(asking); err != nil {
			now = 0 // nobody is told; the lock lives on all the same
		}
	}
	if gone, err = p.t.sendHeartbeat(ctx, key, now); err != nil || gone || now == 0 {
		return gone, err
	}
	p.broadcast(&kvrpcpb.TxnStatus{MinCommitTs: now})
	return false, nil
}

// broadcast tells every store that has a replica what the transaction has come to. Nobody
// waits for it, and nothing depends on it: it spares others questions.
func (p *pipe) broadcast(s *kvrpcpb.TxnStatus) {
	s.StartTs = p.t.StartTS()
	p.t.e.tasks.Go("broadcast", func(ctx context.Context) { p.tell(ctx, s) })
}

// forget makes the stores forget a transaction that has no locks any more.
func (p *pipe) forget(s *kvrpcpb.TxnStatus) {
	closing := p.t.e.router.Closing()
	ctx, cancel := context.WithTimeout(closing, forgetAfter)
	context.AfterFunc(ctx, func() {
		defer cancel()
		if closing.Err() == nil {
			p.broadcast(s)
		}
	})
}

// replicas notes the stores of a region.
func (p *pipe) replicas(r *region.Region) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range r.NumPeers() {
		p.stores[r.Peer(i).GetStoreId()] = struct{}{}
	}
}

func (p *pipe) tell(ctx context.Context, s *kvrpcpb.TxnStatus) {
	p.mu.Lock()
	stores := slices.Sorted(maps.Keys(p.stores))
	p.mu.Unlock()
	_ = task.Each(ctx, broadcastParallel, len(stores), func(ctx context.Context, i int) error {
		o := p.t.opts.Read.CallOptions
		o.RetryFor, o.Route = broadcastFor, nil
		call := p.t.e.call(ctx, "broadcast", o)
		call.Timeout = broadcastTimeout
		req := &kvrpcpb.BroadcastTxnStatusRequest{Context: &kvrpcpb.Context{}, TxnStatus: []*kvrpcpb.TxnStatus{s}}
		_ = p.o.SendStore(ctx, call, stores[i], req, &kvrpcpb.BroadcastTxnStatusResponse{})
		return nil
	})
}
