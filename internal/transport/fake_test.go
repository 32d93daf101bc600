package transport

import (
	"context"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

type (
	request  = tikvpb.BatchCommandsRequest_Request
	response = tikvpb.BatchCommandsResponse_Response
)

type unaryFuncs struct {
	cas func(context.Context, *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error)
	get func(context.Context, *kvrpcpb.RawGetRequest) (*kvrpcpb.RawGetResponse, error)
}

func (s *store) RawGet(ctx context.Context, req *kvrpcpb.RawGetRequest) (*kvrpcpb.RawGetResponse, error) {
	return s.unary.get(ctx, req)
}

func (s *store) RawCompareAndSwap(ctx context.Context, req *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
	return s.unary.cas(ctx, req)
}

func (s *store) GetStoreSafeTS(context.Context, *kvrpcpb.StoreSafeTSRequest) (*kvrpcpb.StoreSafeTSResponse, error) {
	return &kvrpcpb.StoreSafeTSResponse{SafeTs: 7}, nil
}

// answer is what a well-behaved store says: a raw get returns its key, a put nothing.
func answer(r *request) *response {
	switch c := r.Cmd.(type) {
	case *tikvpb.BatchCommandsRequest_Request_RawGet:
		return &response{Cmd: &tikvpb.BatchCommandsResponse_Response_RawGet{
			RawGet: &kvrpcpb.RawGetResponse{Value: c.RawGet.Key}}}
	case *tikvpb.BatchCommandsRequest_Request_RawPut:
		return &response{Cmd: &tikvpb.BatchCommandsResponse_Response_RawPut{RawPut: &kvrpcpb.RawPutResponse{}}}
	case *tikvpb.BatchCommandsRequest_Request_Coprocessor:
		return &response{Cmd: &tikvpb.BatchCommandsResponse_Response_Coprocessor{
			Coprocessor: &coprocessor.Response{Data: c.Coprocessor.Data}}}
	}
	return &response{}
}

// echo answers each frame at once, last request first, and counts frames.
func echo(frames *atomic.Int64) func(tikvpb.Tikv_BatchCommandsServer) error {
	return func(s tikvpb.Tikv_BatchCommandsServer) error {
		for {
			in, err := s.Recv()
			if err != nil {
				return err
			}
			if frames != nil {
				frames.Add(1)
			}
			out := &tikvpb.BatchCommandsResponse{}
			for i := len(in.Requests) - 1; i >= 0; i-- {
				out.Responses = append(out.Responses, answer(in.Requests[i]))
				out.RequestIds = append(out.RequestIds, in.RequestIds[i])
			}
			if err := s.Send(out); err != nil {
				return err
			}
		}
	}
}

// mute reads all and answers nothing; deaf does not even read.
func mute(s tikvpb.Tikv_BatchCommandsServer) error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}

func deaf(s tikvpb.Tikv_BatchCommandsServer) error {
	<-s.Context().Done()
	return s.Context().Err()
}
