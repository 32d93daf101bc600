package playground

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

func (c *testCluster) member(i int) pdpb.PDClient { return pdpb.NewPDClient(c.conn(c.PD()[i])) }

// via lets a member pass a call on to the host of a URL.
func via(ctx context.Context, url string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "pd-forwarded-host", url)
}

func (c *testCluster) leaderOf(i int) string {
	c.t.Helper()
	resp, err := c.member(i).GetMembers(c.t.Context(), &pdpb.GetMembersRequest{})
	if err != nil || len(resp.Members) != len(c.PD()) || resp.Header.ClusterId != c.ID() || resp.EtcdLeader.GetName() != resp.Leader.GetName() {
		c.t.Fatal(resp, err)
	}
	return resp.Leader.GetName()
}

func refused(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("%v, want %v", err, code)
	}
	expect(t, err, text)
}

// A follower passes on what it is told to, to the leader and nobody else (PD:
// server/forward.go, validatePDForwardedHost; server/grpc_service.go,
// unaryFollowerMiddleware).
func TestForwarding(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3))...)
		addr := func(i int) string { return c.PD()[i] }
		get := func(member int, url string, id uint64) error {
			resp, err := c.member(member).GetStore(via(t.Context(), url), &pdpb.GetStoreRequest{Header: &pdpb.RequestHeader{ClusterId: id}, StoreId: 1})
			if err == nil && resp.Store.GetId() != 1 {
				t.Fatal(resp)
			}
			return err
		}
		trace := c.Trace()
		for _, test := range []struct {
			name   string
			member int
			url    string
			code   codes.Code
			text   string
		}{
			{"to the leader", 1, "http://" + addr(0), codes.OK, ""},
			{"schemes do not matter", 2, "https://" + addr(0), codes.OK, ""},
			{"the leader itself", 0, "http://" + addr(0), codes.OK, ""},
			{"nowhere", 1, "", codes.Unavailable, "not leader"},
			{"to a follower", 1, "http://" + addr(2), codes.InvalidArgument, "is not a client URL of the PD leader: pd is not leader of cluster"},
			{"to itself", 1, "http://" + addr(1), codes.InvalidArgument, "is not leader"},
			{"from the leader to a follower", 0, "http://" + addr(1), codes.InvalidArgument, "is not leader"},
			{"without a scheme", 1, addr(0), codes.InvalidArgument, "is not leader"},
		} {
			err := get(test.member, test.url, c.ID())
			if status.Code(err) != test.code {
				t.Errorf("%s: %v", test.name, err)
			}
			if err != nil {
				expect(t, err, test.text)
			}
		}
		trace.Stop()
		at := make(map[Node]int)
		for _, call := range trace.Calls() {
			at[call.Node]++
		}
		if at[Member(0)] != 4 || at[Member(1)] != 5 || at[Member(2)] != 1 {
			t.Error("who was called how often:", at)
		}
		// The leader alone looks at what is passed on.
		refused(t, get(1, "http://"+addr(0), 7), codes.FailedPrecondition, "mismatch cluster id")
		// What a follower answers by itself it does not pass on.
		if resp, err := c.member(1).GetMembers(via(t.Context(), "http://nobody"), &pdpb.GetMembersRequest{}); err != nil || len(resp.Members) != 3 {
			t.Fatal(resp, err)
		}
		// Nor does the other metadata get lost on the way.
		if err := c.TransferPD(2); err != nil {
			t.Fatal(err)
		}
		if err := get(1, "http://"+addr(2), c.ID()); err != nil {
			t.Fatal(err)
		}
		refused(t, get(1, "http://"+addr(0), c.ID()), codes.InvalidArgument, "is not leader")
	})
}

