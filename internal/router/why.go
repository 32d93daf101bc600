package router

import "github.com/tikv-go/tikv/internal/region"

// why is what a region that a failure calls in question is given up for.
func (r Reason) why() region.Why {
	switch r {
	case NotLeader:
		return region.NoLeader
	case RegionNotFound, MismatchPeer:
		return region.NotFound
	case KeyNotInRegion:
		return region.WrongKeys
	case EpochNotMatch:
		return region.WrongEpoch
	case NoStore:
		return region.NoSuchStore
	case Dial, ConnLost, Timeout, StoreDown:
		return region.Unreachable
	}
	return region.Other
}
