package playground_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func open(t *testing.T, c *playground.Cluster) *tikv.Client {
	t.Helper()
	client, err := tikv.Open(t.Context(), c.PD(), tikv.WithDialer(c.DialContext))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func startCluster(t *testing.T, opts ...playground.Option) *playground.Cluster {
	t.Helper()
	c, err := playground.Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Faults that pass by themselves, or that the client has a way around: it gets its data
// all the same.
func TestClientOverFaults(t *testing.T) {
	read := func(ctx context.Context, c *tikv.Client) error {
		value, err := c.Latest().Get(ctx, []byte("k"))
		if err == nil && string(value) != "v" {
			err = fmt.Errorf("read %q", value)
		}
		return err
	}
	write := func(ctx context.Context, c *tikv.Client) error {
		return c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("k"), []byte("v")) })
	}
	txn := func(kind playground.KeyFault, method string) func(*playground.Cluster) error {
		return func(c *playground.Cluster) error {
			c.Inject(playground.Fault{Method: method, KeyError: kind, Times: 1})
			return nil
		}
	}
	other := func(c *playground.Cluster) (region, leader, follower uint64) {
		r := c.Regions(playground.KeyTxn)[0]
		return r.ID, r.Leader, r.Leader%3 + 1
	}
	tests := map[string]struct {
		fault func(c *playground.Cluster) error
		do    func(context.Context, *tikv.Client) error
	}{
		"a lock of no one, read":       {txn(playground.KeyLocked, "KvGet"), read},
		"a lock of no one, written":    {txn(playground.KeyLocked, "KvPrewrite"), write},
		"a conflict":                   {txn(playground.WriteConflict, "KvPrewrite"), write},
		"a commit below min commit ts": {txn(playground.CommitTSExpired, "KvCommit"), write},
		"region merged": {func(c *playground.Cluster) error {
			r := c.Regions(playground.KeyTxn)
			return c.Merge(r[0].ID, r[1].ID)
		}, read},
		"region merged, written": {func(c *playground.Cluster) error {
			r := c.Regions(playground.KeyTxn)
			return c.Merge(r[1].ID, r[0].ID)
		}, write},
		"leader's peer removed": {func(c *playground.Cluster) error {
			region, leader, _ := other(c)
			return c.RemovePeer(region, leader)
		}, write},
		"leader made a learner": {func(c *playground.Cluster) error {
			region, leader, _ := other(c)
			return c.AddPeer(region, leader, playground.Learner)
		}, read},
		"followers made a witness": {func(c *playground.Cluster) error {
			region, leader, follower := other(c)
			return errors.Join(c.AddPeer(region, follower, playground.Witness), c.TransferLeader(region, 6-leader-follower))
		}, write},
		"leader's disk almost full": {func(c *playground.Cluster) error {
			_, leader, _ := other(c)
			return c.SetStore(leader, playground.StoreState{Disk: playground.DiskAlmostFull})
		}, write},
		"leader cut off from the other stores": {func(c *playground.Cluster) error {
			_, leader, follower := other(c)
			return errors.Join(c.Cut(playground.Store(follower), playground.Store(leader)), c.Cut(playground.Store(leader), playground.Store(6-leader-follower)))
		}, read},
		"no timestamps for 2 s": {func(c *playground.Cluster) error {
			c.StallTSO(true)
			time.AfterFunc(2*time.Second, func() { c.StallTSO(false) })
			return nil
		}, write},
		"timestamps an hour ahead": {func(c *playground.Cluster) error {
			c.JumpTSO(time.Hour)
			return nil
		}, write},
		"region forgotten for 2 s": {func(c *playground.Cluster) error {
			r := c.Regions(playground.KeyTxn)
			if err := c.Merge(r[1].ID, r[0].ID); err != nil { // else the client has no need of PD
				return err
			}
			time.AfterFunc(2*time.Second, func() { _ = c.HideRegion(r[0].ID, false) })
			return c.HideRegion(r[0].ID, true)
		}, write},
		"truncated answer": {func(c *playground.Cluster) error {
			c.Inject(playground.Fault{Method: "KvGet", Times: 1, Mangle: func(b []byte) []byte { return b[:len(b)-1] }})
			return nil
		}, read},
		"store cut off from the client for 5 s": {func(c *playground.Cluster) error {
			_, leader, _ := other(c)
			time.AfterFunc(5*time.Second, c.Heal)
			return c.Cut(playground.Client(), playground.Store(leader))
		}, read},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("m")))
				client := open(t, c)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				must(t, write(ctx, client))
				must(t, read(ctx, client))
				must(t, test.fault(c))
				must(t, test.do(ctx, client))
				must(t, read(ctx, client))
			})
		})
	}
}
