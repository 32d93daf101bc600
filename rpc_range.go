package tikv

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"reflect"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// RangeReply is the answer for a part of the range.
type RangeReply[Resp any] struct {
	Range    Range
	RegionID uint64
	Reply    *Resp
}

// CallRange sends a copy of req to each region of r, its ranges clipped to the region,
// 16 regions at a time, and yields the answers in the order of the regions. A region that
// splits meanwhile is asked again in its parts; each part is yielded once.
//
// A request whose range, or list of ranges, is empty asks for all of r; regions that hold
// nothing of what it asks for are left out. What else it says, a limit say, counts for each
// region by itself. An error is yielded once, last, as a *RangeError: of what is in its
// Rest, parts may have been asked already. The loop may end at any time, and ends what is
// under way.
func CallRange[Req, Resp any](ctx context.Context, v *RPC, mode KeyMode, r Range,
	method func(tikvpb.TikvClient, context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) iter.Seq2[RangeReply[Resp], error] {
	const op = "CallRange"
	r = Range{Start: bytes.Clone(r.Start), End: bytes.Clone(r.End)} // the loop comes later
	return func(yield func(RangeReply[Resp], error) bool) {
		w, err := beginWalk(op, v, mode, r, method == nil, req == nil, func(c tikvpb.TikvClient) { _, _ = method(c, ctx, req) }, req)
		if err == nil {
			w.answer = func() router.Answer { return any(new(Resp)).(router.Answer) }
			if _, ok := any(new(Resp)).(router.Answer); !ok {
				err = &ArgumentError{Op: op, Arg: "method", Reason: "answers with no message"}
			}
		}
		if err == nil && !r.empty() {
			err = w.walk(ctx, func(p rangePart) bool {
				return yield(RangeReply[Resp]{Range: p.user, RegionID: p.region, Reply: any(p.resp).(*Resp)}, nil)
			})
		}
		if err != nil {
			yield(RangeReply[Resp]{}, err)
		}
	}
}

// rangeTasks is how many regions of a CallRange are asked at a time.
const rangeTasks = 16

// rangeWalk is a CallRange.
type rangeWalk struct {
	v      *RPC
	op     string
	name   string
	traits trait
	codec  codec.Codec
	user   Range
	wire   keys.Range
	req    any // the caller's
	answer func() router.Answer
}

// rangePart is what one region has answered.
type rangePart struct {
	user   Range
	region uint64
	resp   router.Answer
}

// segment is a part of the range that one task asks for: a region, as it was known when
// the task began.
type segment struct {
	wire  keys.Range
	done  chan struct{}
	parts []rangePart
	err   error
	at    []byte // with err: where it stopped
}

func beginWalk(op string, v *RPC, mode KeyMode, r Range, noMethod, noReq bool, call func(tikvpb.TikvClient), req any) (*rangeWalk, error) {
	if noMethod || noReq {
		return nil, errNilCall(op, noMethod)
	}
	name, traits, err := methodOf(op, false, call)
	if err := firstOf(err, v.ready(op), r.check(op)); err != nil {
		return nil, err
	}
	if err := v.checkMode(op, name, traits, mode); err != nil {
		return nil, err
	}
	w := &rangeWalk{v: v, op: op, name: name, traits: traits, codec: mode.codec(v.c.engine), user: r, req: req}
	w.wire = w.codec.Range(keys.Range(r))
	// What is wrong with the request is wrong with each part of it.
	clipped, err := v.c.walker.Clip(req, keys.Range(r))
	switch {
	case errors.Is(err, codec.ErrBackwards):
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "reads backwards"}
	case errors.Is(err, codec.ErrTasks):
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "names regions or shards of its own"}
	case err != nil || traits.has(atStore):
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "has no range to split: " + reflect.TypeOf(req).String()}
	case clipped != nil:
		_, err = v.asking(op, name, traits, keyTarget{}, w.codec, clipped, nil)
	}
	return w, err
}

var errLoopLeft = errors.New("the loop has ended")

// walk asks all regions and yields what they answer, in order.
func (w *rangeWalk) walk(ctx context.Context, yield func(rangePart) bool) error {
	tasks := task.New(ctx)
	defer tasks.Close(errLoopLeft)
	router.Warm(ctx, w.v.c.engine.router, &router.Call{Codec: w.codec}, w.wire)
	var ahead []*segment
	yielded := false
	for next := w.wire; ; {
		for len(ahead) < rangeTasks && !next.Empty() {
			var seg *segment
			seg, next = w.start(tasks, next)
			ahead = append(ahead, seg)
		}
		if len(ahead) == 0 {
			return nil
		}
		seg := ahead[0]
		<-seg.done
		for _, p := range seg.parts {
			if yielded = true; !yield(p) {
				return nil
			}
		}
		if seg.err != nil {
			tasks.Close(errLoopLeft)
			return w.stopped(seg, ahead[1:], yielded)
		}
		ahead = ahead[1:]
	}
}

