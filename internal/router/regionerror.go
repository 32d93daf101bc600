package router

import (
	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/transport"
)

// action is what follows a failed attempt.
type action uint8

const (
	again    action = iota // the same peer, after the wait
	other                  // the next peer, at once; after the wait when none is left
	aside                  // again; where other peers may answer, they first, and the wait when none is left
	follow                 // the leader that the error names; without one the next peer, after the wait
	plainly                // the leader, without the stale flag; asked as leader already, again
	relocate               // forget the region; the caller locates again, after the wait
	replace                // take over what the error tells of the region; the caller locates again
	refer                  // the leader, where a replica said so; else give up
	fail                   // give up: waiting cannot help
)

// fate is whether the request of a failed attempt may have run.
type fate uint8

const (
	unrun  fate = iota // it did not
	open               // it may have, or may yet: a write's outcome is unknown
	asSent             // it may have, if it was written to the connection
)

var fateNames = [...]string{"did not run", "may have run", "may have run, if it was sent"}

// lesson is what the caches learn from a failure.
type lesson uint8

const (
	toldLeader  lesson = 1 << iota // who leads, if the error says
	toldRegions                    // the regions as they are now
	toldBuckets                    // the region's buckets
	outdated                       // the region is not what it was: ask PD
	moved                          // the store may be elsewhere: ask PD for its address
	queued                         // how long the store's queue is, or that it is slow
	unreached                      // the store did not answer
)

// rule is how a kind of failure is met.
type rule struct {
	reason Reason
	do     action
	wait   backoff.Kind
	// tries is how many attempts at one peer may end so before the others are asked, within
	// the time of the call, which bounds them all; 0: as many as there is time for.
	tries uint8
	fate  fate
	learn lesson
	set   func(*errorpb.Error) bool // nil: the client's own failure
}

