package playground

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
)

// PD: server/grpc_service.go, GetClusterConfig and PutClusterConfig; server/cluster/
// cluster.go, PutMetaCluster.
func TestClusterConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := start(t, WithDir(dir, false))
		get := func() *metapb.Cluster {
			t.Helper()
			resp, err := c.pdc().GetClusterConfig(t.Context(), &pdpb.GetClusterConfigRequest{Header: c.header()})
			if err != nil || resp.Header.Error != nil {
				t.Fatal(resp, err)
			}
			return resp.Cluster
		}
		if g := get(); g.Id != c.ID() || g.MaxPeerCount != 3 {
			t.Fatal(g)
		}
		for id, text := range map[uint64]string{7: "mismatch cluster id", c.ID(): ""} {
			resp, err := c.pdc().PutClusterConfig(t.Context(), &pdpb.PutClusterConfigRequest{Header: c.header(), Cluster: &metapb.Cluster{Id: id, MaxPeerCount: 5}})
			if err != nil || (resp.Header.Error != nil) != (text != "") {
				t.Fatal(resp, err)
			}
			if text != "" && resp.Header.Error.Type != pdpb.ErrorType_UNKNOWN {
				t.Fatal(resp)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = start(t, WithDir(dir, false))
		if g := get(); g.Id != c.ID() || g.MaxPeerCount != 5 {
			t.Fatal(g)
		}
	})
}

// The external timestamp grows, up to the present one (PD: server/server.go,
// SetExternalTS).
func TestExternalTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		get := func(i int) (uint64, error) {
			resp, err := c.member(i).GetExternalTimestamp(t.Context(), &pdpb.GetExternalTimestampRequest{Header: c.header()})
			return resp.GetTimestamp(), err
		}
		if ts, err := get(0); err != nil || ts != 0 {
			t.Fatal(ts, err)
		}
		now := c.timestamp()
		for _, test := range []struct {
			ts   uint64
			text string
		}{
			{now + 1<<18, "should not be larger than global ts"},
			{0, "should be larger than current external timestamp"},
			{now - 10, ""},
			{now - 10, "should be larger than current external timestamp"},
			{now - 11, "should be larger than current external timestamp"},
			{now, ""},
		} {
			resp, err := c.pdc().SetExternalTimestamp(t.Context(), &pdpb.SetExternalTimestampRequest{Header: c.header(), Timestamp: test.ts})
			e := resp.GetHeader().GetError()
			if err != nil || (e != nil) != (test.text != "") {
				t.Fatal(test, resp, err)
			}
			if e != nil && (e.Type != pdpb.ErrorType_INVALID_VALUE || e.Message != "the external timestamp "+test.text) {
				t.Error(test, e)
			}
		}
		_, err := get(1)
		refused(t, err, codes.Unavailable, "not leader")
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		if ts, err := get(1); err != nil || ts != now {
			t.Fatal(ts, err)
		}
	})
}

// Whether a recovery from a snapshot runs is marked in etcd; any member says it (PD:
// server/server.go, IsSnapshotRecovering).
func TestSnapshotRecovering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		marked := func() bool {
			t.Helper()
			resp, err := c.member(2).IsSnapshotRecovering(t.Context(), &pdpb.IsSnapshotRecoveringRequest{})
			if err != nil || resp.Header.ClusterId != c.ID() {
				t.Fatal(resp, err)
			}
			return resp.Marked
		}
		if marked() {
			t.Fatal("a recovery runs")
		}
		store := meta_storagepb.NewMetaStorageClient(c.conn(c.PD()[0]))
		key := []byte("/pd/" + c.describe().ID + "/cluster/markers/snapshot-recovering")
		if _, err := store.Put(t.Context(), &meta_storagepb.PutRequest{Key: key, Value: []byte("on")}); err != nil {
			t.Fatal(err)
		}
		if !marked() {
			t.Fatal("no recovery runs")
		}
	})
}

