package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// flash adds a store of TiFlash with a learner of every region.
func (c *testCluster) flash() (uint64, tikvpb.TikvClient) {
	c.t.Helper()
	id, err := c.AddStore(map[string]string{"engine": "tiflash"})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range c.Regions(KeyTxn) {
		c.must(c.AddPeer(r.ID, id, Learner))
	}
	return id, c.tikv(id)
}

// regionOf is a region as a request to TiFlash names it.
func (c *testCluster) regionOf(bounds ...string) *coprocessor.RegionInfo {
	ctx, _ := c.at(KeyTxn, bounds[0])
	return &coprocessor.RegionInfo{RegionId: ctx.RegionId, RegionEpoch: ctx.RegionEpoch, Ranges: ranges(bounds...)}
}

func batchCop(t *testing.T, kv tikvpb.TikvClient, q *coprocessor.BatchRequest) (all []*coprocessor.BatchResponse, err error) {
	t.Helper()
	s, err := kv.BatchCoprocessor(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, p)
	}
}

// A store of TiFlash answers for many regions at once. One that it does not have as it
// was asked for is read all the same, and named.
func TestBatchCoprocessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(1), WithCoprocessor(103, listing), WithSplitKeys(KeyTxn, []byte("m")))
		_, kv := c.flash()
		now := c.putTxn("a", "b", "z")
		q := func() *coprocessor.BatchRequest {
			return &coprocessor.BatchRequest{Tp: 103, Data: []byte("p"), StartTs: now, Regions: []*coprocessor.RegionInfo{c.regionOf("a", "c"), c.regionOf("x", "zz")}}
		}
		all, err := batchCop(t, kv, q())
		if err != nil || len(all) != 1 || string(all[0].Data) != "p: a=va b=vb z=vz" {
			t.Fatal(all, err)
		}
		tables := q()
		tables.TableRegions = []*coprocessor.TableRegions{{Regions: tables.Regions[1:]}, {Regions: tables.Regions[:1]}}
		tables.Regions = nil
		if all, err := batchCop(t, kv, tables); err != nil || len(all) != 1 || string(all[0].Data) != "p: z=vz a=va b=vb" {
			t.Error(all, err)
		}
		stale := q()
		if _, err := c.Split(KeyTxn, []byte("b")); err != nil {
			t.Fatal(err)
		}
		all, err = batchCop(t, kv, stale)
		if err != nil || len(all) != 2 || len(all[0].RetryRegions) != 1 || all[0].RetryRegions[0].Id != stale.Regions[0].RegionId || string(all[1].Data) != "p: a=va b=vb z=vz" {
			t.Error(all, err)
		}
		other := q()
		other.Tp = 105
		if all, err := batchCop(t, kv, other); status.Code(err) != codes.Internal || len(all) != 1 || all[0].OtherError != "Coprocessor request type 105 is not implemented" {
			t.Error(all, err)
		}
		c.Inject(Fault{Method: "BatchCoprocessor", Times: 1, DropAnswer: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		s, err := kv.BatchCoprocessor(ctx, q())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := s.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Error(p, err)
		}
		// A store of TiKV has none of it.
		kv = c.tikv(1)
		if _, err := batchCop(t, kv, q()); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		if _, err := kv.DispatchMPPTask(t.Context(), &mpp.DispatchTaskRequest{}); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		if _, err := kv.CancelMPPTask(t.Context(), &mpp.CancelTaskRequest{}); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		if _, err := kv.IsAlive(t.Context(), &mpp.IsAliveRequest{}); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		if _, err := c.receive(kv, &mpp.EstablishMPPConnectionRequest{}); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	})
}

// flashLook is how long a store of TiFlash waits between two looks at a lock.
const flashLook = 100 * time.Millisecond

