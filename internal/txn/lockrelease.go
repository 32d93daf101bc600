package txn

import (
	"context"
	"errors"
	"log/slog"
	"math"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// unlock removes the transaction's pessimistic locks on keys, up to a for-update
// timestamp: what is locked again later stays. It is owed by the client; done is closed
// when it is over, one way or the other. What is left behind expires.
func (t *Txn) unlock(keys [][]byte, upTo uint64) (done <-chan struct{}) {
	over := make(chan struct{})
	t.beat.drop(keys)
	if p := t.pess; len(keys) > 0 {
		p.freed, p.freeing = max(p.freed, upTo), append(p.freeing, over)
	}
	if len(keys) == 0 || !t.e.owed.Go("unlock", func(ctx context.Context) {
		defer close(over)
		o := t.opts.Read.CallOptions
		o.RetryFor = owedFor
		call := t.e.call(ctx, "Txn.Rollback", o)
		call.Owed, call.Timeout = true, writeTimeout
		if err := t.e.unlockAll(ctx, call, t.StartTS(), upTo, keys); err != nil {
			t.e.log.LogAttrs(ctx, slog.LevelWarn, "unlock not done", slog.Uint64("start_ts", t.StartTS()), slog.Any("error", err))
		}
	}) {
		close(over)
	}
	return over
}

// unlockParallel is how many requests of one unlock are under way.
const unlockParallel = 16

// unlockAll sends PessimisticRollback for keys, region by region.
func (e *Engine) unlockAll(ctx context.Context, call *router.Call, start, upTo uint64, keys [][]byte) error {
	if at := e.router.Only(call, keys); at != nil && len(keys) == 1 {
		return e.unlockPart(ctx, call, at, start, upTo, keys)
	}
	groups, err := e.router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	parts := cut(groups, batchBytes, func(i int) int { return len(keys[i]) })
	return task.Each(ctx, unlockParallel, len(parts), func(ctx context.Context, i int) error {
		return e.unlockPart(ctx, call.Part(), parts[i].Region, start, upTo, pick(keys, parts[i].Index))
	})
}

func (e *Engine) unlockPart(ctx context.Context, call *router.Call, at *region.Region, start, upTo uint64, keys [][]byte) error {
	req := &kvrpcpb.PessimisticRollbackRequest{Context: &kvrpcpb.Context{}, StartVersion: start, ForUpdateTs: upTo, Keys: keys}
	resp, err := send[*kvrpcpb.PessimisticRollbackResponse](ctx, e, call, at, req)
	switch {
	case errors.Is(err, router.ErrRegionChanged):
		return e.unlockAll(ctx, call, start, upTo, keys)
	case err == nil && len(resp.GetErrors()) > 0:
		return keyError(call, start, resp.GetErrors()[0])
	}
	return err
}

// letGo removes every lock that a transaction which has ended without committing may
// have.
func (pessimistic) letGo(t *Txn) (done <-chan struct{}) {
	p := t.pess
	held := p.stage.keys()
	for key := range p.loose {
		held = append(held, []byte(key))
	}
	if p.primary != nil {
		c := t.buf.Freeze().Scan(keys.Range{}, false)
		for e, ok := c.Next(); ok; e, ok = c.Next() {
			if e.Flags&membuf.Locked != 0 {
				held = append(held, e.Key)
			}
		}
	}
	if len(held) == 0 {
		return nil
	}
	return t.unlock(held, math.MaxUint64)
}
