package pdserver

import (
	"context"
	"path"
	"reflect"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// message is what kvproto generates.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// unary is a method of pdpb.PD, by its full name, as another member calls it.
type unary struct {
	full   string
	method reflect.Value
}

func (m *Member) unary(full string) unary {
	return unary{full, reflect.ValueOf(m).MethodByName(path.Base(full))}
}

// call calls the method with a copy of the request, like one that came over a network.
func (u unary) call(ctx context.Context, req any, intercept grpc.UnaryServerInterceptor) (any, error) {
	data, err := req.(message).Marshal()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	arrived := reflect.New(u.method.Type().In(1).Elem()).Interface()
	if err := arrived.(message).Unmarshal(data); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return intercept(ctx, arrived, &grpc.UnaryServerInfo{FullMethod: u.full}, func(ctx context.Context, req any) (any, error) {
		out := u.method.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(req)})
		err, _ := out[1].Interface().(error)
		if err != nil {
			return nil, err
		}
		return out[0].Interface(), nil
	})
}

// answer makes an empty answer.
func (u unary) answer() reflect.Value { return reflect.New(u.method.Type().Out(0).Elem()) }

// read makes an answer readable that a fault may have changed.
func (u unary) read(answer any) (any, error) {
	raw, ok := answer.(*serve.Raw)
	if !ok {
		return answer, nil
	}
	read := u.answer().Interface()
	if err := read.(message).Unmarshal(*raw); err != nil {
		return nil, unreadable(err)
	}
	return read, nil
}

// refusal is an answer that has only a header.
func (u unary) refusal(header *pdpb.ResponseHeader) any {
	answer := u.answer()
	answer.Elem().FieldByName("Header").Set(reflect.ValueOf(header))
	return answer.Interface()
}