// Faults meet a call that is passed on at both members, and what lies between them.
func TestForwardingMeetsFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		alloc := func(d time.Duration) (uint64, error) {
			ctx, cancel := context.WithTimeout(via(t.Context(), "http://"+c.PD()[0]), d)
			defer cancel()
			resp, err := c.member(1).AllocID(ctx, &pdpb.AllocIDRequest{Header: c.header()})
			return resp.GetId(), err
		}
		last, err := alloc(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		// taken is how many ids went since then.
		taken := func() uint64 {
			t.Helper()
			id, err := alloc(time.Second)
			if err != nil {
				t.Fatal(err)
			}
			n := id - last - 1
			last = id
			return n
		}
		for _, test := range []struct {
			name  string
			fault Fault
			code  codes.Code
			taken uint64
		}{
			{"lost before the follower", Fault{Node: Member(1), DropRequest: true}, codes.DeadlineExceeded, 0},
			{"lost before the leader", Fault{Node: Member(0), DropRequest: true}, codes.DeadlineExceeded, 0},
			{"lost behind the leader", Fault{Node: Member(0), DropAnswer: true}, codes.DeadlineExceeded, 1},
			{"lost behind the follower", Fault{Node: Member(1), DropAnswer: true}, codes.DeadlineExceeded, 1},
			{"cut behind the leader", Fault{Node: Member(0), Disconnect: true}, codes.Unavailable, 1},
			{"twice", Fault{Node: Member(0), Duplicate: true}, codes.OK, 1},
			{"twice from the follower on", Fault{Node: Member(1), Duplicate: true}, codes.OK, 1},
			{"mangled by the leader", Fault{Node: Member(0), Mangle: func(b []byte) []byte { return b[:1] }}, codes.Internal, 1},
			{"mangled by the follower", Fault{Node: Member(1), Mangle: func(b []byte) []byte { return b[:1] }}, codes.Internal, 1},
			{"another member's", Fault{Node: Member(2), DropRequest: true}, codes.OK, 0},
		} {
			test.fault.Method = "AllocID"
			f := c.Inject(test.fault)
			id, err := alloc(time.Second)
			f.Remove()
			if status.Code(err) != test.code || (f.Hits() == 1) != (test.fault.Node != Member(2)) {
				t.Errorf("%s: %v, %d hits", test.name, err, f.Hits())
			}
			if err == nil {
				last++
				if id != last+test.taken {
					t.Errorf("%s: id %d, want %d", test.name, id, last+test.taken)
				}
				last = id
				continue
			}
			if n := taken(); n != test.taken {
				t.Errorf("%s: %d ids taken, want %d", test.name, n, test.taken)
			}
		}
		for _, test := range []struct {
			name     string
			from, to int
			taken    uint64 // before Heal
		}{{"to the leader", 1, 0, 0}, {"from the leader", 0, 1, 1}} {
			if err := c.Cut(Member(test.from), Member(test.to)); err != nil {
				t.Fatal(err)
			}
			// It does not hear the leader, so it knows none.
			_, err := alloc(time.Second)
			refused(t, err, codes.Unavailable, "not leader")
			c.Heal()
			// What is on its way when the cut comes waits for its end.
			at := c.Inject(Fault{Node: Member(1), Method: "AllocID", Times: 1})
			hold := c.Inject(Fault{Node: Member(0), Method: "AllocID", Hold: true, Times: 1})
			done := make(chan error, 1)
			c.root.Go("test", func(context.Context) {
				id, err := alloc(time.Minute)
				last = id
				done <- err
			})
			synctest.Wait()
			if at.Hits() != 1 || hold.Waiting() != 1 {
				t.Fatal(test.name, at.Hits(), hold.Waiting())
			}
			if err := c.Cut(Member(test.from), Member(test.to)); err != nil {
				t.Fatal(err)
			}
			hold.Release()
			synctest.Wait()
			if test.from == 0 {
				select {
				case err := <-done:
					t.Fatal("an answer passed a cut:", err)
				default:
				}
				c.Heal()
			}
			if err := <-done; err != nil {
				t.Fatal(test.name, err)
			}
			c.Heal()
		}
		// A stopped leader is gone for its followers too, once they ask it.
		hold := c.Inject(Fault{Node: Member(0), Method: "AllocID", Hold: true, Times: 1})
		done := make(chan error, 1)
		c.root.Go("test", func(context.Context) {
			_, err := alloc(time.Minute)
			done <- err
		})
		synctest.Wait()
		if hold.Waiting() != 1 {
			t.Fatal(hold.Waiting())
		}
		if err := c.Stop(Member(0)); err != nil {
			t.Fatal(err)
		}
		refused(t, <-done, codes.Unavailable, "")
	})
}

