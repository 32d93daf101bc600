package interop

import (
	"strings"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Calls of kvproto as they are, for what the official client cannot be asked, or asks
// wrongly: its V2 codec encodes the key of MvccGetByKey twice.

// dial connects to an address until the case ends.
func (e *env) dial(addr string) *grpc.ClientConn {
	e.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	e.must(err)
	e.Cleanup(func() { conn.Close() })
	return conn
}

// at is the store that leads the region of a wire key, and the context of a request there.
func (e *env) at(wire []byte) (tikvpb.TikvClient, *kvrpcpb.Context) {
	e.Helper()
	rpc := e.locate(wire)
	return tikvpb.NewTikvClient(e.dial(rpc.Addr)), &kvrpcpb.Context{
		RegionId: rpc.Region.GetID(), RegionEpoch: rpc.Meta.RegionEpoch, Peer: rpc.Peer, ApiVersion: e.codec().GetAPIVersion(),
	}
}

func (e *env) locate(wire []byte) *tikv.RPCContext {
	e.Helper()
	bo := tikv.NewBackoffer(e.ctx(), 20_000)
	loc, err := e.txn.GetRegionCache().LocateKey(bo, []byte(strings.TrimPrefix(string(wire), string(e.space()))))
	e.must(err)
	rpc, err := e.txn.GetRegionCache().GetTiKVRPCContext(bo, loc.Region, kv.ReplicaReadLeader, 0)
	if err != nil || rpc == nil {
		e.Fatal(rpc, err)
	}
	return rpc
}

// space is what wire keys begin with.
func (e *env) space() []byte { return e.codec().GetKeyspace() }

func (e *env) codec() tikv.Codec {
	e.Helper()
	client, ok := e.txn.GetPDClient().(*tikv.CodecPDClient)
	if !ok {
		e.Fatalf("the PD client is a %T", e.txn.GetPDClient())
	}
	return client.GetCodec()
}

// wire is one of the case's keys as requests carry it.
func (e *env) wire(k string) []byte { return append(append([]byte(nil), e.space()...), e.key(k)...) }

// info is what the cluster has of a key.
func (e *env) info(key string) *kvrpcpb.MvccInfo {
	e.Helper()
	store, at := e.at(e.wire(key))
	resp, err := store.MvccGetByKey(e.ctx(), &kvrpcpb.MvccGetByKeyRequest{Context: at, Key: e.wire(key)})
	if err != nil || resp.RegionError != nil || resp.Error != "" {
		e.Fatal(resp, err)
	}
	return resp.Info
}

// history is that in words: the lock, then the records, the newest first, as "Lock:Put",
// "Put", "Rollback", ….
func (e *env) history(key string) string {
	e.Helper()
	var all []string
	info := e.info(key)
	if l := info.GetLock(); l != nil {
		all = append(all, "Lock:"+l.Type.String())
	}
	for _, w := range info.GetWrites() {
		all = append(all, w.Type.String())
	}
	return strings.Join(all, " ")
}
