package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// TestRegisters lets workers read, write and swap raw keys while the cluster is disturbed,
// and checks that what they were told is linearizable.
func TestRegisters(t *testing.T) {
	histories(t, Registers, 100, func(r *run) {
		r.mode, r.methods = playground.KeyRaw, append(registersMethods[:len(registersMethods):len(registersMethods)], pdMethods...)
		r.make((*worker).call, r.readRegisters)
	})
}

// readRegisters are the last calls, which read all.
func (r *run) readRegisters(ctx context.Context, c *tikv.Client) error {
	for key := range keys {
		call := Call{Worker: -1, Key: key, Do: Read, Called: r.tick()}
		data, err := tikv.Optional(c.AtomicRaw().Get(ctx, keyOf(key)))
		if err != nil {
			return fmt.Errorf("the last read: %w", err)
		}
		if err := r.got(&call, data, nil); err != nil {
			return err
		}
	}
	return nil
}

// record puts a call that has ended into the history.
func (r *run) record(c *Call, err error) {
	c.Ended, c.Outcome, c.Note = r.tick(), outcome(err), note(err)
	r.did(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Calls = append(r.history.Calls, *c)
}

// got records a call that brought a value.
func (r *run) got(c *Call, data []byte, err error) error {
	if data != nil && err == nil {
		got, bad := strconv.Atoi(string(data))
		if bad != nil {
			return fmt.Errorf("key %d has the value %q", c.Key, data)
		}
		c.Got = got
	}
	r.record(c, err)
	return unexpected(err)
}

// call makes one call, of one kind or another.
func (w *worker) call() error {
	ctx, cancel := w.timeout()
	defer cancel()
	raw := w.client().AtomicRaw()
	switch n := w.rng.IntN(20); {
	case n < 6:
		return w.get(ctx, raw)
	case n < 8:
		return w.batchGet(ctx, raw)
	case n < 11:
		return w.put(ctx, raw)
	case n < 12:
		return w.batchPut(ctx, raw)
	case n < 13:
		c := w.new(Write)
		err := raw.Delete(ctx, keyOf(c.Key))
		w.record(&c, err)
		return unexpected(err)
	}
	return w.swap(ctx, raw)
}

func (w *worker) new(do Do) Call {
	return Call{Worker: w.id, Key: w.key(), Do: do, Called: w.tick()}
}

func (w *worker) get(ctx context.Context, raw *tikv.AtomicRaw) error {
	c := w.new(Read)
	data, err := tikv.Optional(raw.Get(ctx, keyOf(c.Key)))
	return w.got(&c, data, err)
}

func (w *worker) put(ctx context.Context, raw *tikv.AtomicRaw) error {
	c := w.new(Write)
	c.New = int(w.value.Add(1))
	err := raw.Put(ctx, keyOf(c.Key), itoa(c.New))
	w.record(&c, err)
	return unexpected(err)
}

// some are calls on different keys that will be made at once.
func (w *worker) some(do Do) ([]Call, [][]byte) {
	calls := []Call{w.new(do)}
	for _, by := range []int{1, 3, 7}[:1+w.rng.IntN(3)] {
		c := calls[0]
		c.Key = (c.Key + by) % keys
		calls = append(calls, c)
	}
	names := make([][]byte, len(calls))
	for i := range calls {
		names[i] = keyOf(calls[i].Key)
	}
	return calls, names
}

func (w *worker) batchGet(ctx context.Context, raw *tikv.AtomicRaw) error {
	calls, names := w.some(Read)
	values, err := raw.BatchGet(ctx, names)
	if err != nil {
		values = make([][]byte, len(names))
	}
	for i := range calls {
		if bad := w.got(&calls[i], values[i], err); bad != nil {
			return bad
		}
	}
	return nil
}

func (w *worker) batchPut(ctx context.Context, raw *tikv.AtomicRaw) error {
	calls, names := w.some(Write)
	pairs := make([]tikv.Pair, len(calls))
	for i := range calls {
		calls[i].New = int(w.value.Add(1))
		pairs[i] = tikv.Pair{Key: names[i], Value: itoa(calls[i].New)}
	}
	err := raw.BatchPut(ctx, pairs)
	var batch *tikv.BatchError
	for i := range calls {
		each := err
		if errors.As(err, &batch) {
			each = batch.Errs[i]
			if want := map[Outcome]tikv.Outcome{Done: tikv.OutcomeDone, Failed: tikv.OutcomeFailed, Unknown: tikv.OutcomeUnknown}[outcome(each)]; want != batch.Outcomes[i] {
				return fmt.Errorf("a pair's outcome is %v, its error %w", batch.Outcomes[i], each)
			}
		}
		w.record(&calls[i], each)
	}
	return unexpected(err)
}

// swap compares with the newest value that the worker can know of, or another.
func (w *worker) swap(ctx context.Context, raw *tikv.AtomicRaw) error {
	key := w.key()
	look := Call{Worker: w.id, Key: key, Do: Read, Called: w.tick()}
	data, err := tikv.Optional(raw.Get(ctx, keyOf(key)))
	if bad := w.got(&look, data, err); err != nil || bad != nil {
		return bad
	}
	c := Call{Worker: w.id, Key: key, Do: Swap, Old: look.Got, Called: w.tick()}
	switch w.rng.IntN(6) {
	case 0:
		c.Old = 0
	case 1:
		c.Old = 1 + w.rng.IntN(int(w.value.Load())+1)
	}
	var prev []byte
	switch {
	case c.Old == 0:
		c.New = int(w.value.Add(1))
		prev, c.Swapped, err = raw.PutIfAbsent(ctx, keyOf(key), itoa(c.New))
	case w.rng.IntN(5) == 0:
		prev, c.Swapped, err = raw.DeleteIfEquals(ctx, keyOf(key), itoa(c.Old))
	default:
		c.New = int(w.value.Add(1))
		prev, c.Swapped, err = raw.CompareAndSwap(ctx, keyOf(key), itoa(c.Old), itoa(c.New))
	}
	return w.got(&c, prev, err)
}
