package pdserver

import (
	"fmt"

	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// etcdView is what PD's etcd shows to those who ask it instead of PD.
type etcdView struct{ m *Member }

func (v *etcdView) ClusterID() uint64 { return v.m.pd.ClusterID }
func (v *etcdView) MemberID() uint64  { return v.m.id() }
func (v *etcdView) KV() *etcd.KV      { return v.m.pd.kv }

func (v *etcdView) Quorum() (bool, <-chan struct{}) { return v.m.quorum() }

func (v *etcdView) Members() []etcd.Member {
	var all []etcd.Member
	for _, m := range v.m.pd.Members() {
		p := m.proto()
		all = append(all, etcd.Member{ID: p.MemberId, Name: p.Name, PeerURLs: p.PeerUrls, ClientURLs: p.ClientUrls})
	}
	return all
}

// keyspacePath is where what TiDB keeps under path is for a keyspace that manages its GC
// by itself (PD: pkg/utils/keypath/absolute_key_path.go).
func keyspacePath(id uint32, path string) string {
	if id == NullKeyspace {
		return path
	}
	return fmt.Sprintf("/keyspaces/tidb/%d%s", id, path)
}

// txnSafePointKey is where PD keeps a scope's txn safe point in etcd, and where clients
// look for it; minStartPrefix is where old TiDB servers tell of their oldest transaction.
func txnSafePointKey(id uint32) string {
	return keyspacePath(id, "/tidb/store/gcworker/saved_safe_point")
}
func minStartPrefix(id uint32) string { return keyspacePath(id, "/tidb/server/minstartts/") }