// rules is the table of everything that can befall an attempt: TiKV's region errors, in
// the order in which they count, then what the client itself meets. A refusal is certain
// (unrun) where TiKV checks before it proposes, or where applying the entry is a no-op. One
// doubt is left on purpose: TiKV answers RegionNotFound also to what was proposed on a
// peer that is destroyed while the proposal waits (raftstore store/peer.rs, destroy), which
// takes a partitioned former leader and the removal of its peer within one request; it
// cannot be told from the check.
//
// What a replica that was asked as one says about its region is no more than what it
// knows: after any error that leads back to PD, or that is final, the rest of the call
// asks the leader alone.
var rules = [...]rule{
	{NotLeader, follow, backoff.Scheduling, 0, unrun, toldLeader, func(e *errorpb.Error) bool { return e.NotLeader != nil }},
	{UndeterminedResult, again, backoff.RPC, 10, open, 0, func(e *errorpb.Error) bool { return e.UndeterminedResult != nil }},
	{DiskFull, again, backoff.DiskFull, 10, unrun, 0, func(e *errorpb.Error) bool { return e.DiskFull != nil }},
	{Recovery, relocate, backoff.Recovery, 1, unrun, outdated, func(e *errorpb.Error) bool { return e.RecoveryInProgress != nil }},
	{Witness, relocate, backoff.Witness, 1, unrun, outdated, func(e *errorpb.Error) bool { return e.IsWitness != nil }},
	{Flashback, refer, backoff.Kind{}, 1, unrun, 0, func(e *errorpb.Error) bool { return e.FlashbackInProgress != nil }},
	{FlashbackNotPrepared, fail, backoff.Kind{}, 1, unrun, 0, func(e *errorpb.Error) bool { return e.FlashbackNotPrepared != nil }},
	{RegionNotFound, relocate, backoff.RegionMiss, 1, unrun, outdated, func(e *errorpb.Error) bool { return e.RegionNotFound != nil }},
	{KeyNotInRegion, relocate, backoff.RegionMiss, 1, unrun, outdated, func(e *errorpb.Error) bool { return e.KeyNotInRegion != nil }},
	{EpochNotMatch, replace, backoff.RegionMiss, 1, unrun, toldRegions, func(e *errorpb.Error) bool { return e.EpochNotMatch != nil }},
	{BucketVersion, replace, backoff.RegionMiss, 1, unrun, toldBuckets, func(e *errorpb.Error) bool { return e.BucketVersionNotMatch != nil }},
	// Twice at one leader without a word of how long: it may have lost its region without
	// being able to say so, since a full pool turns requests away unread.
	{ServerBusy, aside, backoff.ServerBusy, 2, unrun, queued, func(e *errorpb.Error) bool { return e.ServerIsBusy != nil }},
	{StaleCommand, again, backoff.StaleCommand, 10, open, 0, func(e *errorpb.Error) bool { return e.StaleCommand != nil }},
	{StoreNotMatch, relocate, backoff.RegionMiss, 1, unrun, outdated | moved, func(e *errorpb.Error) bool { return e.StoreNotMatch != nil }},
	{EntryTooLarge, fail, backoff.Kind{}, 1, unrun, 0, func(e *errorpb.Error) bool { return e.RaftEntryTooLarge != nil }},
	{MaxTSNotSynced, again, backoff.MaxTS, 10, unrun, 0, func(e *errorpb.Error) bool { return e.MaxTimestampNotSynced != nil }},
	{RegionNotInitialized, again, backoff.NotInitialized, 10, unrun, 0, func(e *errorpb.Error) bool { return e.RegionNotInitialized != nil }},
	{ReadIndexNotReady, again, backoff.Scheduling, 10, unrun, 0, func(e *errorpb.Error) bool { return e.ReadIndexNotReady != nil }},
	{Merging, again, backoff.Scheduling, 10, unrun, 0, func(e *errorpb.Error) bool { return e.ProposalInMergingMode != nil }},
	{DataNotReady, plainly, backoff.Scheduling, 1, unrun, 0, func(e *errorpb.Error) bool { return e.DataIsNotReady != nil }},
	{MismatchPeer, relocate, backoff.RegionMiss, 1, unrun, outdated, func(e *errorpb.Error) bool { return e.MismatchPeerId != nil }},
	// TiKV looks at timestamps before it does anything else (src/storage/errors.rs has no
	// code for these).
	{OtherRegionError, fail, backoff.Kind{}, 1, unrun, 0, func(e *errorpb.Error) bool { return isFuture(e.GetMessage()) }},
	// Only words: a merge that waits, a snapshot being applied, a timeout, a store that
	// stops. TiKV sets no part of the message for these.
	{OtherRegionError, other, backoff.RPC, 1, open, 0, func(*errorpb.Error) bool { return true }},

	{Dial, other, backoff.RPC, 1, unrun, moved | unreached, nil},
	{ConnLost, other, backoff.RPC, 1, asSent, moved | unreached, nil},
	{Timeout, other, backoff.RPC, 1, asSent, unreached, nil},
	{StoreDown, other, backoff.RPC, 1, unrun, 0, nil},
	// A full queue says nothing about the store.
	{QueueFull, again, backoff.RPC, 0, unrun, 0, nil},
	{RefusedCall, other, backoff.RPC, 1, asSent, 0, nil},
	{NoStore, relocate, backoff.RegionMiss, 1, unrun, outdated, nil},
	{PD, again, backoff.PD, 0, unrun, 0, nil},
}

// regionErrors is how many of the rules are TiKV's.
const regionErrors = 23

// ruleOf finds the rule of a region error.
func ruleOf(e *errorpb.Error) *rule {
	for i := range rules[:regionErrors] {
		if rules[i].set(e) {
			return &rules[i]
		}
	}
	return &rules[regionErrors-1]
}

// madeUp finds the rule of a failure of the client's own.
func madeUp(reason Reason) *rule {
	for i := range rules[regionErrors:] {
		if r := &rules[regionErrors+i]; r.reason == reason {
			return r
		}
	}
	return &rules[regionErrors]
}

// reasonOf is the reason of an error of the transport.
func reasonOf(kind transport.Kind) Reason {
	switch kind {
	case transport.Dial:
		return Dial
	case transport.Timeout, transport.Expired:
		return Timeout
	case transport.QueueFull:
		return QueueFull
	case transport.Refused:
		return RefusedCall
	}
	return ConnLost
}
