package pdserver

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tsoService is the service that gives out timestamps where PD leaves that to services of
// their own (PD: pkg/mcs/tso/server/grpc_service.go). Each member has it in its process;
// PD's leader is the primary of the one keyspace group.
type tsoService struct {
	tsopb.UnimplementedTSOServer
	m *Member
}

// group is the keyspace group; groups is how many there may be (PD: pkg/keyspace/constant
// and pkg/mcs/utils/constant).
const (
	group  = 0
	groups = 4096
)

func (s *tsoService) header() *tsopb.ResponseHeader {
	return &tsopb.ResponseHeader{ClusterId: s.m.pd.ClusterID, KeyspaceGroupId: group}
}

func (s *tsoService) refusal(kind tsopb.ErrorType, text string, of uint32) *tsopb.ResponseHeader {
	return &tsopb.ResponseHeader{ClusterId: s.m.pd.ClusterID, KeyspaceGroupId: of, Error: &tsopb.Error{Type: kind, Message: text}}
}

// mistaken is the text for a request that is meant for another server, "" for none.
func (s *tsoService) mistaken(h *tsopb.RequestHeader) string {
	if id := h.GetCalleeId(); id != "" && id != s.m.server.Addr() {
		return fmt.Sprintf("mismatch callee id, need %s but got %s", s.m.url(), id)
	}
	return ""
}

// Tso answers each message of the stream with a range of timestamps, in order.
func (s *tsoService) Tso(stream tsopb.TSO_TsoServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if err := s.m.reply(stream, "Tso", req, func() (any, error) { return s.timestamps(stream.Context(), req) }); err != nil {
			return err
		}
	}
}

func (s *tsoService) timestamps(ctx context.Context, req *tsopb.TsoRequest) (any, error) {
	h := req.GetHeader()
	if h.GetClusterId() != s.m.pd.ClusterID {
		return nil, s.m.checkCluster(&pdpb.RequestHeader{ClusterId: h.GetClusterId()})
	}
	if text := s.mistaken(h); text != "" {
		return nil, status.Error(codes.FailedPrecondition, text)
	}
	if err := s.checkGroup(h.GetKeyspaceId(), h.GetKeyspaceGroupId()); err != nil {
		return nil, err
	}
	ts, err := s.m.generate(ctx, req.GetCount())
	if err != nil {
		return nil, err
	}
	return &tsopb.TsoResponse{Header: s.header(), Count: req.GetCount(), Timestamp: ts}, nil
}

// checkGroup refuses a group that cannot be, and a keyspace that is in no group though the
// request names another than the default: who names a wrong group for a keyspace is served
// by the right one, and told (PD: pkg/tso/keyspace_group_manager.go, HandleTSORequest and
// getKeyspaceGroupMetaWithCheck).
func (s *tsoService) checkGroup(keyspace, of uint32) error {
	switch {
	case of >= groups:
		return status.Errorf(codes.Unknown, "[PD:tso:ErrKeyspaceGroupIDInvalid]the keyspace group id is invalid, %d shouldn't >= %d", of, groups)
	case of != group && s.m.pd.keyspaces.byID(keyspace) == nil:
		return status.Errorf(codes.Unknown, "[PD:tso:ErrKeyspaceNotAssigned]the keyspace %d isn't assigned to any keyspace group", keyspace)
	}
	return nil
}

// check is PD's validRequest.
func (s *tsoService) check(h *tsopb.RequestHeader) *tsopb.ResponseHeader {
	if err := s.m.checkCluster(&pdpb.RequestHeader{ClusterId: h.GetClusterId()}); err != nil {
		return s.refusal(tsopb.ErrorType_CLUSTER_MISMATCHED, err.Error(), h.GetKeyspaceGroupId())
	}
	if text := s.mistaken(h); text != "" {
		return s.refusal(tsopb.ErrorType_INVALID_VALUE, text, h.GetKeyspaceGroupId())
	}
	return nil
}

// FindGroupByKeyspaceID tells who serves a keyspace. Keyspaces that were never put into a
// group are the default one's.
func (s *tsoService) FindGroupByKeyspaceID(_ context.Context, req *tsopb.FindGroupByKeyspaceIDRequest) (*tsopb.FindGroupByKeyspaceIDResponse, error) {
	if refusal := s.check(req.GetHeader()); refusal != nil {
		return &tsopb.FindGroupByKeyspaceIDResponse{Header: refusal}, nil
	}
	if req.GetModRevision() > groupRevision {
		return &tsopb.FindGroupByKeyspaceIDResponse{Header: s.refusal(tsopb.ErrorType_INVALID_VALUE,
			"[PD:keyspace:ErrKeyspaceGroupModRevisionStale]keyspace group mod revision is stale", req.GetHeader().GetKeyspaceGroupId())}, nil
	}
	leader := s.m.leader()
	found := &tsopb.KeyspaceGroup{Id: group, UserKind: "basic"}
	for _, o := range s.m.pd.Members() {
		found.Members = append(found.Members, &tsopb.KeyspaceGroupMember{Address: o.url(), IsPrimary: o == leader})
	}
	return &tsopb.FindGroupByKeyspaceIDResponse{Header: s.header(), KeyspaceGroup: found, ModRevision: groupRevision}, nil
}

// groupRevision is that of the group, which is made once and never changed.
const groupRevision = 1

// GetMinTS is a timestamp of the primary, none of the other servers (PD: pkg/tso/
// keyspace_group_manager.go, GetMinTS).
func (s *tsoService) GetMinTS(ctx context.Context, req *tsopb.GetMinTSRequest) (*tsopb.GetMinTSResponse, error) {
	if refusal := s.check(req.GetHeader()); refusal != nil {
		return &tsopb.GetMinTSResponse{Header: refusal}, nil
	}
	of := req.GetHeader().GetKeyspaceGroupId()
	resp := &tsopb.GetMinTSResponse{Header: s.header(), Timestamp: &pdpb.Timestamp{}, KeyspaceGroupsTotal: 1}
	resp.Header.KeyspaceGroupId = of
	switch s.m.leader() {
	case nil:
		resp.Header = s.refusal(tsopb.ErrorType_UNKNOWN, fmt.Sprintf("[PD:tso:ErrGetMinTS]get min ts failed, keyspace group %d's primary is not elected", group), of)
	case s.m:
		ts, err := s.m.generate(ctx, 1)
		if err != nil {
			resp.Header = s.refusal(tsopb.ErrorType_UNKNOWN, status.Convert(err).Message(), of)
			break
		}
		resp.Timestamp, resp.KeyspaceGroupsServing = ts, 1
	}
	return resp, nil
}
