package tikv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// rowTest is a row of the table of errors (internal/router/regionerror.go) met once, by a
// raw read or by a write that is not sent twice.
type rowTest struct {
	t       *testing.T
	method  string
	cluster *tikvtest.Cluster
	client  *tikv.Client
}

// row is how a failure is brought about, and what comes of it.
type row struct {
	fault playground.Fault // of the request, once
	place string           // the method that fails, where it is another
	cold  bool             // the client knows nothing before
	opts  []tikv.Option
	shape []playground.Option
	meet  func(e *rowTest) // instead of the fault

	open bool  // a request that met it may have run
	ends error // what the call ends with, nil: an answer
}

func (e *rowTest) warm() {
	if _, err := e.client.Raw().Get(e.t.Context(), b("k")); !errors.Is(err, tikv.ErrNotFound) {
		e.t.Fatal(err)
	}
}

func (e *rowTest) do(ctx context.Context) error {
	if e.method == "RawGet" {
		_, err := e.client.Raw().Get(ctx, b("k"))
		if errors.Is(err, tikv.ErrNotFound) {
			return nil
		}
		return err
	}
	_, _, err := e.client.AtomicRaw().PutIfAbsent(ctx, b("k"), b("v"))
	return err
}

// stopLeader stops the store of the leader, whose connection has ended before the call.
func (e *rowTest) stopLeader() {
	e.must(e.cluster.Stop(playground.Store(e.cluster.Regions(playground.KeyRaw)[0].Leader)))
	<-time.After(time.Millisecond)
}

// fill has another request fill the store's places for a second.
func (e *rowTest) fill() {
	held := e.cluster.Inject(playground.Fault{Method: "RawGet", Hold: true, Times: 1})
	first := start(e.t.Context(), func(ctx context.Context) error {
		_, err := e.client.Raw().Get(ctx, b("first"))
		return err
	})
	synctest.Wait()
	time.AfterFunc(time.Second, held.Release)
	e.t.Cleanup(func() { <-first })
}

func (e *rowTest) must(err error) {
	e.t.Helper()
	must(e.t, err)
}

// encoded is a fault that replaces an answer.
func encoded(m interface{ Marshal() ([]byte, error) }) playground.Fault {
	return playground.Fault{Mangle: func([]byte) []byte {
		data, _ := m.Marshal()
		return data
	}}
}

func rowsOfTheTable() map[tikv.Reason]row {
	region := func(f playground.RegionFault) row { return row{fault: playground.Fault{RegionError: f}} }
	unsure := func(f playground.RegionFault) row { return row{fault: playground.Fault{RegionError: f}, open: true} }
	final := func(f playground.RegionFault, err error) row {
		return row{fault: playground.Fault{RegionError: f}, ends: err}
	}
	// RawGetResponse and RawCASResponse have the region error in the same field.
	words := &kvrpcpb.RawGetResponse{RegionError: &errorpb.Error{Message: "TiKV is Closing"}}
	return map[tikv.Reason]row{
		tikv.ReasonNotLeader:            region(playground.NotLeader),
		tikv.ReasonRegionNotFound:       region(playground.RegionNotFound),
		tikv.ReasonKeyNotInRegion:       region(playground.KeyNotInRegion),
		tikv.ReasonEpochNotMatch:        region(playground.EpochNotMatch),
		tikv.ReasonServerBusy:           region(playground.ServerIsBusy),
		tikv.ReasonStaleCommand:         unsure(playground.StaleCommand),
		tikv.ReasonStoreNotMatch:        region(playground.StoreNotMatch),
		tikv.ReasonEntryTooLarge:        final(playground.RaftEntryTooLarge, tikv.ErrTooLarge),
		tikv.ReasonMaxTSNotSynced:       region(playground.MaxTimestampNotSynced),
		tikv.ReasonReadIndexNotReady:    region(playground.ReadIndexNotReady),
		tikv.ReasonMerging:              region(playground.ProposalInMergingMode),
		tikv.ReasonDataNotReady:         region(playground.DataIsNotReady),
		tikv.ReasonRegionNotInitialized: region(playground.RegionNotInitialized),
		tikv.ReasonDiskFull:             region(playground.DiskFull),
		tikv.ReasonRecovery:             region(playground.RecoveryInProgress),
		tikv.ReasonFlashback:            final(playground.FlashbackInProgress, tikv.ErrRejected),
		tikv.ReasonFlashbackNotPrepared: final(playground.FlashbackNotPrepared, tikv.ErrRejected),
		tikv.ReasonWitness:              region(playground.IsWitness),
		tikv.ReasonMismatchPeer:         region(playground.MismatchPeerID),
		tikv.ReasonBucketVersion:        region(playground.BucketVersionNotMatch),
		tikv.ReasonUndetermined:         unsure(playground.UndeterminedResult),
		tikv.ReasonOtherRegionError:     {fault: encoded(words), open: true},

		tikv.ReasonDial:      {meet: (*rowTest).stopLeader},
		tikv.ReasonConnLost:  {fault: playground.Fault{Disconnect: true}, open: true},
		tikv.ReasonTimeout:   {fault: playground.Fault{DropRequest: true}, open: true},
		tikv.ReasonStoreDown: {meet: (*rowTest).stopLeader, shape: []playground.Option{playground.WithStores(1)}, ends: tikv.ErrUnavailable},
		tikv.ReasonQueueFull: {meet: (*rowTest).fill, opts: []tikv.Option{tikv.WithMaxInFlight(1)}},
		tikv.ReasonRefused:   {fault: playground.Fault{Mangle: func([]byte) []byte { return []byte{0xff} }}, open: true},
		tikv.ReasonNoStore: {cold: true, place: "GetStore", fault: encoded(&pdpb.GetStoreResponse{Header: &pdpb.ResponseHeader{
			Error: &pdpb.Error{Type: pdpb.ErrorType_UNKNOWN, Message: "invalid store ID 1, not found"}}})},
		tikv.ReasonPD: {cold: true, place: "GetRegion", fault: encoded(&pdpb.GetRegionResponse{Header: &pdpb.ResponseHeader{
			Error: &pdpb.Error{Type: pdpb.ErrorType_UNKNOWN, Message: "no"}}})},
	}
}

