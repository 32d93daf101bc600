package pdserver

import (
	"context"
	"strconv"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"

	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// txnSafePointKey is where PD keeps the null keyspace's txn safe point in etcd, and
// where clients look for it (PD: pkg/utils/keypath).
const txnSafePointKey = "/tidb/store/gcworker/saved_safe_point"

// etcdView is what PD's etcd shows to those who ask it instead of PD.
type etcdView struct{ m *Member }

func (v *etcdView) ClusterID() uint64 { return v.m.pd.ClusterID }
func (v *etcdView) MemberID() uint64  { return v.m.id() }

func (v *etcdView) Members() []etcd.Member {
	var all []etcd.Member
	for _, m := range v.m.pd.Members() {
		p := m.proto()
		all = append(all, etcd.Member{ID: p.MemberId, Name: p.Name, PeerURLs: p.PeerUrls, ClientURLs: p.ClientUrls})
	}
	return all
}

// Range has one key, the saved safe point, once there is one.
func (v *etcdView) Range(start, end []byte) []etcd.KeyValue {
	key := []byte(txnSafePointKey)
	scope, _ := v.m.pd.gc.state(NullKeyspace)
	if scope.Txn == 0 || !etcd.InRange(key, start, end) {
		return nil
	}
	return []etcd.KeyValue{{Key: key, Value: strconv.AppendUint(nil, scope.Txn, 10)}}
}

// metaStorage is the part of PD's meta storage service that clients use: they look for
// the addresses of services that may be deployed beside PD. There are none.
type metaStorage struct {
	meta_storagepb.UnimplementedMetaStorageServer
	m *Member
}

func (s *metaStorage) header() *meta_storagepb.ResponseHeader {
	return &meta_storagepb.ResponseHeader{ClusterId: s.m.pd.ClusterID, Revision: etcd.Revision}
}

// Get reads the same keys as etcd's Range.
func (s *metaStorage) Get(_ context.Context, req *meta_storagepb.GetRequest) (*meta_storagepb.GetResponse, error) {
	resp := &meta_storagepb.GetResponse{Header: s.header()}
	for _, kv := range (&etcdView{s.m}).Range(req.GetKey(), req.GetRangeEnd()) {
		resp.Kvs = append(resp.Kvs, &meta_storagepb.KeyValue{Key: kv.Key, Value: kv.Value, CreateRevision: etcd.Revision, ModRevision: etcd.Revision, Version: 1})
	}
	resp.Count = int64(len(resp.Kvs))
	return resp, nil
}

// Watch reports nothing, until its caller or the server ends: no such service comes.
func (s *metaStorage) Watch(_ *meta_storagepb.WatchRequest, stream meta_storagepb.MetaStorage_WatchServer) error {
	ctx := stream.Context()
	select {
	case <-ctx.Done():
	case <-s.m.life(ctx).Done():
	}
	return nil
}
