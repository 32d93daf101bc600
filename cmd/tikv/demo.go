package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func demoCommand(io stdio) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the main things a client does, on a cluster made for it",
		Long:  "Start an embedded cluster of three stores, work with it, and check every result. Needs nothing and leaves nothing behind.",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), io.out)
		},
	}
}

// demo tells a story and checks it.
type demo struct {
	out     io.Writer
	cluster *playground.Cluster
	client  *tikv.Client
	checks  int
}

// steady remembers that a write failed, so that the story need not look at each.
type steady struct {
	w   io.Writer
	err error
}

func (s *steady) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(b)
	s.err = err
	return n, err
}

func runDemo(ctx context.Context, w io.Writer) (err error) {
	start, out := time.Now(), &steady{w: w}
	cluster, err := playground.Start(ctx, playground.WithStores(3), playground.WithAPIVersion(playground.APIV2), playground.WithTCP(playgroundHost, 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithAPIVersion(tikv.APIV2))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	d := &demo{out: out, cluster: cluster, client: client}
	d.say("A TiKV cluster of three stores and one PD now runs inside this process, with PD at %s.", cluster.PD()[0])
	d.say("PD knows which store serves which range of keys and hands out timestamps; stores hold the data.")
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"Raw keys: a plain key-value store", d.raw},
		{"Transactions: all or nothing", d.transfer},
		{"Conflicts: the first to commit wins", d.conflict},
		{"Snapshots and scans: one moment, in order", d.snapshot},
		{"The cluster changes, callers do not notice", d.change},
		{"A store goes away and comes back", d.outage},
	} {
		fmt.Fprintf(out, "\n%s\n", chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("demo: %s: %w", chapter.title, err)
		}
	}
	fmt.Fprintf(out, "\nAll %d checks passed in %.1f s. Next: 'tikv playground' in one terminal, 'tikv put a 1' and 'tikv get a' in another.\n",
		d.checks, time.Since(start).Seconds())
	return out.err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "  "+format+"\n", args...) }

// check tells what was found and fails the demo if it is not what it should be.
func (d *demo) check(ok bool, format string, args ...any) error {
	d.checks++
	if !ok {
		return fmt.Errorf("expected: "+format, args...)
	}
	fmt.Fprintf(d.out, "  ✓ "+format+"\n", args...)
	return nil
}

func (d *demo) raw(ctx context.Context) error {
	raw := d.client.Raw()
	if err := raw.Put(ctx, []byte("greeting"), []byte("hello")); err != nil {
		return err
	}
	v, err := raw.Get(ctx, []byte("greeting"))
	if err != nil {
		return err
	}
	if err := d.check(string(v) == "hello", "put greeting=hello, and get gives %q", v); err != nil {
		return err
	}
	if err := raw.Put(ctx, []byte("session"), []byte("alice"), tikv.WithTTL(time.Hour)); err != nil {
		return err
	}
	left, expires, err := raw.TTL(ctx, []byte("session"))
	if err != nil {
		return err
	}
	if err := d.check(expires && left > 59*time.Minute && left <= time.Hour, "a key put with a TTL of one hour will expire by itself"); err != nil {
		return err
	}
	if err := raw.Delete(ctx, []byte("greeting")); err != nil {
		return err
	}
	_, err = raw.Get(ctx, []byte("greeting"))
	return d.check(errors.Is(err, tikv.ErrNotFound), "after a delete, get says %q", tikv.ErrNotFound)
}

// Accounts hold a balance of eight bytes.
var accounts = [][]byte{[]byte("account/alice"), []byte("account/bob"), []byte("account/carol")}

