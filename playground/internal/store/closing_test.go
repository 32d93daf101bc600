package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/lag"
	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/rawkv"
	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// stalled is an engine whose next write waits until it is let go.
type stalled struct {
	storage.Engine
	begun, end chan struct{}
}

func (e *stalled) Apply(b *storage.Batch) error {
	close(e.begun)
	<-e.end
	return e.Engine.Apply(b)
}

// bare is a store of one region over an engine, without a running server.
func bare(t *testing.T, e storage.Engine) (*Store, *kvrpcpb.Context, *task.Group) {
	t.Helper()
	memory := storage.NewMemory()
	topo := topology.New(meta.New(memory), 1)
	if err := topo.Bootstrap(nil, new(meta.Change)); err != nil {
		t.Fatal(err)
	}
	tasks := task.New(t.Context())
	manager := mvcc.NewManager()
	s := New(Config{
		ID: 1, ClusterID: 7, APIVersion: kvrpcpb.APIVersion_V1, Topology: topo, Now: time.Now, Limit: func() uint64 { return 1 << 62 },
		Raw: rawkv.New(e, rawkv.Config{APIVersion: kvrpcpb.APIVersion_V1, Now: time.Now}),
		Lag: lag.New(e, lag.Config{Now: time.Now}),
		Txn: mvcc.New(e, mvcc.Config{APIVersion: kvrpcpb.APIVersion_V1}), Manager: func(uint64) *mvcc.Manager { return manager },
		Faults: fault.NewSet(1, tasks), Counter: new(count.Counter),
		UserKey: func(k []byte) []byte { return k },
	}, serve.Config{})
	r := topo.ByKey(nil)
	return s, &kvrpcpb.Context{RegionId: r.ID(), RegionEpoch: r.Meta.RegionEpoch, Peer: r.Leader}, tasks
}

// A command that the end of its store breaks off, or outlives, is not answered: an error
// that the end made would be taken for one of the command's own.
func TestNoAnswersOfAStoreThatStops(t *testing.T) {
	for _, raw := range []bool{false, true} {
		e := &stalled{storage.NewMemory(), make(chan struct{}), make(chan struct{})}
		s, rctx, tasks := bare(t, e)
		life, stop := context.WithCancel(t.Context())
		defer stop()
		request := func() any {
			if raw {
				return &kvrpcpb.RawCASRequest{Context: rctx, Key: []byte("k"), PreviousNotExist: true, Value: []byte("v")}
			}
			return &kvrpcpb.PrewriteRequest{Context: rctx, StartVersion: 5, PrimaryLock: []byte("k"), LockTtl: 1,
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte("k")}}}
		}
		ended := make(chan error, 2)
		ask := func(context.Context) {
			req := request()
			answer, err := s.answer(life, s.commands.of(req), req)
			if err == nil {
				t.Errorf("answered: %v", answer)
			}
			ended <- err
		}
		tasks.Go("first", ask)
		<-e.begun             // it holds the key's latch and is being applied
		tasks.Go("next", ask) // waits for the latch
		stop()
		if err := <-ended; !errors.Is(err, errClosing) && err != nil {
			t.Error(err)
		}
		close(e.end)
		<-ended
		tasks.Close(nil)
	}
}
