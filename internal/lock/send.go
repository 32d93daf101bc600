package lock

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

// send brings req, which concerns one key, to where the key is.
func send[R transport.Response](ctx context.Context, to Router, call *router.Call, key []byte, req transport.Request) (R, error) {
	var none R
	for {
		at, err := to.Locate(ctx, call, key)
		if err != nil {
			return none, err
		}
		resp, err := to.Send(ctx, call, at, req)
		if errors.Is(err, router.ErrRegionChanged) {
			continue
		}
		if err != nil {
			return none, err
		}
		if answer, ok := resp.(R); ok {
			return answer, nil
		}
		return none, unexpected(req, resp)
	}
}

func unexpected(req transport.Request, resp transport.Response) error {
	return fmt.Errorf("lock: %T answered with %T", req, resp)
}

// ruled is the error of a call: for what keys tell against TiKV's rules, as for an answer
// that there is no rule for.
func ruled(call *router.Call, err error) error {
	for _, odd := range []error{errNotFound, errMismatch, errTorn, errAlive} {
		if errors.Is(err, odd) {
			return call.Refuse(err.Error())
		}
	}
	return err
}

// Refused is the error for an answer that a call has no rule for.
func Refused(call *router.Call, ke *kvrpcpb.KeyError) error {
	text := ke.GetAbort()
	if text == "" {
		text = ke.GetRetryable()
	}
	if text == "" {
		text = "unexpected key error"
	}
	return call.Refuse(text)
}
