package interop

import (
	"errors"
	"fmt"
	"strings"

	tikverr "github.com/tikv/client-go/v2/error"
)

// errorArea answers one request of each kind with each region error. The client asks
// again: what it reads is right and what it writes is there once.
func errorArea() area {
	a := area{name: "region errors"}
	for _, name := range []string{
		"NotLeader", "RegionNotFound", "KeyNotInRegion", "EpochNotMatch", "ServerIsBusy", "StaleCommand", "StoreNotMatch",
		"MaxTimestampNotSynced", "ReadIndexNotReady", "ProposalInMergingMode", "DataIsNotReady", "RegionNotInitialized",
		"DiskFull", "RecoveryInProgress", "IsWitness", "MismatchPeerID", "BucketVersionNotMatch",
	} {
		a.cases = append(a.cases, kase{name: name, run: func(e *env) {
			e.put("a=0", "b=0")
			var all []*injected
			methods := []string{"KvGet", "KvScan", "KvPrewrite", "KvCommit", "RawPut", "RawGet"}
			if name == "ServerIsBusy" { // for 2 s
				methods = []string{"KvPrewrite"}
			}
			for _, method := range methods {
				all = append(all, e.fault(map[string]any{"method": method, "region_error": name, "times": 1}))
			}
			tx := e.begin()
			e.want(tx, "a=0")
			e.same("scan", e.scan(tx), "a=0 b=0")
			e.set(tx, "a=1", "b=1")
			e.must(tx.Commit(e.ctx()))
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a=1", "b=1")
			e.rawPut("raw=1")
			e.rawWant("raw=1")
			for _, i := range all {
				e.same("hits", i.hits(), 1)
			}
			e.must(e.raw.Delete(e.ctx(), e.key("raw")))
			e.same("history", e.history("a"), "Put Put")
		}})
	}
	for name, want := range map[string]error{"FlashbackInProgress": tikverr.ErrRegionFlashbackInProgress, "FlashbackNotPrepared": tikverr.ErrRegionFlashbackNotPrepared} {
		a.cases = append(a.cases, kase{name: name, run: func(e *env) {
			e.put("a=0")
			f := e.fault(map[string]any{"method": "KvGet", "region_error": name, "times": 1})
			if _, err := e.snapshot().Get(e.ctx(), e.key("a")); err == nil || !errors.Is(err, want) && !strings.Contains(strings.ToLower(err.Error()), "flashback") {
				e.Fatal(err)
			}
			e.same("hits", f.hits(), 1)
			e.want(nil, "a=0")
		}})
	}
	a.cases = append(a.cases,
		kase{name: "a flood of errors", run: func(e *env) {
			for i, name := range []string{"NotLeader", "EpochNotMatch", "StaleCommand", "RegionNotFound"} {
				e.fault(map[string]any{"region_error": name, "chance": 0.1, "times": 20, "skip": i})
			}
			for i := range 20 {
				e.put(fmt.Sprintf("a=%d", i), fmt.Sprintf("b%02d=%d", i, i))
				e.want(nil, fmt.Sprintf("a=%d", i))
			}
		}},
		kase{name: "connections that break", run: func(e *env) {
			f := e.fault(map[string]any{"method": "KvGet", "disconnect": true, "times": 3})
			e.put("a=1")
			e.want(nil, "a=1")
			e.same("hits", f.hits(), 3)
		}},
		kase{name: "a commit of which nobody hears", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1")
			e.fault(map[string]any{"method": "KvCommit", "start_ts": tx.StartTS(), "disconnect": true, "times": 2})
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=1")
			e.same("history", e.history("a"), "Put")
		}},
	)
	return a
}
