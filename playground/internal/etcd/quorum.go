package etcd

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// linearizable tells which requests of a method are: by the value of a field that is a
// number, 0 when it is absent. What cannot be read is not one: it is refused later.
type linearizable struct {
	field protowire.Number
	by    func(uint64) bool
}

func (l linearizable) is(req []byte) bool {
	value := uint64(0)
	for len(req) > 0 {
		num, typ, n := protowire.ConsumeTag(req)
		if n < 0 {
			return false
		}
		req = req[n:]
		if num == l.field && typ == protowire.VarintType {
			value, n = protowire.ConsumeVarint(req)
		} else {
			n = protowire.ConsumeFieldValue(num, typ, req)
		}
		if n < 0 {
			return false
		}
		req = req[n:]
	}
	return l.by(value)
}

// patience is how long a linearizable read waits for a majority that confirms it (etcd:
// server/config/config.go, ReqTimeout: 5 s and twice the election timeout, which PD sets
// to 3 s in server/config/config.go, defaultElectionInterval).
const patience = 5*time.Second + 2*3*time.Second

// confirm waits until the member is in touch with a majority (etcd: server/etcdserver/
// v3_server.go, linearizableReadNotify; api/v3rpc/rpctypes/error.go, ErrGRPCTimeout).
func confirm(ctx context.Context, v View) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		ok, changed := v.Quorum()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return status.Error(codes.Unavailable, "etcdserver: request timed out")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}
