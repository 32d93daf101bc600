package tikv_test

import "github.com/tikv-go/tikv"

// pdWorks are calls that ask PD, of clients that know nothing.
func pdWorks() []faultWork {
	cold := func(rpc, name string, raw bool, do func(*faultTest) error) faultWork {
		return faultWork{protocol: "PD", rpc: rpc, name: name, pd: true, raw: raw, cold: true, do: do, check: unchanged}
	}
	open := func(e *faultTest) error {
		c, err := tikv.Open(e.ctx, e.cluster.PD(), append(e.cluster.ClientOptions(), tikv.WithDialer(e.mortal.net.Dial))...)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	works := []faultWork{
		cold("GetRegion", "Raw.Get", true, rawGet),
		cold("GetStore", "Raw.Get", true, rawGet),
		cold("BatchScanRegions", "Raw.BatchGet", true, rawBatchGet),
		cold("GetPrevRegion", "Raw.Scan backwards", true, func(e *faultTest) error {
			pairs, err := tikv.Collect(e.client.Raw().Scan(e.ctx, tikv.Range{End: []byte("m")}, tikv.WithReverse()))
			return e.same(pairValues(pairs), "old", err)
		}),
		cold("GetMembers", "Open", true, open),
		cold("GetClusterInfo", "Open", true, open),
		cold("GetGCState", "Snapshot.Get", false, func(e *faultTest) error {
			snap, err := e.client.Snapshot(e.ctx)
			if err != nil {
				return err
			}
			v, err := snap.Get(e.ctx, a)
			return e.same([][]byte{v}, "old", err)
		}),
		cold("Tso", "Begin and Commit", false, func(e *faultTest) (err error) {
			if e.tx, err = e.client.Begin(e.ctx); err != nil {
				return err
			}
			e.must(putAll(e.tx, "new", faultKeys...))
			return e.tx.Commit(e.ctx)
		}),
		cold("Tso", "Commit", false, func(e *faultTest) error { return e.tx.Commit(e.ctx) }),
	}
	for i := range works {
		switch works[i].name {
		case "Commit":
			works[i].begin = func(e *faultTest) {
				e.tx = begin(e.t, e.client)
				e.must(putAll(e.tx, "new", faultKeys...))
			}
			fallthrough
		case "Begin and Commit":
			works[i].check = (*faultTest).committed
		}
	}
	return works
}