// A client that is cut off from the leader alone goes through a follower.
func TestForwardingAroundACut(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3))...)
		leader := c.PD()[0]
		for _, cut := range [][2]Node{{Client(), Member(0)}, {Member(0), Client()}} {
			if err := c.Cut(cut[0], cut[1]); err != nil {
				t.Fatal(err)
			}
		}
		if c.leaderOf(1) != "pd-0" {
			t.Fatal("the members lost each other")
		}
		resp, err := c.member(1).GetRegion(via(t.Context(), "http://"+leader), &pdpb.GetRegionRequest{Header: c.header()})
		if err != nil || resp.Region == nil {
			t.Fatal(resp, err)
		}
		stream, err := c.member(2).Tso(via(t.Context(), "http://"+leader))
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for range 3 {
			first, l := tsoAsk(t, c, stream, 5)
			if first <= last {
				t.Fatal(first, "after", last)
			}
			last = l
		}
	})
}

// Streams of timestamps through a follower (PD: server/grpc_service.go, Tso; pkg/utils/
// tsoutil/tso_dispatcher.go).
func TestForwardedTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		open := func(member int, url string) pdpb.PD_TsoClient {
			t.Helper()
			ctx := t.Context()
			if url != "" {
				ctx = via(ctx, url)
			}
			s, err := c.member(member).Tso(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		fail := func(s pdpb.PD_TsoClient, id uint64, count uint32) error {
			t.Helper()
			if err := s.Send(&pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: id}, Count: count}); err != nil {
				t.Fatal(err)
			}
			resp, err := s.Recv()
			if err == nil {
				t.Fatal(resp)
			}
			return err
		}
		leader := "http://" + c.PD()[0]
		direct, around := open(0, ""), open(1, leader)
		last := uint64(0)
		for i, s := range []pdpb.PD_TsoClient{around, direct, around, around, direct} {
			first, l := tsoAsk(t, c, s, uint32(1+i*1000))
			if first <= last {
				t.Fatal(first, "after", last)
			}
			last = l
		}
		refused(t, fail(open(1, leader), 7, 1), codes.FailedPrecondition, "mismatch cluster id")
		refused(t, fail(open(1, leader), c.ID(), 0), codes.Unknown, "[PD:tso:ErrGenerateTimestamp]generate timestamp failed, tso count should be positive")
		refused(t, fail(open(1, leader), c.ID(), 1<<18), codes.Unknown, "maximum number of retries exceeded")
		refused(t, fail(open(1, "http://"+c.PD()[2]), c.ID(), 1), codes.InvalidArgument, "is not leader of cluster")
		// A stall is given up, and the stream with it.
		c.StallTSO(true)
		began, stalled := time.Now(), open(1, leader)
		refused(t, fail(stalled, c.ID(), 1), codes.Canceled, "context canceled")
		if took := time.Since(began); took != 3*time.Second {
			t.Fatal(took)
		}
		c.StallTSO(false)
		// A stream stays with the leader that it was opened for.
		if err := c.TransferPD(2); err != nil {
			t.Fatal(err)
		}
		refused(t, fail(around, c.ID(), 1), codes.Unknown, "is not leader")
		refused(t, fail(open(1, leader), c.ID(), 1), codes.InvalidArgument, "is not leader")
		if first, _ := tsoAsk(t, c, open(1, "http://"+c.PD()[2]), 1); first <= last {
			t.Fatal(first, "after", last)
		}
	})
}

// The calls that look for the running cluster first find none on a follower, whatever
// their metadata says (PD: server/grpc_service.go, GetRaftCluster).
func TestFollowersHaveNoCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		for _, ctx := range []context.Context{t.Context(), via(t.Context(), "http://"+c.PD()[0])} {
			s, err := c.member(1).ScatterRegion(ctx, &pdpb.ScatterRegionRequest{Header: c.header(), RegionsId: []uint64{1}})
			if err != nil || s.Header.GetError().GetType() != pdpb.ErrorType_NOT_BOOTSTRAPPED {
				t.Error(s, err)
			}
			o, err := c.member(1).GetOperator(ctx, &pdpb.GetOperatorRequest{Header: c.header(), RegionId: 1})
			if err != nil || o.Header.GetError().GetType() != pdpb.ErrorType_NOT_BOOTSTRAPPED || o.Header.ClusterId != c.ID() {
				t.Error(o, err)
			}
		}
	})
}