// nothing is a range that is empty: the rest, where nothing is left.
func nothing() keys.Range { return keys.Range{Start: []byte{0}, End: []byte{0}} }

// start begins with the first region of a range, and returns what is left behind it.
func (w *rangeWalk) start(tasks *task.Group, rest keys.Range) (*segment, keys.Range) {
	seg := &segment{done: make(chan struct{})}
	call := w.call()
	reg, err := w.v.c.engine.router.Locate(tasks.Context(), call, rest.Start)
	if err != nil {
		seg.err, seg.at = err, rest.Start
		close(seg.done)
		return seg, nothing()
	}
	seg.wire = rest.Intersect(w.codec.WireRange(reg.Range))
	if len(seg.wire.End) == 0 || keys.CompareEnds(seg.wire.End, rest.End) >= 0 {
		rest = nothing()
	} else {
		rest.Start = seg.wire.End
	}
	if !tasks.Go("range part", func(ctx context.Context) { defer close(seg.done); w.ask(ctx, seg) }) {
		seg.err, seg.at = router.ErrClosed, seg.wire.Start
		close(seg.done)
	}
	return seg, rest
}

// call begins the call for one region.
func (w *rangeWalk) call() *router.Call {
	call := w.v.base
	call.Op, call.Method, call.Codec = w.op, w.name, w.codec
	call.Resend, call.Decides = w.traits.has(reads), !w.traits.has(reads)
	return &call
}

// ask asks for a segment, whatever regions it is in by now.
func (w *rangeWalk) ask(ctx context.Context, seg *segment) {
	for rest := seg.wire; !rest.Empty(); {
		part, err := w.askPart(ctx, &rest)
		if err != nil {
			seg.err, seg.at = err, rest.Start
			return
		}
		if part != nil {
			seg.parts = append(seg.parts, *part)
		}
	}
}

// askPart asks the region that holds the beginning of rest, and makes rest what is left.
func (w *rangeWalk) askPart(ctx context.Context, rest *keys.Range) (*rangePart, error) {
	e := w.v.c.engine
	call := w.call()
	for {
		reg, err := e.router.Locate(ctx, call, rest.Start)
		if err != nil {
			return nil, err
		}
		here := rest.Intersect(w.codec.WireRange(reg.Range))
		part := &rangePart{region: reg.ID, user: cloneRange(codec.UserRange(w.codec, here))}
		clipped, err := w.v.c.walker.Clip(w.req, keys.Range(part.user))
		if err != nil {
			return nil, err
		}
		if clipped == nil {
			part = nil
		} else {
			part.resp = w.answer()
			a, err := w.v.asking(w.op, w.name, w.traits, nil, w.codec, clipped, part.resp)
			if err != nil {
				return nil, err
			}
			kept := a.call // what the request's own context has left
			a.call = *call
			a.call.Priority, a.call.RequestSource = kept.Priority, kept.RequestSource
			a.call.Key = here.Start
			err = a.settle(ctx, func() error { return e.router.SendInto(ctx, &a.call, reg, a.req.(transport.Request), part.resp) })
			if *call = a.call; err == router.ErrRegionChanged {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if len(here.End) == 0 || keys.CompareEnds(here.End, rest.End) >= 0 {
			*rest = nothing()
		} else {
			rest.Start = here.End
		}
		return part, nil
	}
}

func cloneRange(r keys.Range) Range {
	return Range{Start: bytes.Clone(r.Start), End: bytes.Clone(r.End)}
}

// stopped is the error of a walk that stopped at seg. Those ahead of it have ended.
func (w *rangeWalk) stopped(seg *segment, ahead []*segment, yielded bool) error {
	ec := w.v.c.errorContext(w.op, w.codec)
	cause := mapError(ec, seg.err)
	untouched := w.traits.has(reads) || !yielded && len(seg.parts) == 0 && NotSent(cause)
	for _, s := range ahead {
		changed := len(s.parts) > 0 || s.err == nil || !NotSent(mapError(ec, s.err))
		untouched = untouched && (w.traits.has(reads) || !changed)
	}
	rest := Range{Start: ec.key(seg.at), End: w.user.End}
	return &RangeError{Op: w.op, Rest: []Range{rest}, Cause: cause, untouched: untouched, keys: ec.keys}
}
