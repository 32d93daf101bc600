package raw

import (
	"context"
	"errors"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// Limits of one request of a batch, and of the requests in flight for one batch.
const (
	batchKeys  = 512
	batchBytes = 16 << 10
	batchTasks = 16
)

// BatchError is a batch that was not wholly applied: the error of each key, nil for
// those that were.
type BatchError struct{ Errs []error }

// Error says that it failed; the errors of the keys say why.
func (e *BatchError) Error() string { return "raw: batch not wholly applied" }

// Unwrap returns the errors of the keys that have one.
func (e *BatchError) Unwrap() []error {
	return slices.DeleteFunc(slices.Clone(e.Errs), func(err error) bool { return err == nil })
}

// part is the keys, by index, that go to one region in one request.
type part struct {
	region *region.Region
	index  []int
}

// parts sorts the keys with the given indexes by region and cuts what is too much for
// one request. size counts the bytes of a key and its value.
func (kv *KV) parts(ctx context.Context, call *router.Call, keys [][]byte, index []int, size func(int) int) ([]part, error) {
	picked := make([][]byte, len(index))
	for n, i := range index {
		picked[n] = keys[i]
	}
	groups, err := kv.Router.Group(ctx, call, picked)
	if err != nil {
		return nil, err
	}
	var out []part
	for _, g := range groups {
		p, bytes := part{region: g.Region}, 0
		for _, n := range g.Index {
			if len(p.index) == batchKeys || bytes >= batchBytes {
				out = append(out, p)
				p, bytes = part{region: g.Region}, 0
			}
			p.index = append(p.index, index[n])
			bytes += size(index[n])
		}
		out = append(out, p)
	}
	return out, nil
}

// each runs one request for every part, and again for the smaller parts that remain of
// one whose region has changed. It stops at the first error that fn passes on.
func (kv *KV) each(ctx context.Context, call *router.Call, keys [][]byte, index []int, size func(int) int,
	send func(ctx context.Context, call *router.Call, p part) error, failed func(p []int, err error) error) error {
	parts, err := kv.parts(ctx, call, keys, index, size)
	if err != nil {
		return failed(index, err)
	}
	return task.Each(ctx, batchTasks, len(parts), func(ctx context.Context, i int) error {
		own := call
		if len(parts) > 1 {
			own = call.Part()
		}
		if own.Key = nil; len(parts[i].index) == 1 {
			own.Key = keys[parts[i].index[0]]
		}
		switch err := send(ctx, own, parts[i]); {
		case err == router.ErrRegionChanged:
			return kv.each(ctx, own, keys, parts[i].index, size, send, failed)
		case err != nil:
			return failed(parts[i].index, err)
		}
		return nil
	})
}

// all is the indexes of n keys.
func all(n int) []int {
	index := make([]int, n)
	for i := range index {
		index[i] = i
	}
	return index
}

func pick(keys [][]byte, index []int) [][]byte {
	out := make([][]byte, len(index))
	for n, i := range index {
		out[n] = keys[i]
	}
	return out
}

// BatchGet returns values in the order of the keys, nil for those that are absent.
func (kv *KV) BatchGet(ctx context.Context, op string, keys [][]byte) ([][]byte, error) {
	values := make([][]byte, len(keys))
	if done, err := kv.getAtOnce(ctx, op, keys, values); done {
		return values, err
	}
	if err := kv.getAll(ctx, kv.read(op), keys, func(i int, value []byte) { values[i] = value }); err != nil {
		return nil, err
	}
	return values, nil
}

// getAll sets the values of keys of any regions. The requests go out together; keys of
// regions that have changed are sorted again.
func (kv *KV) getAll(ctx context.Context, call *router.Call, keys [][]byte, set func(i int, value []byte)) error {
	groups, err := kv.Router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	groups = cut(groups, batchKeys)
	ordered := make([][]byte, 0, len(keys)) // the keys, group by group
	parcels, reads := make([]router.Parcel, len(groups)), make([]*read, len(groups))
	defer func() {
		for _, r := range reads {
			kv.giveRead(r)
		}
	}()
	for n, g := range groups {
		begin := len(ordered)
		for _, i := range g.Index {
			ordered = append(ordered, keys[i])
		}
		r := kv.takeRead(call.Op)
		call.PartInto(&r.call)
		r.call.Key = nil
		r.ask(kv, ordered[begin:len(ordered):len(ordered)])
		reads[n], parcels[n] = r, router.Parcel{Call: &r.call, Region: g.Region, Req: &r.batch, Resp: &r.got}
	}
	kv.Router.SendAll(ctx, parcels, nil)
	for n := range parcels {
		r, index := reads[n], groups[n].Index
		at := func(i int, value []byte) { set(index[i], value) }
		switch err := parcels[n].Err; {
		case err == router.ErrRegionChanged:
			if err := kv.getAll(ctx, &r.call, r.batch.Keys, at); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			if err := r.values(&r.call, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut splits groups that have more than limit keys.
func cut(groups []router.Group, limit int) []router.Group {
	for n := 0; n < len(groups); n++ {
		if g := groups[n]; len(g.Index) > limit {
			groups[n].Index = g.Index[:limit]
			groups = slices.Insert(groups, n+1, router.Group{Region: g.Region, Index: g.Index[limit:]})
		}
	}
	return groups
}

// getAtOnce is BatchGet where one request will do, as far as is known. It reports false
// if it did not.
func (kv *KV) getAtOnce(ctx context.Context, op string, keys, values [][]byte) (done bool, err error) {
	if len(keys) > batchKeys {
		return false, nil
	}
	r := kv.takeRead(op)
	defer kv.giveRead(r)
	reg := kv.Router.Only(&r.call, keys)
	if reg == nil {
		return false, nil
	}
	r.ask(kv, keys)
	if err = kv.Router.SendInto(ctx, &r.call, reg, &r.batch, &r.got); err == nil {
		err = r.values(&r.call, func(n int, value []byte) { values[n] = value })
	}
	return err != router.ErrRegionChanged, err
}

// ask makes the request for keys.
func (r *read) ask(kv *KV, keys [][]byte) {
	r.order.Begin(keys)
	r.batch = kvrpcpb.RawBatchGetRequest{Context: &r.context, Keys: keys, Cf: kv.CF}
}

// values sets the values of the keys that were asked for. They come in the order of the
// keys, without the absent ones.
func (r *read) values(call *router.Call, set func(n int, value []byte)) error {
	for _, pair := range r.got.Pairs {
		if text := pairError(pair.Error); text != "" {
			return call.Refuse(text)
		}
		at := r.order.Find(pair.Key)
		if at < 0 {
			return call.Refuse(otherAnswer)
		}
		set(at, pair.Value)
	}
	return nil
}

const otherAnswer = "the answer is to another request"

// pairError is the words in which one pair of an answer is refused.
func pairError(e *kvrpcpb.KeyError) string {
	switch {
	case e == nil:
		return ""
	case e.GetAbort() != "":
		return e.GetAbort()
	case e.GetRetryable() != "":
		return e.GetRetryable()
	}
	return "an error without words"
}

// BatchPut stores values, each for its seconds in ttls, or for good where those are nil
// or 0. Of equal keys the last wins. The error is a *BatchError.
func (kv *KV) BatchPut(ctx context.Context, op string, keys, values [][]byte, ttls []uint64) error {
	last, winner := lastOfEqual(keys)
	send := func(ctx context.Context, call *router.Call, p part) error {
		req := &kvrpcpb.RawBatchPutRequest{Context: &kvrpcpb.Context{}, Cf: kv.CF, ForCas: kv.Atomic}
		pairs := make([]kvrpcpb.KvPair, len(p.index))
		for n, i := range p.index {
			pairs[n].Key, pairs[n].Value = keys[i], values[i]
			req.Pairs = append(req.Pairs, &pairs[n])
			if ttls != nil {
				req.Ttls = append(req.Ttls, ttls[i])
			}
		}
		resp, err := kv.Router.Send(ctx, call, p.region, req)
		return written(call, resp, err)
	}
	size := func(i int) int { return len(keys[i]) + len(values[i]) }
	return kv.writeAll(ctx, op, keys, last, winner, size, send)
}

// BatchDelete removes keys. The error is a *BatchError.
func (kv *KV) BatchDelete(ctx context.Context, op string, keys [][]byte) error {
	send := func(ctx context.Context, call *router.Call, p part) error {
		req := &kvrpcpb.RawBatchDeleteRequest{Context: &kvrpcpb.Context{}, Keys: pick(keys, p.index), Cf: kv.CF, ForCas: kv.Atomic}
		resp, err := kv.Router.Send(ctx, call, p.region, req)
		return written(call, resp, err)
	}
	return kv.writeAll(ctx, op, keys, all(len(keys)), nil, func(int) int { return 0 }, send)
}

// written is the outcome of one write request of a batch.
func written(call *router.Call, resp any, err error) error {
	if err != nil {
		return err
	}
	answer, ok := resp.(interface{ GetError() string })
	switch {
	case !ok:
		return call.Refuse(otherAnswer)
	case answer.GetError() != "":
		return call.Refuse(answer.GetError())
	}
	return nil
}

// writeAll writes the keys of index whatever becomes of the others, and gathers the
// outcomes; a key that is not written shares that of its winner.
func (kv *KV) writeAll(ctx context.Context, op string, keys [][]byte, index, winner []int, size func(int) int,
	send func(ctx context.Context, call *router.Call, p part) error) error {
	errs := make([]error, len(keys)) // parts write to different elements
	failed := func(p []int, err error) error {
		for _, i := range p {
			errs[i] = err
		}
		return nil
	}
	if err := kv.each(ctx, kv.write(op), keys, index, size, send, failed); err != nil {
		return err
	}
	bad := false
	for i := range errs {
		if winner != nil {
			errs[i] = errs[winner[i]]
		}
		bad = bad || errs[i] != nil
	}
	if bad {
		return &BatchError{Errs: errs}
	}
	return nil
}

// lastOfEqual returns the indexes of the keys without those that an equal one follows,
// and for each key the index of the last one equal to it.
func lastOfEqual(keys [][]byte) (last, winner []int) {
	at := make(map[string]int, len(keys))
	for i, key := range keys {
		at[string(key)] = i
	}
	winner = make([]int, len(keys))
	for i, key := range keys {
		if winner[i] = at[string(key)]; winner[i] == i {
			last = append(last, i)
		}
	}
	return last, winner
}

// Unknown reports whether the outcome of a failed write is not known.
func Unknown(err error) bool {
	var lost *router.Undetermined
	return errors.As(err, &lost)
}
