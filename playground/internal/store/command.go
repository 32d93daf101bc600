package store

import (
	"context"
	"reflect"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// request is a kvproto message with the region that it is for.
type request interface {
	Size() int
	GetContext() *kvrpcpb.Context
}

// kind is what a command does to its region.
type kind uint8

const (
	// read may be answered by a follower that is asked for a replica read.
	read kind = iota
	// write goes through the region's log.
	write
	// blind is a write that does not read first: TiKV finds its region before it looks
	// at the store id.
	blind
	// local is no region's.
	local
)

// command is one request type: how it is named, made, checked and run.
type command struct {
	method string // of the service; empty for one that comes in batches only
	kind   kind
	raw    bool
	leader bool // a read that only the leader answers
	// flashback is a command that may run in a region which a flashback has closed.
	flashback bool
	// request makes an empty request, answer an empty answer.
	request func() any
	answer  func() any
	// inside lists what must lie in the region.
	inside func(req any) inside
	run    func(ctx context.Context, bounds keys.Range, req any) any
	// begin, if set, is used instead of run. It returns an answer, or what waits for
	// one, outside the region.
	begin func(ctx context.Context, r *topology.Region, req any) (answer any, wait func(context.Context) any)
	// around, if set, is run instead, and runs the command as often as it needs.
	around func(ctx context.Context, req any) any
	// timing is when its answers tell how long they took.
	timing timing
	// flash: only a TiFlash store has it.
	flash bool
	// batched wraps an answer for BatchCommands; nil for what has no place there.
	batched func(answer any) *tikvpb.BatchCommandsResponse_Response
}

// inside is the part of a request that must lie in its region, as wire keys.
type inside struct {
	keys [][]byte
	// seeks are where scans begin: they may also be the region's end.
	seeks [][]byte
	// ranges must lie in the region whole.
	ranges []keys.Range
	// named are keys that need not be inside.
	named [][]byte
}

// commands finds a command by the type of its request.
type commands map[reflect.Type]*command

func (cs commands) of(req any) *command { return cs[reflect.TypeOf(req)] }

// add puts a command into the table.
func add[Q, P any](cs commands, c command, in func(*Q) inside, run func(context.Context, keys.Range, *Q) *P, batched func(*P) *tikvpb.BatchCommandsResponse_Response) {
	c.request = func() any { return new(Q) }
	c.answer = func() any { return new(P) }
	_, c.timing = detailed(c.answer())
	c.inside = func(req any) inside { return in(req.(*Q)) }
	c.run = func(ctx context.Context, bounds keys.Range, req any) any { return run(ctx, bounds, req.(*Q)) }
	if batched != nil {
		c.batched = func(answer any) *tikvpb.BatchCommandsResponse_Response { return batched(answer.(*P)) }
	}
	cs[reflect.TypeFor[*Q]()] = &c
}

// refuse makes the answer of a command that is a region error: every answer has the
// field.
func (c *command) refuse(e *errorpb.Error) any {
	answer := c.answer()
	if f := reflect.ValueOf(answer).Elem().FieldByName("RegionError"); f.IsValid() {
		f.Set(reflect.ValueOf(e))
	}
	return answer
}

// unwrap returns the request in a BatchCommands entry, or nil.
func unwrap(r *tikvpb.BatchCommandsRequest_Request) any {
	v := reflect.ValueOf(r.GetCmd())
	if !v.IsValid() || v.IsNil() {
		return nil
	}
	f := v.Elem().Field(0)
	if f.Kind() != reflect.Pointer || f.IsNil() {
		return nil
	}
	return f.Interface()
}
