package fault

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/errorpb"
)

// The region errors that a rule may answer with, as playground.RegionFault numbers
// them.
const (
	NotLeader uint8 = iota + 1
	RegionNotFound
	KeyNotInRegion
	EpochNotMatch
	ServerIsBusy
	StaleCommand
	StoreNotMatch
	RaftEntryTooLarge
	MaxTimestampNotSynced
	ReadIndexNotReady
	ProposalInMergingMode
	DataIsNotReady
	RegionNotInitialized
	DiskFull
	RecoveryInProgress
	FlashbackInProgress
	FlashbackNotPrepared
	IsWitness
	MismatchPeerID
	BucketVersionNotMatch
	UndeterminedResult
	endOfKinds
)

// RegionError makes the error of a kind, for a region and store, with what TiKV always
// fills in and nothing more: no leader hint, no regions.
func RegionError(kind uint8, region, store uint64) *errorpb.Error {
	e := &errorpb.Error{Message: fmt.Sprintf("injected region error %d for region %d", kind, region)}
	switch kind {
	case NotLeader:
		e.Message = fmt.Sprintf("peer is not leader for region %d, leader may None", region)
		e.NotLeader = &errorpb.NotLeader{RegionId: region}
	case RegionNotFound:
		e.Message = fmt.Sprintf("region %d not found", region)
		e.RegionNotFound = &errorpb.RegionNotFound{RegionId: region}
	case EpochNotMatch:
		e.EpochNotMatch = &errorpb.EpochNotMatch{}
	case ServerIsBusy:
		e.Message = "server is busy"
		e.ServerIsBusy = &errorpb.ServerIsBusy{Reason: "scheduler is busy"}
	case StaleCommand:
		e.Message = "stale command"
		e.StaleCommand = &errorpb.StaleCommand{}
	case StoreNotMatch:
		e.StoreNotMatch = &errorpb.StoreNotMatch{RequestStoreId: store, ActualStoreId: store}
	case RaftEntryTooLarge:
		e.RaftEntryTooLarge = &errorpb.RaftEntryTooLarge{RegionId: region}
	case MaxTimestampNotSynced:
		e.MaxTimestampNotSynced = &errorpb.MaxTimestampNotSynced{}
	case ReadIndexNotReady:
		e.ReadIndexNotReady = &errorpb.ReadIndexNotReady{RegionId: region}
	case ProposalInMergingMode:
		e.ProposalInMergingMode = &errorpb.ProposalInMergingMode{RegionId: region}
	case RegionNotInitialized:
		e.RegionNotInitialized = &errorpb.RegionNotInitialized{RegionId: region}
	case DiskFull:
		e.DiskFull = &errorpb.DiskFull{StoreId: []uint64{store}, Reason: "disk full"}
	case RecoveryInProgress:
		e.RecoveryInProgress = &errorpb.RecoveryInProgress{RegionId: region}
	case FlashbackInProgress:
		e.FlashbackInProgress = &errorpb.FlashbackInProgress{RegionId: region}
	case FlashbackNotPrepared:
		e.FlashbackNotPrepared = &errorpb.FlashbackNotPrepared{RegionId: region}
	case IsWitness:
		e.IsWitness = &errorpb.IsWitness{RegionId: region}
	case MismatchPeerID:
		e.MismatchPeerId = &errorpb.MismatchPeerId{}
	case DataIsNotReady:
		e.DataIsNotReady = &errorpb.DataIsNotReady{RegionId: region}
	case KeyNotInRegion:
		e.KeyNotInRegion = &errorpb.KeyNotInRegion{RegionId: region}
	case BucketVersionNotMatch:
		e.BucketVersionNotMatch = &errorpb.BucketVersionNotMatch{}
	case UndeterminedResult:
		e.UndeterminedResult = &errorpb.UndeterminedResult{}
	}
	return e
}

// KindOf is the kind of a region error, 0 for none and for one that is only words.
func KindOf(e *errorpb.Error) uint8 {
	if e == nil {
		return 0
	}
	set := [endOfKinds]bool{
		NotLeader: e.NotLeader != nil, RegionNotFound: e.RegionNotFound != nil, KeyNotInRegion: e.KeyNotInRegion != nil,
		EpochNotMatch: e.EpochNotMatch != nil, ServerIsBusy: e.ServerIsBusy != nil, StaleCommand: e.StaleCommand != nil,
		StoreNotMatch: e.StoreNotMatch != nil, RaftEntryTooLarge: e.RaftEntryTooLarge != nil,
		MaxTimestampNotSynced: e.MaxTimestampNotSynced != nil, ReadIndexNotReady: e.ReadIndexNotReady != nil,
		ProposalInMergingMode: e.ProposalInMergingMode != nil, DataIsNotReady: e.DataIsNotReady != nil,
		RegionNotInitialized: e.RegionNotInitialized != nil, DiskFull: e.DiskFull != nil,
		RecoveryInProgress: e.RecoveryInProgress != nil, FlashbackInProgress: e.FlashbackInProgress != nil,
		FlashbackNotPrepared: e.FlashbackNotPrepared != nil, IsWitness: e.IsWitness != nil,
		MismatchPeerID: e.MismatchPeerId != nil, BucketVersionNotMatch: e.BucketVersionNotMatch != nil,
		UndeterminedResult: e.UndeterminedResult != nil,
	}
	for kind, ok := range set {
		if ok {
			return uint8(kind)
		}
	}
	return 0
}