// The global config: any member serves it, from PD's etcd (PD: server/grpc_service.go).
func TestGlobalConfig(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3))...)
		put := func(name, value, payload string) *pdpb.GlobalConfigItem {
			return &pdpb.GlobalConfigItem{Kind: pdpb.EventType_PUT, Name: name, Value: value, Payload: []byte(payload)}
		}
		del := func(name string) *pdpb.GlobalConfigItem {
			return &pdpb.GlobalConfigItem{Kind: pdpb.EventType_DELETE, Name: name}
		}
		store := func(path string, items ...*pdpb.GlobalConfigItem) error {
			_, err := c.member(1).StoreGlobalConfig(t.Context(), &pdpb.StoreGlobalConfigRequest{ConfigPath: path, Changes: items})
			return err
		}
		load := func(path string, names ...string) *pdpb.LoadGlobalConfigResponse {
			t.Helper()
			resp, err := c.member(2).LoadGlobalConfig(t.Context(), &pdpb.LoadGlobalConfigRequest{ConfigPath: path, Names: names})
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		watch := func(path string, from int64) pdpb.PD_WatchGlobalConfigClient {
			t.Helper()
			w, err := c.member(0).WatchGlobalConfig(t.Context(), &pdpb.WatchGlobalConfigRequest{ConfigPath: path, Revision: from})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		begin := load("").Revision
		// etcd takes no more than 128 operations at once (PD leaves etcd's max-txn-ops).
		dels := make([]*pdpb.GlobalConfigItem, 129)
		for i := range dels {
			dels[i] = del(strconv.Itoa(i))
		}
		refused(t, store("", dels...), codes.Unknown, "etcdserver: too many operations in txn request")
		if err := store("", dels[1:]...); err != nil {
			t.Fatal(err)
		}
		if err := store("", put("a", "", "1"), put("b", "2", "not this"), put("", "", "itself")); err != nil {
			t.Fatal(err)
		}
		if err := store("/global/config/tidb", put("x", "", "3")); err != nil {
			t.Fatal(err)
		}
		texts := func(items []*pdpb.GlobalConfigItem) (all []string) {
			for _, i := range items {
				all = append(all, i.Kind.String()+" "+i.Name+"="+string(i.Payload)+i.Error.GetType().String()+i.Error.GetMessage())
			}
			return all
		}
		same := func(got []*pdpb.GlobalConfigItem, want ...string) {
			t.Helper()
			if !slices.Equal(texts(got), want) {
				t.Fatalf("%q, want %q", texts(got), want)
			}
		}
		same(load("").Items, "PUT /global/config/a=1OK", "PUT /global/config/b=2OK", "PUT /global/config/tidb/x=3OK")
		same(load("", "a", "c", "b", "").Items,
			"PUT a=1OK", "PUT c=GLOBAL_CONFIG_NOT_FOUNDkey c not found", "PUT b=2OK", "PUT =itselfOK")
		same(load("/global/config", "a").Items, "PUT a=1OK")
		same(load("/global/config/tidb", "x").Items, "PUT x=3OK")
		same(load("/global/config/tidb/").Items, "PUT /global/config/tidb/x=3OK")
		if items := load("resource_group/controller").Items; len(items) != 1 || items[0].Name != "resource_group/controller" {
			t.Fatal(items)
		}
		for path, names := range map[string][]string{"/elsewhere": nil, "resource_group/controller": {"x"}} {
			_, err := c.member(0).LoadGlobalConfig(t.Context(), &pdpb.LoadGlobalConfigRequest{ConfigPath: path, Names: names})
			refused(t, err, codes.InvalidArgument, "is not allowed")
		}
		refused(t, store("/elsewhere", put("a", "", "1")), codes.InvalidArgument, "is not allowed")
		refused(t, store("", put("q", "", "1"), put("q", "", "2")), codes.Unknown, "duplicate key")
		refused(t, store("", put("q", "", "1"), del("q")), codes.Unknown, "duplicate key")
		refused(t, store("", del("q"), put("q", "", "1")), codes.Unknown, "duplicate key")
		same(load("", "q").Items, "PUT q=GLOBAL_CONFIG_NOT_FOUNDkey q not found")
		_, err := watch("/elsewhere", 0).Recv()
		refused(t, err, codes.InvalidArgument, "is not allowed")

		w := watch("", begin+1)
		got, err := w.Recv()
		if err != nil || got.Revision != begin+2 {
			t.Fatal(got, err)
		}
		same(got.Changes, "PUT /global/config/a=1OK", "PUT /global/config/b=2OK", "PUT /global/config/tidb/x=3OK")
		if err := store("", put("a", "", "4"), del("b"), del("b"), del("nothing")); err != nil {
			t.Fatal(err)
		}
		if got, err = w.Recv(); err != nil || got.Revision != begin+3 {
			t.Fatal(got, err)
		}
		same(got.Changes, "PUT /global/config/a=4OK", "DELETE /global/config/b=2OK")
		var many []*pdpb.GlobalConfigItem // more than etcd keeps here
		for i := range 10000 {
			many = append(many, put(fmt.Sprint("many-", i), "", ""))
		}
		for some := range slices.Chunk(many, 128) {
			if err := store("", some...); err != nil {
				t.Fatal(err)
			}
		}
		old := watch("", begin+1)
		got, err = old.Recv()
		if err != nil || got.Header.GetError().GetType() != pdpb.ErrorType_DATA_COMPACTED {
			t.Fatal(got, err)
		}
		_, err = old.Recv()
		refused(t, err, codes.Unknown, "compacted")
	})
}

// A watch waits for what comes, and ends with its member.
func TestGlobalConfigWatchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		w, err := c.pdc().WatchGlobalConfig(t.Context(), &pdpb.WatchGlobalConfigRequest{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.AfterFunc(time.Minute, func() {
			_, _ = c.pdc().StoreGlobalConfig(t.Context(), &pdpb.StoreGlobalConfigRequest{Changes: []*pdpb.GlobalConfigItem{{Name: "a", Value: "1"}}})
		})
		began := time.Now()
		got, err := w.Recv()
		if err != nil || len(got.Changes) != 1 || time.Since(began) != time.Minute {
			t.Fatal(got, err, time.Since(began))
		}
		if err := c.Stop(Member(0)); err != nil {
			t.Fatal(err)
		}
		if got, err := w.Recv(); err == nil {
			t.Fatal(got)
		}
	})
}