// A lock is waited for: TiFlash has no place in its answers for one.
func TestBatchCoprocessorWaitsForLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(1), WithCoprocessor(103, listing))
		_, kv := c.flash()
		s := c.timestamp()
		c.prewrite(s, "a", "1")
		q := &coprocessor.BatchRequest{Tp: 103, StartTs: c.timestamp(), Regions: []*coprocessor.RegionInfo{c.regionOf("a", "b")}}
		began := time.Now()
		all, err := batchCop(t, kv, q)
		if status.Code(err) != codes.Internal || len(all) != 1 || !strings.Contains(all[0].OtherError, "Key is locked") || time.Since(began) != 20*time.Second {
			t.Fatal(all, err, time.Since(began))
		}
		time.AfterFunc(5*time.Second+flashLook/2, func() { c.commit(s, q.StartTs+1, "a") }) // between two looks
		if all, err := batchCop(t, kv, q); err != nil || len(all) != 1 || string(all[0].Data) != ":" {
			t.Fatal(all, err)
		}
	})
}

func taskMeta(query uint64, task int64) *mpp.TaskMeta {
	return &mpp.TaskMeta{StartTs: query, QueryTs: query, LocalQueryId: 1, ServerId: 1, GatherId: 1, TaskId: task, MppVersion: 3}
}

// receive connects to a task, and returns the packets.
func (c *testCluster) receive(kv tikvpb.TikvClient, q *mpp.EstablishMPPConnectionRequest) (all []*mpp.MPPDataPacket, err error) {
	s, err := kv.EstablishMPPConnection(c.t.Context(), q)
	if err != nil {
		return nil, err
	}
	for {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, p)
	}
}

// A task is dispatched, computed behind the answer's back, and fetched by its receivers.
func TestMPPTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(1), WithCoprocessor(103, listing), WithSplitKeys(KeyTxn, []byte("m")))
		_, kv := c.flash()
		now := c.putTxn("a", "z")
		if p, err := kv.IsAlive(t.Context(), &mpp.IsAliveRequest{}); err != nil || !p.Available || p.MppVersion != 3 {
			t.Fatal(p, err)
		}
		q := &mpp.DispatchTaskRequest{Meta: taskMeta(now, 1), EncodedPlan: []byte("p"), Regions: []*coprocessor.RegionInfo{c.regionOf("a", "c"), c.regionOf("x", "zz")}}
		q.Regions[1].RegionEpoch.Version += 7
		// The receiver may be there first.
		type packets struct {
			all []*mpp.MPPDataPacket
			err error
		}
		first := make(chan packets, 1)
		go func() {
			all, err := c.receive(kv, &mpp.EstablishMPPConnectionRequest{SenderMeta: taskMeta(now, 1), ReceiverMeta: taskMeta(now, -1)})
			first <- packets{all, err}
		}()
		synctest.Wait()
		p, err := kv.DispatchMPPTask(t.Context(), q)
		if err != nil || p.Error != nil || len(p.RetryRegions) != 1 || p.RetryRegions[0].Id != q.Regions[1].RegionId {
			t.Fatal(p, err)
		}
		if got := <-first; got.err != nil || len(got.all) != 1 || string(got.all[0].Data) != "p: a=va z=vz" {
			t.Fatal(got)
		}
		other := &mpp.EstablishMPPConnectionRequest{SenderMeta: taskMeta(now, 1), ReceiverMeta: taskMeta(now, 2)}
		if all, err := c.receive(kv, other); err != nil || len(all) != 1 || len(all[0].Chunks) != 1 || string(all[0].Chunks[0]) != "p: a=va z=vz" {
			t.Fatal(all, err)
		}
		if _, err := c.receive(kv, other); status.Code(err) != codes.Unknown {
			t.Error("a second connection of a receiver:", err)
		}
		if p, err := kv.DispatchMPPTask(t.Context(), q); err != nil || !strings.HasSuffix(p.Error.GetMsg(), "reason: task is already registered") {
			t.Error(p, err)
		}
		began := time.Now()
		all, err := c.receive(kv, &mpp.EstablishMPPConnectionRequest{SenderMeta: taskMeta(now, 9), ReceiverMeta: taskMeta(now, -1)})
		if want := fmt.Sprintf("tunnel9+-1: Can't find task [%d,9] within 10s.", now); err != nil || len(all) != 1 || all[0].Error.GetMsg() != want || time.Since(began) != 10*time.Second {
			t.Error(all, err, time.Since(began))
		}
	})
}

