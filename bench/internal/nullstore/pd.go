package nullstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
)

const clusterID = 7700000000000000001

// pd answers for PD: one member, its leader, with the timestamps and the safe points.
type pd struct {
	layout
	encoded bool
	url     string

	mu                sync.Mutex
	physical, logical int64

	timestamps, timestampRequests atomic.Uint64
}

func newPD(c Config, stores []string) *pd {
	return &pd{layout: newLayout(c, stores), encoded: c.Encoded}
}

// listensAt says where the member is, before it serves.
func (p *pd) listensAt(addr string) { p.url = "http://" + addr }

func (p *pd) server() *grpc.Server {
	s := grpc.NewServer(serverOptions()...)
	pdpb.RegisterPDServer(s, p)
	// The official client of PD tries for five seconds to reach this service when it starts.
	meta_storagepb.RegisterMetaStorageServer(s, &metaStorage{})
	return s
}

func header() *pdpb.ResponseHeader { return &pdpb.ResponseHeader{ClusterId: clusterID} }

func (p *pd) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	m := &pdpb.Member{Name: "null", MemberId: 1, ClientUrls: []string{p.url}, PeerUrls: []string{p.url}}
	return &pdpb.GetMembersResponse{Header: header(), Members: []*pdpb.Member{m}, Leader: m, EtcdLeader: m}, nil
}

func (p *pd) GetClusterInfo(context.Context, *pdpb.GetClusterInfoRequest) (*pdpb.GetClusterInfoResponse, error) {
	return &pdpb.GetClusterInfoResponse{Header: header(), ServiceModes: []pdpb.ServiceMode{pdpb.ServiceMode_PD_SVC_MODE}}, nil
}

func (p *pd) Tso(stream pdpb.PD_TsoServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil // the client has ended the stream
		}
		p.timestampRequests.Add(1)
		p.timestamps.Add(uint64(req.Count))
		resp := &pdpb.TsoResponse{Header: header(), Count: req.Count, Timestamp: p.allocate(int64(req.Count))}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (p *pd) GetMinTS(context.Context, *pdpb.GetMinTSRequest) (*pdpb.GetMinTSResponse, error) {
	return &pdpb.GetMinTSResponse{Header: header(), Timestamp: p.allocate(1)}, nil
}

// logicalBits are those of a timestamp below its milliseconds.
const logicalBits = 18

// allocate returns the last of n timestamps.
func (p *pd) allocate(n int64) *pdpb.Timestamp {
	now := time.Now().UnixMilli()
	p.mu.Lock()
	defer p.mu.Unlock()
	if now > p.physical {
		p.physical, p.logical = now, 0
	}
	if p.logical += n; p.logical >= 1<<logicalBits {
		p.physical, p.logical = p.physical+1, n
	}
	return &pdpb.Timestamp{Physical: p.physical, Logical: p.logical}
}

func (p *pd) GetGCState(_ context.Context, q *pdpb.GetGCStateRequest) (*pdpb.GetGCStateResponse, error) {
	return &pdpb.GetGCStateResponse{Header: header(), GcState: &pdpb.GCState{KeyspaceScope: q.KeyspaceScope, TxnSafePoint: 1, GcSafePoint: 1}}, nil
}

func (p *pd) GetGCSafePoint(context.Context, *pdpb.GetGCSafePointRequest) (*pdpb.GetGCSafePointResponse, error) {
	return &pdpb.GetGCSafePointResponse{Header: header(), SafePoint: 1}, nil
}

type metaStorage struct {
	meta_storagepb.UnimplementedMetaStorageServer
}

func (*metaStorage) Get(context.Context, *meta_storagepb.GetRequest) (*meta_storagepb.GetResponse, error) {
	return &meta_storagepb.GetResponse{Header: &meta_storagepb.ResponseHeader{ClusterId: clusterID}}, nil
}