// A leader that cannot give its place up has it for the five seconds of its lease.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		get := func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := c.member(i).GetStore(ctx, &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
			return err
		}
		before := c.timestamp()
		must(get(0))
		must(c.Pause(Member(0)))
		c.Advance(4 * time.Second)
		if c.leaderOf(1) != "pd-0" || c.leaderOf(2) != "pd-0" {
			t.Fatal(c.leaderOf(1), c.leaderOf(2))
		}
		refused(t, get(0), codes.DeadlineExceeded, "")
		refused(t, get(1), codes.Unavailable, "not leader")
		ctx, cancel := context.WithTimeout(via(t.Context(), "http://"+c.PD()[0]), 100*time.Millisecond)
		defer cancel()
		_, err := c.member(1).GetStore(ctx, &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
		refused(t, err, codes.DeadlineExceeded, "")
		// Back in time it leads on.
		must(c.Cluster.Start(Member(0)))
		must(get(0))
		must(c.Pause(Member(0)))
		c.Advance(5 * time.Second)
		if c.leaderOf(1) != "pd-1" || c.leaderOf(2) != "pd-1" {
			t.Fatal(c.leaderOf(1), c.leaderOf(2))
		}
		must(get(1))
		must(c.Cluster.Start(Member(0)))
		refused(t, get(0), codes.Unavailable, "not leader")
		if c.leaderOf(0) != "pd-1" {
			t.Fatal(c.leaderOf(0))
		}
		stream, err := c.member(1).Tso(t.Context())
		must(err)
		if first, _ := tsoAsk(t, c, stream, 1); first <= before {
			t.Fatal(first, "after", before)
		}
		// One that stops hands over at once; one that was suspended before cannot.
		must(c.Stop(Member(1)))
		if c.leaderOf(2) != "pd-0" {
			t.Fatal(c.leaderOf(2))
		}
		must(c.Cluster.Start(Member(1)))
		must(c.Pause(Member(0)))
		must(c.Stop(Member(0)))
		if c.leaderOf(2) != "pd-0" {
			t.Fatal(c.leaderOf(2))
		}
		c.Advance(5 * time.Second)
		if c.leaderOf(2) != "pd-1" {
			t.Fatal(c.leaderOf(2))
		}
	})
}

// A leader that is cut off from the majority serves until its lease ends; who is cut off
// knows no leader, has no regions, and its etcd confirms nothing (PD: pkg/member/member.go;
// server/grpc_service.go, getRaftCluster).
func TestCutOffMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		cut := func(a, b int) {
			t.Helper()
			if err := c.Cut(Member(a), Member(b)); err != nil {
				t.Fatal(err)
			}
		}
		region := func(i int) (*pdpb.GetRegionResponse, error) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "pd-allow-follower-handle", "")
			return c.member(i).GetRegion(ctx, &pdpb.GetRegionRequest{Header: c.header()})
		}
		query := func(i int) *pdpb.QueryRegionResponse {
			t.Helper()
			s, err := c.member(i).QueryRegion(t.Context())
			if err == nil {
				err = s.Send(&pdpb.QueryRegionRequest{Header: c.header(), Keys: [][]byte{{}}})
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		// list asks etcd for the members, confirmed or not.
		list := func(i int, confirmed uint64) error {
			req, resp := serve.Raw(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), confirmed)), serve.Raw(nil)
			return c.conn(c.PD()[i]).Invoke(t.Context(), "/etcdserverpb.Cluster/MemberList", &req, &resp)
		}
		cut(1, 0)
		if c.leaderOf(0) != "pd-0" || c.leaderOf(2) != "pd-0" || c.leaderOf(1) != "" {
			t.Fatal(c.leaderOf(0), c.leaderOf(2), c.leaderOf(1))
		}
		if r, err := region(1); err != nil || r.Header.GetError().GetType() != pdpb.ErrorType_REGION_NOT_FOUND {
			t.Fatal(r, err)
		}
		if r := query(1); r.Header.GetError().GetType() != pdpb.ErrorType_REGION_NOT_FOUND {
			t.Fatal(r)
		}
		if r, err := region(2); err != nil || r.Region == nil || query(2).KeyIdMap[0] != r.Region.Id {
			t.Fatal(r, err)
		}
		refused(t, func() error {
			_, err := c.member(1).GetStore(via(t.Context(), "http://"+c.PD()[0]), &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
			return err
		}(), codes.Unavailable, "not leader")
		cut(0, 2)
		// The lease runs: nobody else leads, and it still serves.
		if r, err := region(0); err != nil || r.Region == nil || c.leaderOf(0) != "pd-0" {
			t.Fatal(r, err)
		}
		<-time.After(5 * time.Second)
		if c.leaderOf(0) != "" || c.leaderOf(1) != "pd-1" || c.leaderOf(2) != "pd-1" {
			t.Fatal(c.leaderOf(0), c.leaderOf(1), c.leaderOf(2))
		}
		_, err := c.member(0).GetRegion(t.Context(), &pdpb.GetRegionRequest{Header: c.header()})
		refused(t, err, codes.Unavailable, "not leader")
		if err := list(0, 0); err != nil {
			t.Fatal(err)
		}
		if err := list(1, 1); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		refused(t, list(0, 1), codes.Unavailable, "etcdserver: request timed out")
		if took := time.Since(began); took != 11*time.Second {
			t.Fatal(took)
		}
		time.AfterFunc(time.Second, c.Heal)
		if err := list(0, 1); err != nil || c.leaderOf(0) != "pd-1" {
			t.Fatal(err, c.leaderOf(0))
		}
	})
}

