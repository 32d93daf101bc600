package pdserver

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/tso"
)

// Tso answers each message of the stream with a range of timestamps, in order. With a
// forwarded host the first message must name the leader by it; all then go there.
func (m *Member) Tso(stream pdpb.PD_TsoServer) error {
	var to *Member
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		err = m.reply(stream, "Tso", req, func() (any, error) {
			if m.pd.Services {
				return m.fromService(stream.Context(), req)
			}
			if to == nil {
				if to, err = m.target(stream.Context()); err != nil {
					return nil, err
				}
			}
			if to != m {
				return m.proxyTimestamps(stream.Context(), to, req)
			}
			return m.timestamps(stream.Context(), req)
		})
		if err != nil {
			return err
		}
	}
}

// timestamps answers one request. A member that does not lead says so in words by which
// clients know (PD: pkg/tso/allocator.go, GenerateTSO).
func (m *Member) timestamps(ctx context.Context, req *pdpb.TsoRequest) (any, error) {
	if err := m.checkCluster(req.GetHeader()); err != nil {
		return nil, err
	}
	ts, err := m.generate(ctx, req.GetCount())
	if err != nil {
		return nil, err
	}
	return &pdpb.TsoResponse{Header: m.pd.header(), Count: req.GetCount(), Timestamp: ts}, nil
}

func (m *Member) generate(ctx context.Context, count uint32) (*pdpb.Timestamp, error) {
	if !m.leads() {
		return nil, generateFailed("requested pd is not leader of cluster")
	}
	if err := m.stalled(ctx); err != nil {
		return nil, err
	}
	physical, logical, err := m.pd.TSO.Next(count)
	switch {
	case err != nil:
		return nil, generateFailed(err.Error())
	case !m.leads(): // it gave up meanwhile (PD: pkg/tso/tso.go, getTS)
		return nil, generateFailed("requested is not leader anymore")
	}
	return &pdpb.Timestamp{Physical: physical, Logical: logical}, nil
}

// generateFailed is PD's ErrGenerateTimestamp, as a stream of timestamps ends with it.
func generateFailed(text string) error {
	return status.Error(codes.Unknown, "[PD:tso:ErrGenerateTimestamp]generate timestamp failed, "+text)
}

// proxyTimeout is how long a member waits for the timestamps that it passes on (PD:
// pkg/utils/tsoutil/tso_dispatcher.go, DefaultTSOProxyTimeout); it gives up by cancelling.
const proxyTimeout = 3 * time.Second

// proxyTimestamps lets another member answer (PD: pkg/utils/tsoutil/tso_dispatcher.go;
// there requests that wait for one another are merged, here each goes alone).
func (m *Member) proxyTimestamps(stream context.Context, to *Member, req *pdpb.TsoRequest) (any, error) {
	ctx, cancel := context.WithTimeout(stream, proxyTimeout)
	defer cancel()
	sent := &pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: req.GetHeader().GetClusterId()}, Count: req.GetCount()}
	answer, err := m.at(ctx, to, func(ctx context.Context) (any, error) {
		return to.through(ctx, "Tso", sent, func() (any, error) { return to.timestamps(ctx, sent) })
	})
	switch {
	case err != nil && ctx.Err() != nil && stream.Err() == nil:
		return nil, status.Error(codes.Canceled, context.Canceled.Error())
	case err != nil:
		return nil, err
	}
	resp, ok := answer.(*pdpb.TsoResponse)
	if !ok {
		resp = new(pdpb.TsoResponse)
		if err := resp.Unmarshal(*answer.(*serve.Raw)); err != nil {
			return nil, unreadable(err)
		}
	}
	return &pdpb.TsoResponse{
		Header: &pdpb.ResponseHeader{ClusterId: req.GetHeader().GetClusterId()}, Count: req.GetCount(), Timestamp: resp.GetTimestamp(),
	}, nil
}

// fromService lets the service for timestamps answer, whoever leads PD, and does not ask
// where the client wants to be forwarded to (PD: server/forward.go, forwardToTSOService).
func (m *Member) fromService(ctx context.Context, req *pdpb.TsoRequest) (any, error) {
	if req.GetCount() == 0 {
		return nil, generateFailed(tso.ErrCount.Error())
	}
	primary, err := m.primary()
	switch {
	case err != nil:
		return nil, err
	case primary == m:
		return m.timestamps(ctx, req)
	}
	return m.proxyTimestamps(ctx, primary, req)
}

// primary is the service's primary as the member knows it: who is cut off from etcd's
// majority keeps the last one (PD: server/server.go, initTSOPrimaryWatcher).
func (m *Member) primary() (*Member, error) {
	if l := m.leader(); l != nil {
		return l, nil
	}
	m.pd.mu.RLock()
	defer m.pd.mu.RUnlock()
	if m.knew == nil {
		return nil, status.Error(codes.NotFound, "not found tso address")
	}
	return m.knew, nil
}

// GetMinTS is a plain timestamp: where services give them out there is one group of
// keyspaces, whose primary is here.
func (m *Member) GetMinTS(ctx context.Context, _ *pdpb.GetMinTSRequest) (*pdpb.GetMinTSResponse, error) {
	ts, err := m.generate(ctx, 1)
	if err != nil {
		return nil, err
	}
	return &pdpb.GetMinTSResponse{Header: m.pd.header(), Timestamp: ts}, nil
}

// stalled waits while timestamps are kept from being answered.
func (m *Member) stalled(ctx context.Context) error {
	switch err := m.pd.TSO.Wait(ctx, m.life(ctx)); {
	case err == nil:
		return nil
	case ctx.Err() != nil: // its caller has left, or is about to
		return status.FromContextError(ctx.Err()).Err()
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}
