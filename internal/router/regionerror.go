package router

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/backoff"
)

// action is what follows a failed attempt.
type action uint8

const (
	again    action = iota // the same peer, after the wait
	other                  // the next peer that has not failed, at once; after the wait when all have
	follow                 // the leader that the error names
	relocate               // forget the region; the caller locates again, after the wait
	replace                // take over the regions that the error names; the caller locates again
	fail                   // give up: waiting cannot help
)

var actionNames = [...]string{"again", "other", "follow", "relocate", "replace", "fail"}

// rule is how a kind of failure is met.
type rule struct {
	reason Reason
	do     action
	wait   backoff.Kind
	mayRun bool // the request may have run, or may run yet: a write's outcome is open
	set    func(*errorpb.Error) bool
}

// rules is the table of region errors, in the order in which they count. A refusal is
// certain (mayRun false) where TiKV checks before it proposes, or where applying the
// entry is a no-op. One doubt is left on purpose: TiKV answers RegionNotFound also to
// what was proposed on a peer that is destroyed while the proposal waits (raftstore
// store/peer.rs, destroy), which takes a partitioned former leader and the removal of
// its peer within one request; it cannot be told from the check.
var rules = [...]rule{
	{NotLeader, follow, backoff.Scheduling, false, func(e *errorpb.Error) bool { return e.NotLeader != nil }},
	{UndeterminedResult, again, backoff.RPC, true, func(e *errorpb.Error) bool { return e.UndeterminedResult != nil }},
	{DiskFull, again, backoff.DiskFull, false, func(e *errorpb.Error) bool { return e.DiskFull != nil }},
	{Recovery, relocate, backoff.Recovery, false, func(e *errorpb.Error) bool { return e.RecoveryInProgress != nil }},
	{Witness, relocate, backoff.Witness, false, func(e *errorpb.Error) bool { return e.IsWitness != nil }},
	{Flashback, fail, backoff.Kind{}, false, func(e *errorpb.Error) bool { return e.FlashbackInProgress != nil }},
	{FlashbackNotPrepared, fail, backoff.Kind{}, false, func(e *errorpb.Error) bool { return e.FlashbackNotPrepared != nil }},
	{RegionNotFound, relocate, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.RegionNotFound != nil }},
	{KeyNotInRegion, relocate, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.KeyNotInRegion != nil }},
	{EpochNotMatch, replace, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.EpochNotMatch != nil }},
	{BucketVersion, relocate, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.BucketVersionNotMatch != nil }},
	{ServerBusy, again, backoff.ServerBusy, false, func(e *errorpb.Error) bool { return e.ServerIsBusy != nil }},
	{StaleCommand, again, backoff.StaleCommand, true, func(e *errorpb.Error) bool { return e.StaleCommand != nil }},
	{StoreNotMatch, relocate, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.StoreNotMatch != nil }},
	{EntryTooLarge, fail, backoff.Kind{}, false, func(e *errorpb.Error) bool { return e.RaftEntryTooLarge != nil }},
	{MaxTSNotSynced, again, backoff.MaxTS, false, func(e *errorpb.Error) bool { return e.MaxTimestampNotSynced != nil }},
	{RegionNotInitialized, again, backoff.NotInitialized, false, func(e *errorpb.Error) bool { return e.RegionNotInitialized != nil }},
	{ReadIndexNotReady, again, backoff.Scheduling, false, func(e *errorpb.Error) bool { return e.ReadIndexNotReady != nil }},
	{Merging, again, backoff.Scheduling, false, func(e *errorpb.Error) bool { return e.ProposalInMergingMode != nil }},
	{DataNotReady, other, backoff.Scheduling, false, func(e *errorpb.Error) bool { return e.DataIsNotReady != nil }},
	{MismatchPeer, relocate, backoff.RegionMiss, false, func(e *errorpb.Error) bool { return e.MismatchPeerId != nil }},
	// Only words: a merge that waits, a snapshot being applied, a timeout, a store that
	// stops. TiKV sets no part of the message for these.
	{OtherRegionError, other, backoff.RPC, true, func(*errorpb.Error) bool { return true }},
}

// ruleOf finds the rule of a region error.
func ruleOf(e *errorpb.Error) *rule {
	for i := range rules {
		if rules[i].set(e) {
			return &rules[i]
		}
	}
	return &rules[len(rules)-1]
}

// String is the rule as a line of a table.
func (r rule) String() string {
	wait, runs := r.wait.Name, "did not run"
	if wait == "" {
		wait = "-"
	}
	if r.mayRun {
		runs = "may have run"
	}
	return fmt.Sprintf("%-24s %-9s %-15s %s", r.reason, actionNames[r.do], wait, runs)
}
