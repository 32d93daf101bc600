package playground

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/routerpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc/codes"
)

func (c *testCluster) tso(i int) tsopb.TSOClient { return tsopb.NewTSOClient(c.conn(c.PD()[i])) }

func (c *testCluster) tsoHeader() *tsopb.RequestHeader {
	return &tsopb.RequestHeader{ClusterId: c.ID(), Keyspace: &tsopb.RequestHeader_KeyspaceId{KeyspaceId: 0}}
}

// oneTSO asks a member's service for timestamps on a stream of their own.
func (c *testCluster) oneTSO(i int, req *tsopb.TsoRequest) (*tsopb.TsoResponse, error) {
	c.t.Helper()
	s, err := c.tso(i).Tso(c.t.Context())
	if err == nil {
		err = s.Send(req)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Recv()
}

// Where services give out timestamps, PD says so, and where (PD: server/grpc_service.go,
// GetClusterInfo; pkg/mcs/tso/server/grpc_service.go).
func TestTimestampService(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3), WithPDServices(), WithAPIVersion(APIV2), WithKeyspaces("ks"))...)
		var urls []string
		for _, addr := range c.PD() {
			urls = append(urls, "http://"+addr)
		}
		info, err := c.member(2).GetClusterInfo(t.Context(), &pdpb.GetClusterInfoRequest{})
		if err != nil || !slices.Equal(info.ServiceModes, []pdpb.ServiceMode{pdpb.ServiceMode_API_SVC_MODE}) || !slices.Equal(info.TsoUrls, urls) {
			t.Fatal(info, err)
		}
		for _, keyspace := range []uint32{0, 1, 12345, 0xffffffff} {
			found, err := c.tso(1).FindGroupByKeyspaceID(t.Context(), &tsopb.FindGroupByKeyspaceIDRequest{
				Header: c.tsoHeader(), Keyspace: &tsopb.FindGroupByKeyspaceIDRequest_KeyspaceId{KeyspaceId: keyspace}})
			if err != nil || found.Header.Error != nil || found.KeyspaceGroup.Id != 0 || len(found.KeyspaceGroup.Members) != 3 || found.ModRevision != 1 {
				t.Fatal(found, err)
			}
			for i, m := range found.KeyspaceGroup.Members {
				if m.Address != urls[i] || m.IsPrimary != (i == 0) {
					t.Fatal(found)
				}
			}
		}
		last := uint64(0)
		for i := range 5 {
			resp, err := c.oneTSO(0, &tsopb.TsoRequest{Header: c.tsoHeader(), Count: uint32(1 + 1000*i)})
			if err != nil || resp.Count != uint32(1+1000*i) || resp.Header.ClusterId != c.ID() || resp.Header.KeyspaceGroupId != 0 {
				t.Fatal(resp, err)
			}
			ts := uint64(resp.Timestamp.Physical)<<18 | uint64(resp.Timestamp.Logical)
			if ts-uint64(resp.Count) < last {
				t.Fatal(ts, "after", last)
			}
			last = ts
		}
		for _, test := range []struct {
			name   string
			member int
			change func(*tsopb.TsoRequest)
			code   codes.Code
			text   string
		}{
			{"foreign", 0, func(q *tsopb.TsoRequest) { q.Header.ClusterId = 7 }, codes.FailedPrecondition, "mismatch cluster id"},
			{"for another server", 0, func(q *tsopb.TsoRequest) { q.Header.CalleeId = c.PD()[1] }, codes.FailedPrecondition,
				"mismatch callee id, need " + urls[0] + " but got " + c.PD()[1]},
			{"for this server", 0, func(q *tsopb.TsoRequest) { q.Header.CalleeId = c.PD()[0] }, codes.OK, ""},
			{"not the primary", 1, func(*tsopb.TsoRequest) {}, codes.Unknown, "is not leader"},
			{"of another group, as it thinks", 0, func(q *tsopb.TsoRequest) {
				q.Header.KeyspaceGroupId, q.Header.Keyspace = 3, &tsopb.RequestHeader_KeyspaceId{KeyspaceId: 1}
			}, codes.OK, ""},
			{"unknown, of another group", 0, func(q *tsopb.TsoRequest) {
				q.Header.KeyspaceGroupId, q.Header.Keyspace = 3, &tsopb.RequestHeader_KeyspaceId{KeyspaceId: 12345}
			}, codes.Unknown, "the keyspace 12345 isn't assigned to any keyspace group"},
			{"unknown, of the default group", 0, func(q *tsopb.TsoRequest) {
				q.Header.Keyspace = &tsopb.RequestHeader_KeyspaceId{KeyspaceId: 12345}
			}, codes.OK, ""},
			{"no such group", 0, func(q *tsopb.TsoRequest) { q.Header.KeyspaceGroupId = 4096 }, codes.Unknown, "4096 shouldn't >= 4096"},
			{"none at all", 0, func(q *tsopb.TsoRequest) { q.Count = 0 }, codes.Unknown, "tso count should be positive"},
		} {
			req := &tsopb.TsoRequest{Header: c.tsoHeader(), Count: 1}
			test.change(req)
			resp, err := c.oneTSO(test.member, req)
			if test.code == codes.OK {
				if err != nil || resp.Header.KeyspaceGroupId != 0 || resp.Timestamp.GetPhysical() == 0 {
					t.Errorf("%s: %v %v", test.name, resp, err)
				}
				continue
			}
			t.Log(test.name)
			refused(t, err, test.code, test.text)
		}
	})
}

func TestTimestampServiceRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3), WithPDServices())
		for name, test := range map[string]struct {
			change   func(*tsopb.RequestHeader)
			revision uint64
			kind     tsopb.ErrorType
			text     string
		}{
			"foreign":     {func(h *tsopb.RequestHeader) { h.ClusterId = 7 }, 0, tsopb.ErrorType_CLUSTER_MISMATCHED, "mismatch cluster id"},
			"misdirected": {func(h *tsopb.RequestHeader) { h.CalleeId = "elsewhere:1" }, 0, tsopb.ErrorType_INVALID_VALUE, "mismatch callee id"},
			"ahead":       {func(*tsopb.RequestHeader) {}, 2, tsopb.ErrorType_INVALID_VALUE, "keyspace group mod revision is stale"},
		} {
			h := c.tsoHeader()
			test.change(h)
			found, err := c.tso(0).FindGroupByKeyspaceID(t.Context(), &tsopb.FindGroupByKeyspaceIDRequest{Header: h, ModRevision: test.revision})
			if e := found.GetHeader().GetError(); err != nil || e.GetType() != test.kind || !strings.Contains(e.GetMessage(), test.text) {
				t.Error(name, found, err)
			}
			if test.revision > 0 {
				continue
			}
			least, err := c.tso(0).GetMinTS(t.Context(), &tsopb.GetMinTSRequest{Header: h})
			if e := least.GetHeader().GetError(); err != nil || e.GetType() != test.kind || !strings.Contains(e.GetMessage(), test.text) {
				t.Error(name, least, err)
			}
		}
		// The primary has a timestamp for its group, the others none; PD asks them all.
		for i := range 3 {
			r, err := c.tso(i).GetMinTS(t.Context(), &tsopb.GetMinTSRequest{Header: c.tsoHeader()})
			if err != nil || r.KeyspaceGroupsTotal != 1 || (r.KeyspaceGroupsServing == 1) != (i == 0) || (r.Timestamp.Physical > 0) != (i == 0) {
				t.Fatal(i, r, err)
			}
		}
		if r, err := c.pdc().GetMinTS(t.Context(), &pdpb.GetMinTSRequest{Header: c.header()}); err != nil || r.Timestamp.GetPhysical() == 0 {
			t.Fatal(r, err)
		}
		for _, m := range []int{0, 1} {
			if err := c.Stop(Member(m)); err != nil {
				t.Fatal(err)
			}
		}
		c.Advance(5 * time.Second)
		r, err := c.tso(2).GetMinTS(t.Context(), &tsopb.GetMinTSRequest{Header: c.tsoHeader()})
		if err != nil || !strings.Contains(r.Header.GetError().GetMessage(), "primary is not elected") {
			t.Fatal(r, err)
		}
		// PD's own stream of timestamps tries the last one it knew.
		s, err := c.member(2).Tso(t.Context())
		if err == nil {
			err = s.Send(&pdpb.TsoRequest{Header: c.header(), Count: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		refused(t, err, codes.Unavailable, "dial tcp "+c.PD()[1])
	})
}

// Any member of PD passes streams of timestamps on to the service, whoever leads (PD:
// server/forward.go, forwardToTSOService).
func TestTimestampsFromTheServiceThroughPD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3), WithPDServices())
		var streams []pdpb.PD_TsoClient
		for i := range 3 {
			s, err := c.member(i).Tso(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		last := uint64(0)
		for i := range 12 {
			if i == 6 { // a stream follows the primary
				if err := c.TransferPD(2); err != nil {
					t.Fatal(err)
				}
			}
			first, l := tsoAsk(t, c, streams[i%3], 10)
			if first <= last {
				t.Fatal(first, "after", last)
			}
			last = l
		}
		for _, test := range []struct {
			id    uint64
			count uint32
			code  codes.Code
			text  string
		}{{7, 1, codes.FailedPrecondition, "mismatch cluster id"}, {7, 0, codes.Unknown, "tso count should be positive"}} {
			for i := range 3 {
				s, err := c.member(i).Tso(t.Context())
				if err == nil {
					err = s.Send(&pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: test.id}, Count: test.count})
				}
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Recv()
				refused(t, err, test.code, test.text)
			}
		}
	})
}