// Who waits for a timestamp of a member that gives its lead up meanwhile gets none of it
// (PD: pkg/tso/tso.go, getTS, looks after the leadership before it answers).
func TestStalledTimestampOfAnotherLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		s, err := c.member(0).Tso(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.StallTSO(true)
		if err := s.Send(&pdpb.TsoRequest{Header: c.header(), Count: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		c.StallTSO(false)
		_, err = s.Recv()
		refused(t, err, codes.Unknown, "[PD:tso:ErrGenerateTimestamp]generate timestamp failed, requested is not leader anymore")
	})
}

// Whose deadline ends before the stall hears of the deadline, and not that PD is away, should
// PD be the first to see it.
func TestStalledTimestampTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.StallTSO(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.pd.Members()[0].GetMinTS(ctx, new(pdpb.GetMinTSRequest))
		refused(t, err, codes.DeadlineExceeded, "deadline")
	})
}

// Timestamps grow over every change of the leader, however it comes about, and over a
// restart of the cluster; a new leader begins behind all that were saved for the last one
// (PD: pkg/tso/tso.go, syncTimestamp).
func TestTimestampsOverLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := start(t, WithMembers(3), WithDir(dir, false))
		last := uint64(0)
		next := func(what string) {
			t.Helper()
			for i := range 3 {
				s, err := c.member(i).Tso(t.Context())
				if err != nil {
					continue
				}
				if err := s.Send(&pdpb.TsoRequest{Header: c.header(), Count: 3}); err != nil {
					continue
				}
				resp, err := s.Recv()
				if err != nil {
					continue
				}
				ts := uint64(resp.Timestamp.Physical)<<18 | uint64(resp.Timestamp.Logical)
				if ts-2 <= last {
					t.Fatalf("%s: %d after %d", what, ts, last)
				}
				last = ts
				return
			}
			t.Fatal("nobody gives timestamps:", what)
		}
		next("the first")
		for i, step := range []struct {
			name string
			do   func() error
		}{
			{"transferred", func() error { return c.TransferPD(1) }},
			{"back", func() error { return c.TransferPD(0) }},
			{"stopped", func() error { return c.Stop(Member(0)) }},
			{"started", func() error {
				defer func() { <-time.After(5 * time.Second) }() // until it is connected again
				return c.Cluster.Start(Member(0))
			}},
			{"cut off", func() error {
				c.Advance(10 * time.Second)
				if err := c.Cut(Member(1), Member(0)); err != nil {
					return err
				}
				err := c.Cut(Member(1), Member(2))
				c.Advance(5 * time.Second)
				return err
			}},
			{"healed, the clock back", func() error {
				c.Heal()
				c.Advance(-time.Hour)
				return c.TransferPD(2)
			}},
			{"jumped", func() error {
				c.JumpTSO(time.Hour)
				return c.TransferPD(1)
			}},
		} {
			if err := step.do(); err != nil {
				t.Fatal(i, step.name, err)
			}
			next(step.name)
			next(step.name + ", again")
		}
		for addr, cc := range c.conns {
			_ = cc.Close()
			delete(c.conns, addr)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = start(t, WithDir(dir, false))
		next("restarted")
		// The new leader is ahead of the clock by what was saved, up to five seconds.
		c.Advance(2 * time.Hour)
		next("caught up")
		if ahead := int64(last>>18) - c.Now().UnixMilli(); ahead != 0 {
			t.Fatal(ahead)
		}
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		next("ahead")
		if ahead := int64(last>>18) - c.Now().UnixMilli(); ahead != 5001 {
			t.Fatal(ahead)
		}
	})
}
