package playground

import (
	"fmt"
	"time"

	"github.com/tikv-go/tikv/playground/internal/store"
)

// StoreState is how a store is; the zero StoreState is well.
type StoreState struct {
	// Disk is how full its disk is: regions refuse writes with DiskFull by TiKV's rules.
	Disk Disk
	// DiskDelay is how much longer each write takes that it leads.
	DiskDelay time.Duration
	// ApplyLag is how much later than their leaders its followers have what is written, by
	// the cluster's clock: what they serve without asking their leader is that old. A replica
	// read waits until they have what it needs. A lag that begins or grows holds them where
	// they are until it is due, so that with a very long one they stand still, until
	// SetStore ends it.
	ApplyLag time.Duration
	// ResolvedLag is how far behind PD's timestamps those are up to which it serves stale
	// reads; like ApplyLag it holds them where they are at first. Without one they follow at
	// once, as far as locks let them.
	ResolvedLag time.Duration
	// ReadWait is how long it says that a read would wait for its turn: it refuses with
	// ServerIsBusy those that do not want to wait that long. It makes none wait.
	ReadWait time.Duration
	// SlowScore is what it reports to clients, from 1, the best, which 0 is too, to 100.
	SlowScore float64
	// Advertise is the address that PD gives out for it, if not its own.
	Advertise string
}

// Disk is how full a disk is.
type Disk uint8

// How full a disk is. A store with DiskAlmostFull takes only writes that are allowed on
// such a disk (those that settle transactions, and raw ones), one with DiskAlreadyFull
// takes none.
const (
	DiskOK Disk = iota
	DiskAlmostFull
	DiskAlreadyFull
)

// String returns "ok", "almost full" or "already full".
func (d Disk) String() string {
	if d > DiskAlreadyFull {
		return fmt.Sprintf("Disk(%d)", uint8(d))
	}
	return [...]string{"ok", "almost full", "already full"}[d]
}

// SetStore changes how a store is.
func (c *Cluster) SetStore(id uint64, s StoreState) (err error) {
	defer c.note("set-store", argsOfState(id, s), &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errClosed
	case c.store(id) == nil:
		return fmt.Errorf("playground: no store %d", id)
	case c.topo.Removed(id):
		return fmt.Errorf("playground: store %d was removed", id)
	case s.Disk > DiskAlreadyFull:
		return fmt.Errorf("playground: there is no state %d of a disk", s.Disk)
	case s.DiskDelay < 0:
		return fmt.Errorf("playground: a disk's delay of %v", s.DiskDelay)
	case s.ApplyLag < 0:
		return fmt.Errorf("playground: an apply lag of %v", s.ApplyLag)
	case s.ResolvedLag < 0:
		return fmt.Errorf("playground: a lag of resolved timestamps of %v", s.ResolvedLag)
	case s.ReadWait < 0:
		return fmt.Errorf("playground: a wait of reads of %v", s.ReadWait)
	case !(s.SlowScore == 0 || s.SlowScore >= 1 && s.SlowScore <= 100):
		return fmt.Errorf("playground: a slow score of %v, which goes from 1 to 100", s.SlowScore)
	}
	c.store(id).SetState(store.State{
		Disk: store.Disk(s.Disk), DiskDelay: s.DiskDelay, SlowScore: s.SlowScore, Advertise: s.Advertise,
		ApplyLag: s.ApplyLag, ResolvedLag: s.ResolvedLag, ReadWait: s.ReadWait,
	})
	return nil
}

func argsOfState(id uint64, s StoreState) stateArgs {
	return stateArgs{
		Store: id, Disk: s.Disk.String(), DiskDelay: duration(s.DiskDelay), ApplyLag: duration(s.ApplyLag),
		ResolvedLag: duration(s.ResolvedLag), ReadWait: duration(s.ReadWait), SlowScore: s.SlowScore, Advertise: s.Advertise,
	}
}

func (c *Cluster) diskOf(id uint64) store.Disk {
	if s := c.store(id); s != nil {
		return s.State().Disk
	}
	return store.DiskOK
}
