package tikv_test

import (
	"errors"
	"slices"

	"github.com/tikv-go/tikv"
)

// rawIs checks raw keys against what was said of the write that was to make them value:
// "-" is absent.
func (e *faultTest) rawIs(err error, value string, keys ...[]byte) {
	e.t.Helper()
	var batch *tikv.BatchError
	for i, k := range keys {
		got, gerr := e.other.Raw().Get(e.t.Context(), k)
		if errors.Is(gerr, tikv.ErrNotFound) {
			got = []byte("-")
		} else if gerr != nil {
			e.errorf("reading: %v", gerr)
		}
		outcome := tikv.OutcomeDone
		switch {
		case errors.As(err, &batch):
			outcome = batch.Outcomes[i]
		case errors.Is(err, tikv.ErrUndetermined):
			outcome = tikv.OutcomeUnknown
		case err != nil:
			outcome = tikv.OutcomeFailed
		}
		want := map[tikv.Outcome][]string{
			tikv.OutcomeDone: {value}, tikv.OutcomeFailed: {"old"}, tikv.OutcomeUnknown: {"old", value},
		}[outcome]
		if !slices.Contains(want, string(got)) {
			e.errorf("%s is %q after %v (%v)", k, got, outcome, err)
		}
	}
}

// rangeIs checks what became of a range that was to be deleted.
func (e *faultTest) rangeIs(err error) {
	var part *tikv.RangeError
	if err != nil && !errors.As(err, &part) {
		e.errorf("%T: %v", err, err)
		return
	}
	for _, k := range faultKeys {
		_, gerr := e.other.Raw().Get(e.t.Context(), k)
		gone, rest := errors.Is(gerr, tikv.ErrNotFound), part != nil && part.Rest[0].Contains(k)
		if !rest && !gone || rest && gone && !errors.Is(err, tikv.ErrUndetermined) || gone && tikv.NotSent(err) {
			e.errorf("%s: gone %v after %v", k, gone, err)
		}
	}
}

func rawWork(rpc, name string, once bool, do func(*faultTest) error, check func(*faultTest, error)) faultWork {
	return faultWork{protocol: "raw", rpc: rpc, name: name, raw: true, once: once, do: do, check: check}
}

func isNew(keys ...[]byte) func(*faultTest, error) {
	return func(e *faultTest, err error) { e.rawIs(err, "new", keys...) }
}

func isGone(keys ...[]byte) func(*faultTest, error) {
	return func(e *faultTest, err error) { e.rawIs(err, "-", keys...) }
}

func rawWorks() []faultWork {
	all := tikv.Range{Start: a, End: []byte("zz")}
	both := []tikv.Pair{{Key: a, Value: b("new")}, {Key: z, Value: b("new")}}
	rawScan := func(opts ...tikv.ScanOption) func(e *faultTest) error {
		return func(e *faultTest) error {
			pairs, err := tikv.Collect(e.client.Raw().Scan(e.ctx, all, opts...))
			if err == nil && len(pairs) != len(faultKeys) {
				e.errorf("%d pairs", len(pairs))
			}
			return e.same(pairValues(pairs), "old", err)
		}
	}
	works := []faultWork{
		rawWork("RawGet", "Get", false, rawGet, unchanged),
		rawWork("RawBatchGet", "BatchGet", false, rawBatchGet, unchanged),
		rawWork("RawScan", "Scan", false, rawScan(), unchanged),
		rawWork("RawScan", "Scan backwards", false, rawScan(tikv.WithReverse(), tikv.WithPageSize(1)), unchanged),
		rawWork("RawChecksum", "Checksum", false, func(e *faultTest) error {
			sum, err := e.client.Raw().Checksum(e.ctx, all)
			if err == nil && sum.Pairs != uint64(len(faultKeys)) {
				e.errorf("%d pairs", sum.Pairs)
			}
			return err
		}, unchanged),
		rawWork("RawGetKeyTTL", "TTL", false, func(e *faultTest) error {
			_, _, err := e.client.Raw().TTL(e.ctx, a)
			return err
		}, unchanged),
	}
	for _, atomic := range []bool{false, true} {
		of := map[bool]string{true: "atomic "}[atomic]
		view := func(e *faultTest) *tikv.Raw {
			if atomic {
				return &e.client.AtomicRaw().Raw
			}
			return e.client.Raw()
		}
		works = append(works,
			rawWork("RawPut", of+"Put", atomic, func(e *faultTest) error { return view(e).Put(e.ctx, a, b("new")) }, isNew(a)),
			rawWork("RawDelete", of+"Delete", atomic, func(e *faultTest) error { return view(e).Delete(e.ctx, a) }, isGone(a)),
			rawWork("RawBatchPut", of+"BatchPut", atomic, func(e *faultTest) error { return view(e).BatchPut(e.ctx, both) }, isNew(a, z)),
			rawWork("RawBatchDelete", of+"BatchDelete", atomic, func(e *faultTest) error { return view(e).BatchDelete(e.ctx, [][]byte{a, z}) }, isGone(a, z)),
			rawWork("RawDeleteRange", of+"DeleteRange", atomic, func(e *faultTest) error { return view(e).DeleteRange(e.ctx, all) }, (*faultTest).rangeIs),
		)
	}
	works = append(works, rawWork("RawCompareAndSwap", "CompareAndSwap", true, func(e *faultTest) (err error) {
		e.prev, e.swapped, err = e.client.AtomicRaw().CompareAndSwap(e.ctx, a, b("old"), b("new"))
		return err
	}, func(e *faultTest, err error) {
		e.rawIs(err, "new", a)
		twice := e.kind.fault.Duplicate && string(e.prev) == "new"
		if err == nil && !twice && (!e.swapped || string(e.prev) != "old") {
			e.errorf("swapped %v, before %q", e.swapped, e.prev)
		}
	}))
	return works
}

func rawGet(e *faultTest) error {
	v, err := e.client.Raw().Get(e.ctx, a)
	return e.same([][]byte{v}, "old", err)
}

func rawBatchGet(e *faultTest) error {
	got, err := e.client.Raw().BatchGet(e.ctx, faultKeys)
	return e.same(got, "old", err)
}
