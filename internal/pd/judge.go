package pd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/transport"
)

// judge returns what is wrong with an outcome, or nil: with the error, or the header of
// the answer. clusterID is checked where it is not 0.
func judge(op, addr string, clusterID uint64, h *pdpb.ResponseHeader, err error) *Error {
	if err == nil && h != nil && h.Error == nil && (clusterID == 0 || h.ClusterId == clusterID) {
		return nil
	}
	e := &Error{Op: op, Addr: addr, Kind: Unavailable}
	if err != nil {
		e.Message = err.Error()
		if errors.Is(err, transport.ErrClosed) {
			e.Kind, e.Err = Closed, ErrClosed
			return e
		}
		if s, ok := status.FromError(err); ok {
			e.Message = s.Code().String() + ": " + s.Message()
			e.Kind, e.Err = statusKind(s)
		}
		return e
	}
	if h == nil {
		e.Message = "empty answer"
		return e
	}
	if he := h.GetError(); he.GetType() != pdpb.ErrorType_OK {
		e.Code, e.Message = he.GetType(), he.GetType().String()+": "+he.GetMessage()
		switch e.Code {
		case pdpb.ErrorType_NOT_BOOTSTRAPPED: // yet
		case pdpb.ErrorType_REGION_NOT_FOUND: // so say members that do not lead; a leader says nothing
		default:
			e.Kind = Rejected
		}
		return e
	}
	if id := h.GetClusterId(); clusterID != 0 && id != clusterID {
		e.Kind, e.Err = WrongCluster, ErrWrongCluster
		e.Message = fmt.Sprintf("%d, not %d", id, clusterID)
		return e
	}
	return nil
}

// elsewhere are texts of errors that another member, or the same one soon, does not have:
// of a member that should forward to one that leads no more (PD server/forward.go), of a
// server of timestamps that moved (PD pkg/mcs/tso/server/grpc_service.go), and of PD while
// it knows none (PD server/server.go).
var elsewhere = [...]string{"is not leader", "not leader", "mismatch callee id", "not found tso address", "is not served", "not primary"}

// statusKind classifies PD's gRPC errors (PD server/grpc_service.go): not started, not
// leader and closing are UNAVAILABLE, and plain errors arrive as UNKNOWN, which may be
// over by the next attempt.
func statusKind(s *status.Status) (Kind, error) {
	if isElsewhere(s.Message()) {
		return Unavailable, nil
	}
	switch s.Code() {
	case codes.Unknown:
		// The service for resource groups refuses so (PD pkg/mcs/resourcemanager/server).
		if strings.HasPrefix(s.Message(), "[PD:resourcemanager:") {
			return Rejected, nil
		}
	case codes.FailedPrecondition:
		if strings.Contains(s.Message(), "mismatch cluster id") {
			return WrongCluster, ErrWrongCluster
		}
		return Rejected, nil
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.OutOfRange, codes.Unimplemented, codes.DataLoss, codes.Unauthenticated:
		return Rejected, nil
	}
	return Unavailable, nil
}

func isElsewhere(message string) bool {
	return slices.ContainsFunc(elsewhere[:], func(text string) bool { return strings.Contains(message, text) })
}