// Routers answer for PD, whoever leads (PD: pkg/mcs/router/server/grpc_service.go).
func TestRouters(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3), WithPDServices(), WithSplitKeys(KeyRaw, []byte("b"), []byte("d")))...)
		for i := range 3 {
			r := routerpb.NewRouterClient(c.conn(c.PD()[i]))
			var regions []uint64
			for _, one := range c.Regions(KeyRaw) {
				regions = append(regions, one.ID)
			}
			one, err := r.GetRegion(t.Context(), &pdpb.GetRegionRequest{RegionKey: []byte("c")})
			if err != nil || one.Region.GetId() != regions[1] || one.Leader == nil {
				t.Fatal(one, err)
			}
			if one, err = r.GetPrevRegion(t.Context(), &pdpb.GetRegionRequest{RegionKey: []byte("c")}); err != nil || one.Region.GetId() != regions[0] {
				t.Fatal(one, err)
			}
			if one, err = r.GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{RegionId: regions[2]}); err != nil || one.Region.GetId() != regions[2] {
				t.Fatal(one, err)
			}
			if one, err = r.GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{RegionId: 4711}); err != nil || one.Region != nil || one.Header.Error != nil {
				t.Fatal(one, err)
			}
			scan, err := r.BatchScanRegions(t.Context(), &pdpb.BatchScanRegionsRequest{Ranges: []*pdpb.KeyRange{{}}})
			if err != nil || len(scan.Regions) != 3 {
				t.Fatal(scan, err)
			}
			if scan, err = r.BatchScanRegions(t.Context(), &pdpb.BatchScanRegionsRequest{}); err != nil || len(scan.Regions) != 0 || scan.Header.Error != nil {
				t.Fatal(scan, err)
			}
			store, err := r.GetStore(t.Context(), &pdpb.GetStoreRequest{StoreId: 2})
			if err != nil || store.Store.GetId() != 2 {
				t.Fatal(store, err)
			}
			all, err := r.GetAllStores(t.Context(), &pdpb.GetAllStoresRequest{})
			if err != nil || len(all.Stores) != 3 {
				t.Fatal(all, err)
			}
			for _, id := range []uint64{c.ID(), 7} {
				q, err := r.QueryRegion(t.Context())
				if err == nil {
					err = q.Send(&pdpb.QueryRegionRequest{Header: &pdpb.RequestHeader{ClusterId: id}, Keys: [][]byte{[]byte("c")}, PrevKeys: [][]byte{[]byte("c")}, Ids: []uint64{4711}})
				}
				if err != nil {
					t.Fatal(err)
				}
				resp, err := q.Recv()
				if id == 7 {
					refused(t, err, codes.FailedPrecondition, "mismatch cluster id")
					continue
				}
				if err != nil || !slices.Equal(resp.KeyIdMap, regions[1:2]) || !slices.Equal(resp.PrevKeyIdMap, regions[:1]) || len(resp.RegionsById) != 3 {
					t.Fatal(resp, err)
				}
			}
		}
	})
}

// Services are found in PD's etcd while they run (PD: pkg/mcs/discovery; client/
// servicediscovery/router_service_discovery.go).
func TestServicesAreRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := start(t, WithMembers(3), WithPDServices(), WithDir(dir, false))
		find := func(service string) (addrs []string) {
			t.Helper()
			prefix := fmt.Sprintf("/ms/%d/%s/registry/", c.ID(), service)
			resp, err := meta_storagepb.NewMetaStorageClient(c.conn(c.PD()[0])).Get(t.Context(), &meta_storagepb.GetRequest{
				Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0")})
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range resp.Kvs {
				var entry struct {
					Addr string `json:"service-addr"`
				}
				if err := json.Unmarshal(kv.Value, &entry); err != nil || string(kv.Key) != prefix+entry.Addr {
					t.Fatal(kv, err)
				}
				addrs = append(addrs, strings.TrimPrefix(entry.Addr, "http://"))
			}
			return addrs
		}
		for _, service := range []string{"tso", "router"} {
			if got := find(service); !slices.Equal(got, c.PD()) {
				t.Fatal(got)
			}
		}
		if err := c.Stop(Member(1)); err != nil {
			t.Fatal(err)
		}
		if got := find("router"); !slices.Equal(got, []string{c.PD()[0], c.PD()[2]}) {
			t.Fatal(got)
		}
		if err := c.Cluster.Start(Member(1)); err != nil {
			t.Fatal(err)
		}
		if got := find("router"); len(got) != 3 {
			t.Fatal(got)
		}
		for addr, cc := range c.conns {
			_ = cc.Close()
			delete(c.conns, addr)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		// Without the option there are none, whatever ran in the directory before.
		c = start(t, WithDir(dir, false))
		if got := find("router"); len(got) != 0 {
			t.Fatal(got)
		}
		refused(t, func() error {
			_, err := routerpb.NewRouterClient(c.conn(c.PD()[0])).GetRegion(t.Context(), &pdpb.GetRegionRequest{})
			return err
		}(), codes.Unimplemented, "")
	})
}