// CancelMPPTask ends the tasks of a gather and those that wait for them, and keeps later
// ones out.
func TestCancelMPPTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		c := start(t, WithStores(1), WithCoprocessor(103, func(ctx context.Context, plan []byte, _ [][2][]byte) ([]byte, error) {
			if string(plan) == "fail" {
				return nil, errors.New("of the plan")
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}))
		id, kv := c.flash()
		dispatch := func(m *mpp.TaskMeta, plan string, timeout int64) *mpp.DispatchTaskResponse {
			t.Helper()
			p, err := kv.DispatchMPPTask(t.Context(), &mpp.DispatchTaskRequest{Meta: m, EncodedPlan: []byte(plan), Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		connect := func(m *mpp.TaskMeta) string {
			all, err := c.receive(kv, &mpp.EstablishMPPConnectionRequest{SenderMeta: m, ReceiverMeta: taskMeta(m.StartTs, -1)})
			if err != nil || len(all) != 1 {
				return fmt.Sprint(all, err)
			}
			return all[0].Error.GetMsg()
		}
		dispatch(taskMeta(5, 1), "", 0)
		got := make(chan string, 1)
		go func() { got <- connect(taskMeta(5, 1)) }()
		synctest.Wait()
		if p, err := kv.CancelMPPTask(t.Context(), &mpp.CancelTaskRequest{Meta: taskMeta(5, 1)}); err != nil || p.Error != nil {
			t.Fatal(p, err)
		}
		if s := <-got; s != "Receive cancel request from TiDB" {
			t.Error(s)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if p := dispatch(taskMeta(5, 2), "", 0); !strings.HasSuffix(p.Error.GetMsg(), "gather is being aborted, error message = Receive cancel request from TiDB") {
			t.Error(p)
		}
		if s := connect(taskMeta(5, 1)); s != "tunnel1+-1: Task [5,1] has been aborted, error message: Receive cancel request from TiDB" {
			t.Error(s)
		}
		// A task has its time, and its failure is a packet.
		dispatch(taskMeta(6, 1), "", 10)
		began := time.Now()
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 40*time.Second {
			t.Error(err, time.Since(began))
		}
		dispatch(taskMeta(7, 1), "fail", 0)
		if s := connect(taskMeta(7, 1)); s != "of the plan" {
			t.Error(s)
		}
		// A store that is started again knows nothing of its tasks.
		dispatch(taskMeta(8, 1), "", 0)
		c.must(c.Stop(Store(id)))
		<-ended
		c.parted(c.store(id).Server().Addr())
		c.must(c.Cluster.Start(Store(id)))
		if s := connect(taskMeta(5, 1)); !strings.Contains(s, "Can't find task") {
			t.Error(s)
		}
		later := taskMeta(9, 1)
		later.MppVersion = 4
		const words = "Invalid mpp version 4, TiFlash expects version: min 0, max 3, should upgrade TiFlash"
		_, err := kv.DispatchMPPTask(t.Context(), &mpp.DispatchTaskRequest{Meta: later})
		if status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), words) {
			t.Error(err)
		}
		if _, err := kv.CancelMPPTask(t.Context(), &mpp.CancelTaskRequest{Meta: later}); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), words) {
			t.Error(err)
		}
		if _, err := c.receive(kv, &mpp.EstablishMPPConnectionRequest{SenderMeta: later, ReceiverMeta: later}); status.Code(err) != codes.Internal || strings.Count(err.Error(), words) != 2 {
			t.Error(err)
		}
	})
}
