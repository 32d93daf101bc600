package interop

import (
	"strings"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/pd/client/clients/router"
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

// at is the store that leads the region of a wire key now, and the context of a request
// there.
func (e *env) at(wire []byte) (tikvpb.TikvClient, *kvrpcpb.Context) {
	e.Helper()
	r := e.locate(wire)
	return tikvpb.NewTikvClient(e.dial(e.addr(r.Leader.StoreId))), &kvrpcpb.Context{
		RegionId: r.Meta.Id, RegionEpoch: r.Meta.RegionEpoch, Peer: r.Leader, ApiVersion: e.codec().GetAPIVersion(),
	}
}

// locate asks PD for the region of a wire key.
func (e *env) locate(wire []byte) *router.Region {
	e.Helper()
	r, err := e.txn.GetPDClient().GetRegion(e.ctx(), []byte(strings.TrimPrefix(string(wire), string(e.space()))))
	if err != nil || r == nil || r.Leader == nil {
		e.Fatal(r, err)
	}
	return r
}

func (e *env) addr(store uint64) string {
	e.Helper()
	s, err := e.txn.GetPDClient().GetStore(e.ctx(), store)
	e.must(err)
	return s.Address
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