// TestEveryRow meets each row of the table of errors at the playground: the attempt is known
// by its reason, and the call goes on or ends as the row says.
func TestEveryRow(t *testing.T) {
	rows := rowsOfTheTable()
	for r := tikv.ReasonNone + 1; !strings.HasPrefix(r.String(), "Reason("); r++ {
		c, ok := rows[r]
		if !ok {
			if r != tikv.ReasonLock { // of no attempt
				t.Errorf("%v is not met", r)
			}
			continue
		}
		for _, method := range []string{"RawGet", "RawCompareAndSwap"} {
			t.Run(r.String()+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { meetRow(t, r, c, method) })
			})
		}
	}
}

func meetRow(t *testing.T, reason tikv.Reason, c row, method string) {
	seen := &reasons{}
	e := &rowTest{t: t, method: method, cluster: tikvtest.NewCluster(t, c.shape...)}
	e.client = e.cluster.Open(append(c.opts, tikv.WithHooks(seen), tikv.WithRPCTimeout(2*time.Second))...)
	if !c.cold {
		e.warm()
	}
	if c.meet != nil {
		c.meet(e)
	} else {
		f := c.fault
		if f.Method, f.Times = method, 1; c.place != "" {
			f.Method = c.place
		}
		e.cluster.Inject(f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := e.do(ctx)
	want := c.ends
	if c.open && method != "RawGet" {
		want = tikv.ErrUndetermined
	}
	if !errors.Is(err, want) || tikv.NotSent(err) != (err != nil && want != tikv.ErrUndetermined) {
		t.Errorf("ends with %v, not %v", err, want)
	}
	if !seen.have(reason) {
		t.Errorf("met %v", seen.all)
	}
}

// reasons is a hook that keeps why attempts failed.
type reasons struct {
	mu  sync.Mutex
	all []tikv.Reason
}

func (r *reasons) StartRPC(ctx context.Context, _ tikv.CallInfo) context.Context { return ctx }
func (r *reasons) EndRPC(_ context.Context, _ tikv.CallInfo, res tikv.CallResult) {
	r.note(res.Reason)
}
func (r *reasons) OnRetry(_ context.Context, info tikv.RetryInfo) { r.note(info.Reason) }

func (r *reasons) note(reason tikv.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, reason)
}

func (r *reasons) have(reason tikv.Reason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.all, reason)
}

// A timestamp that PD cannot have given out is refused by the store, for good.
func TestCallFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		now, err := c.Timestamp(t.Context())
		must(t, err)
		began := time.Now()
		_, err = tikv.Call(t.Context(), c.RPC(), tikv.ToKey(tikv.KeyTxn, b("k")), tikvpb.TikvClient.KvGet,
			&kvrpcpb.GetRequest{Key: b("k"), Version: uint64(now) + 3600_000<<18})
		if !errors.Is(err, tikv.ErrRejected) || time.Since(began) > time.Second {
			t.Fatal(err, time.Since(began))
		}
	})
}
