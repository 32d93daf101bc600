// Package etcd answers the few calls of etcd's services that clients make to PD, with
// messages read and written by hand, so that etcd is not linked. Fields are those of
// etcd's api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto.
package etcd

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// View is what there is to show.
type View interface {
	ClusterID() uint64
	MemberID() uint64
	Members() []Member
	KV() *KV
	// Quorum reports whether this member is in touch with a majority, and otherwise a
	// channel that is closed when it is worth to ask again.
	Quorum() (bool, <-chan struct{})
}

// Member is a member of the etcd cluster.
type Member struct {
	ID                   uint64
	Name                 string
	PeerURLs, ClientURLs []string
}

// Register adds the services to s, whose codec passes serve.Raw as it is.
func Register(s *grpc.Server, v View) {
	asked := func(v uint64) bool { return v != 0 }
	s.RegisterService(service("etcdserverpb.Cluster", "MemberList", memberList, linearizable{1, asked}), v)
	unasked := func(v uint64) bool { return v == 0 }
	s.RegisterService(service("etcdserverpb.KV", "Range", kvRange, linearizable{7, unasked}), v)
}

// service describes a service of one unary method.
func service(name, method string, answer func(View, []byte) ([]byte, error), l linearizable) *grpc.ServiceDesc {
	full := "/" + name + "/" + method
	handler := func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		req := new(serve.Raw)
		if err := dec(req); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, req any) (any, error) {
			if l.is(*req.(*serve.Raw)) {
				if err := confirm(ctx, srv.(View)); err != nil {
					return nil, err
				}
			}
			resp, err := answer(srv.(View), *req.(*serve.Raw))
			if err != nil {
				return nil, status.Error(codeOf(err), err.Error())
			}
			return (*serve.Raw)(&resp), nil
		}
		if intercept == nil {
			return handle(ctx, req)
		}
		return intercept(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, handle)
	}
	return &grpc.ServiceDesc{
		ServiceName: name, HandlerType: (*View)(nil),
		Methods: []grpc.MethodDesc{{MethodName: method, Handler: handler}},
	}
}

// codeOf is the code of a refusal (etcd: api/v3rpc/rpctypes/error.go).
func codeOf(err error) codes.Code {
	if errors.Is(err, ErrCompacted) || errors.Is(err, ErrFuture) {
		return codes.OutOfRange
	}
	return codes.InvalidArgument
}

// ErrMessage is a request that is no protobuf message.
var ErrMessage = errors.New("etcd: malformed request")

// RangeRequest is a range request. The bounds of revisions, of which 0 is none, are for
// the last change and the creation of a key.
type RangeRequest struct {
	Key, End             []byte
	Limit, Revision      int64
	Order, Target        uint64
	KeysOnly, CountOnly  bool
	MinMod, MaxMod       int64
	MinCreate, MaxCreate int64
}

// number sets the field of a number; others are not for Range.
func (r *RangeRequest) number(num protowire.Number, v uint64) {
	switch num {
	case 3:
		r.Limit = int64(v)
	case 4:
		r.Revision = int64(v)
	case 5:
		r.Order = v
	case 6:
		r.Target = v
	case 8:
		r.KeysOnly = v != 0
	case 9:
		r.CountOnly = v != 0
	case 10:
		r.MinMod = int64(v)
	case 11:
		r.MaxMod = int64(v)
	case 12:
		r.MinCreate = int64(v)
	case 13:
		r.MaxCreate = int64(v)
	}
}

// ParseRange reads a range request; fields that it does not know are skipped.
func ParseRange(b []byte) (RangeRequest, error) {
	var r RangeRequest
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return r, ErrMessage
		}
		b = b[n:]
		switch {
		case (num == 1 || num == 2) && typ == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); num == 1 {
				r.Key = v
			} else {
				r.End = v
			}
		case typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.number(num, v)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return r, ErrMessage
		}
		b = b[n:]
	}
	return r, nil
}

func kvRange(v View, req []byte) ([]byte, error) {
	r, err := ParseRange(req)
	if err != nil {
		return nil, err
	}
	if len(r.Key) > 0 && (r.Order > descending || r.Target > byValue) {
		return nil, ErrSort
	}
	all, revision, err := v.KV().Range(r.Key, r.End, r.Revision)
	if err != nil {
		return nil, err
	}
	count := len(all)
	out := appendHeader(nil, v, revision)
	kept, more := r.pick(all)
	for _, kv := range kept {
		b := appendBytes(nil, 1, kv.Key)
		b = appendVarint(b, 2, uint64(kv.Created))
		b = appendVarint(b, 3, uint64(kv.Mod))
		b = appendVarint(b, 4, uint64(kv.Version))
		if !r.KeysOnly {
			b = appendBytes(b, 5, kv.Value)
		}
		out = appendBytes(out, 2, b)
	}
	if more {
		out = appendVarint(out, 3, 1)
	}
	return appendVarint(out, 4, uint64(count)), nil
}

func memberList(v View, _ []byte) ([]byte, error) {
	out := appendHeader(nil, v, 0) // it is not about keys (etcd: api/v3rpc/member.go, header)
	for _, m := range v.Members() {
		b := appendVarint(nil, 1, m.ID)
		b = appendBytes(b, 2, []byte(m.Name))
		for _, u := range m.PeerURLs {
			b = appendBytes(b, 3, []byte(u))
		}
		for _, u := range m.ClientURLs {
			b = appendBytes(b, 4, []byte(u))
		}
		out = appendBytes(out, 2, b)
	}
	return out, nil
}

func appendHeader(out []byte, v View, revision int64) []byte {
	h := appendVarint(nil, 1, v.ClusterID())
	h = appendVarint(h, 2, v.MemberID())
	h = appendVarint(h, 3, uint64(revision))
	h = appendVarint(h, 4, 1)
	return appendBytes(out, 1, h)
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}
