package playground

import (
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *testCluster) metaStorage(member int) meta_storagepb.MetaStorageClient {
	return meta_storagepb.NewMetaStorageClient(c.conn(c.PD()[member]))
}

// Keys of the meta storage have etcd's revisions; its answers have what PD passes on of
// etcd's (PD: pkg/mcs/metastorage/server/grpc_service.go).
func TestMetaStorageKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		m := c.metaStorage(0)
		first := int64(0)
		for i, kv := range [][2]string{{"k/a", "1"}, {"k/b", "2"}, {"k/a", "3"}} {
			r, err := m.Put(t.Context(), &meta_storagepb.PutRequest{Key: []byte(kv[0]), Value: []byte(kv[1]), PrevKv: true})
			if err != nil || (r.PrevKv != nil) != (i == 2) || r.Header.ClusterId != c.ID() {
				t.Fatal(r, err)
			}
			if first == 0 {
				first = r.Header.Revision
			}
			if r.Header.Revision != first+int64(i) {
				t.Error(r.Header.Revision)
			}
		}
		for _, test := range []struct {
			req  meta_storagepb.GetRequest
			want string
			more bool
			err  string
		}{
			{req: meta_storagepb.GetRequest{Key: []byte("k/a")}, want: "3"},
			{req: meta_storagepb.GetRequest{Key: []byte("k/"), RangeEnd: []byte("k0")}, want: "32"},
			{req: meta_storagepb.GetRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), Limit: 1}, want: "3", more: true},
			{req: meta_storagepb.GetRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), Revision: first}, want: "1"},
			{req: meta_storagepb.GetRequest{Key: []byte("x")}},
			{req: meta_storagepb.GetRequest{}, err: "etcdserver: key is not provided"},
			{req: meta_storagepb.GetRequest{Key: []byte("x"), Revision: 99}, err: "etcdserver: mvcc: required revision is a future revision"},
		} {
			r, err := m.Get(t.Context(), &test.req)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, kv := range r.Kvs {
				got += string(kv.Value)
			}
			if got != test.want || r.More != test.more || r.Header.GetError().GetMessage() != test.err {
				t.Errorf("%v: %v", test.req, r)
			}
		}
		if r, err := m.Put(t.Context(), &meta_storagepb.PutRequest{Key: []byte("k"), Lease: 5}); err != nil ||
			r.Header.GetError().GetMessage() != "etcdserver: requested lease not found" {
			t.Error(r, err)
		}
		// PD deletes the key alone, whatever the range.
		if r, err := m.Delete(t.Context(), &meta_storagepb.DeleteRequest{Key: []byte("k/a"), RangeEnd: []byte("k0"), PrevKv: true}); err != nil ||
			len(r.PrevKvs) != 1 || string(r.PrevKvs[0].Value) != "3" {
			t.Error(r, err)
		}
		if r, err := m.Get(t.Context(), &meta_storagepb.GetRequest{Key: []byte("k/"), RangeEnd: []byte("k0")}); err != nil || r.Count != 1 {
			t.Error(r, err)
		}
		if _, err := c.metaStorage(1).Get(t.Context(), &meta_storagepb.GetRequest{Key: []byte("k")}); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

// A watch begins with the changes since a revision, and reports deletions with what was
// there; changes that are gone end it.
func TestMetaStorageWatch(t *testing.T) {
	dir := t.TempDir()
	c := start(t, WithDir(dir, false))
	put := func(key, value string) int64 {
		t.Helper()
		r, err := c.metaStorage(0).Put(t.Context(), &meta_storagepb.PutRequest{Key: []byte(key), Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	at := put("w/a", "1")
	put("x", "1")
	put("w/b", "2")
	watch := func(from int64) meta_storagepb.MetaStorage_WatchClient {
		t.Helper()
		w, err := c.metaStorage(0).Watch(t.Context(), &meta_storagepb.WatchRequest{
			Key: []byte("w/"), RangeEnd: []byte("w0"), StartRevision: from, PrevKv: true})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := watch(at)
	if r, err := w.Recv(); err != nil || len(r.Events) != 2 || r.Header.Revision != at+2 ||
		string(r.Events[1].Kv.Value) != "2" || r.Events[1].Kv.ModRevision != at+2 || r.Events[1].Kv.Version != 1 {
		t.Fatal(r, err)
	}
	if _, err := c.metaStorage(0).Delete(t.Context(), &meta_storagepb.DeleteRequest{Key: []byte("w/a")}); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || len(r.Events) != 1 || r.Events[0].Type != meta_storagepb.Event_DELETE ||
		string(r.Events[0].PrevKv.GetValue()) != "1" || r.Events[0].Kv.ModRevision != at+3 {
		t.Fatal(r, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err == nil {
		t.Fatal("the watch goes on")
	}
	c = start(t, WithDir(dir, false))
	w = watch(at)
	r, err := w.Recv()
	if err != nil || r.Header.GetError().GetType() != meta_storagepb.ErrorType_DATA_COMPACTED || r.CompactRevision != at+4 {
		t.Fatal(r, err)
	}
	if _, err := w.Recv(); status.Code(err) != codes.Unknown {
		t.Fatal(err)
	}
	if again := put("w/c", "3"); again != at+5 {
		t.Fatal("revisions go back:", again)
	}
}