func balance(ctx context.Context, r tikv.Reader, account []byte) (int64, error) {
	b, err := r.Get(ctx, account)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("a balance of %d bytes", len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

func setBalance(tx *tikv.Txn, account []byte, n int64) error {
	return tx.Put(account, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// move takes amount from one account to another.
func move(ctx context.Context, tx *tikv.Txn, from, to []byte, amount int64) error {
	a, err := balance(ctx, tx, from)
	if err != nil {
		return err
	}
	b, err := balance(ctx, tx, to)
	if err != nil {
		return err
	}
	if err := setBalance(tx, from, a-amount); err != nil {
		return err
	}
	return setBalance(tx, to, b+amount)
}

func (d *demo) transfer(ctx context.Context) error {
	err := d.client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for _, account := range accounts {
			if err := setBalance(tx, account, 100); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.say("Alice, Bob and Carol have 100 each, written in one transaction.")
	err = d.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return move(ctx, tx, accounts[0], accounts[1], 30) })
	if err != nil {
		return err
	}
	if err := d.balances(ctx, "after Alice paid Bob 30", 70, 130, 100); err != nil {
		return err
	}
	changedMind := errors.New("changed my mind")
	err = d.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		if err := move(ctx, tx, accounts[1], accounts[2], 130); err != nil {
			return err
		}
		return changedMind
	})
	if err := d.check(errors.Is(err, changedMind), "a function that returns an error ends its transaction: %q", err); err != nil {
		return err
	}
	return d.balances(ctx, "and nothing of it was written", 70, 130, 100)
}

func (d *demo) balances(ctx context.Context, what string, want ...int64) error {
	snap, err := d.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	got := make([]int64, len(accounts))
	for i, account := range accounts {
		if got[i], err = balance(ctx, snap, account); err != nil {
			return err
		}
	}
	return d.check(fmt.Sprint(got) == fmt.Sprint(want), "%s: Alice %d, Bob %d, Carol %d", what, got[0], got[1], got[2])
}

func (d *demo) conflict(ctx context.Context) error {
	first, err := d.client.Begin(ctx)
	if err != nil {
		return err
	}
	defer first.Rollback(ctx)
	second, err := d.client.Begin(ctx)
	if err != nil {
		return err
	}
	defer second.Rollback(ctx)
	d.say("Two transactions begin, read Alice's balance, and both want to change it.")
	for _, tx := range []*tikv.Txn{first, second} {
		if err := move(ctx, tx, accounts[0], accounts[1], 10); err != nil {
			return err
		}
	}
	if err := first.Commit(ctx); err != nil {
		return err
	}
	err = second.Commit(ctx)
	var conflict *tikv.WriteConflictError
	if err := d.check(errors.As(err, &conflict) && tikv.IsRetryable(err), "the first commits, the second is told of a write conflict and to run again"); err != nil {
		return err
	}
	attempts := 0
	err = d.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		attempts++
		if err := move(ctx, tx, accounts[0], accounts[1], 10); err != nil {
			return err
		}
		if attempts > 1 {
			return nil
		}
		// Someone else is quicker, the first time.
		return d.client.RunTxn(ctx, func(ctx context.Context, other *tikv.Txn) error {
			return move(ctx, other, accounts[2], accounts[0], 20)
		})
	})
	if err != nil {
		return err
	}
	if err := d.check(attempts == 2, "RunTxn does that by itself: it took %d attempts", attempts); err != nil {
		return err
	}
	return d.balances(ctx, "every transfer happened exactly once", 70, 150, 80)
}

func (d *demo) snapshot(ctx context.Context) error {
	before, err := d.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	err = d.client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for i := range 1000 {
			if err := tx.Put(fmt.Appendf(nil, "item/%04d", i), fmt.Appendf(nil, "value %d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	items := tikv.Prefix([]byte("item/"))
	old, err := tikv.Collect(before.Scan(ctx, items))
	if err != nil {
		return err
	}
	now, err := d.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	all, err := tikv.Collect(now.Scan(ctx, items))
	if err != nil {
		return err
	}
	ordered := len(all) == 1000
	for i := 1; i < len(all); i++ {
		ordered = ordered && bytes.Compare(all[i-1].Key, all[i].Key) < 0
	}
	if err := d.check(len(old) == 0 && ordered, "a snapshot taken before 1,000 items were written sees %d of them, one taken after sees %d, in order", len(old), len(all)); err != nil {
		return err
	}
	last, err := tikv.Collect(now.Scan(ctx, items, tikv.WithReverse(), tikv.WithLimit(3)))
	if err != nil {
		return err
	}
	ok := len(last) == 3 && string(last[0].Key) == "item/0999" && string(last[2].Key) == "item/0997"
	return d.check(ok, "the last three, backwards: %s, %s, %s", last[0].Key, last[1].Key, last[2].Key)
}

func (d *demo) change(ctx context.Context) error {
	const workers, rounds = 4, 50
	counter := []byte("item/counter")
	errs := make(chan error, workers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range workers {
		go func() { errs <- d.increment(ctx, counter, rounds) }()
	}
	err := d.reshape()
	for range workers {
		werr := <-errs
		if err == nil && werr != nil {
			err = werr
			cancel()
		}
	}
	if err != nil {
		return err
	}
	n, err := balance(ctx, d.client.Latest(), counter)
	if err != nil {
		return err
	}
	return d.check(n == workers*rounds, "meanwhile %d workers counted to %d, in transactions, without an error and without losing one", workers, n)
}

// reshape splits the items' region and moves the leader of the new one to every store.
func (d *demo) reshape() error {
	region, err := d.cluster.Split(playground.KeyTxn, []byte("item/0500"))
	if err != nil {
		return err
	}
	if err := d.check(region != 0, "the range of keys was split at item/0500: the upper half is region %d", region); err != nil {
		return err
	}
	var path []uint64
	for _, r := range d.cluster.Regions(playground.KeyTxn) {
		if r.ID != region {
			continue
		}
		for _, store := range r.Stores {
			if store == r.Leader {
				continue
			}
			if err := d.cluster.TransferLeader(region, store); err != nil {
				return err
			}
			path = append(path, store)
		}
	}
	return d.check(len(path) == 2, "its leader moved to two other stores in turn: %v", path)
}

func (d *demo) increment(ctx context.Context, key []byte, times int) error {
	for range times {
		err := d.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			n, err := balance(ctx, tx, key)
			if err != nil && !errors.Is(err, tikv.ErrNotFound) {
				return err
			}
			return setBalance(tx, key, n+1)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) outage(ctx context.Context) error {
	store := playground.Store(1)
	if err := d.cluster.Stop(store); err != nil {
		return err
	}
	err := d.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return move(ctx, tx, accounts[1], accounts[0], 50) })
	if err != nil {
		return err
	}
	if err := d.balances(ctx, "with store 1 stopped, the other two serve", 120, 100, 80); err != nil {
		return err
	}
	if err := d.cluster.Start(store); err != nil {
		return err
	}
	return d.balances(ctx, "store 1 is back", 120, 100, 80)
}
