package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// The client follows PD's leader and the addresses of all nodes, whatever becomes of the
// members one after the other, with and without services beside PD.
func TestMembersComeAndGo(t *testing.T) {
	for name, opts := range map[string][]playground.Option{"": nil, "services": {playground.WithPDServices()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testMembersComeAndGo(t, opts) })
		})
	}
}

func testMembersComeAndGo(t *testing.T, opts []playground.Option) {
	c := tikvtest.NewCluster(t, append(opts, playground.WithMembers(3), playground.WithSplitKeys(playground.KeyTxn, []byte("m")))...)
	client := c.Open()
	n := 0
	write := func(what string) {
		t.Helper()
		n++
		began := time.Now()
		err := client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
			return errors.Join(tx.Put([]byte("a"), fmt.Append(nil, n)), tx.Put([]byte("z"), fmt.Append(nil, n)))
		})
		if err != nil {
			t.Fatalf("%s: %v after %v", what, err, time.Since(began))
		}
		snapshot, err := client.Snapshot(t.Context())
		if err != nil {
			t.Fatalf("%s: %v after %v", what, err, time.Since(began))
		}
		for _, key := range []string{"a", "z"} {
			if got, err := snapshot.Get(t.Context(), []byte(key)); err != nil || string(got) != fmt.Sprint(n) {
				t.Fatalf("%s: %q %v", what, got, err)
			}
		}
	}
	write("at first")
	for i := range 3 {
		m := playground.Member(i)
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"leads", func() error { return c.TransferPD(i) }},
			{"moves", func() error { return c.Move(m) }},
			{"leads at its new address", func() error { return c.TransferPD(i) }},
			{"is suspended", func() error { return c.Pause(m) }},
			{"is back", func() error { return c.Start(m) }},
			{"leads again", func() error { return c.TransferPD(i) }},
			{"is cut off from the others", func() error {
				for j := range 3 {
					if j != i {
						if err := c.Cut(m, playground.Member(j)); err != nil {
							return err
						}
					}
				}
				return nil
			}},
			{"hears them again", func() error { c.Heal(); return nil }},
			{"stops", func() error { return c.Stop(m) }},
			{"starts", func() error { return c.Start(m) }},
			{"has a store that moves", func() error { return c.Move(playground.Store(uint64(i + 1))) }},
		} {
			if err := step.do(); err != nil {
				t.Fatal(i, step.name, err)
			}
			write(fmt.Sprintf("member %d %s", i, step.name))
			<-time.After(20 * time.Second)
			write(fmt.Sprintf("member %d %s, later", i, step.name))
		}
	}
}
