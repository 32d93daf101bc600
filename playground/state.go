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
	defer c.note("set-store", stateArgs{id, s.Disk.String(), duration(s.DiskDelay), s.SlowScore, s.Advertise}, &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errClosed
	case c.store(id) == nil:
		return fmt.Errorf("playground: no store %d", id)
	case s.Disk > DiskAlreadyFull:
		return fmt.Errorf("playground: there is no state %d of a disk", s.Disk)
	case s.DiskDelay < 0:
		return fmt.Errorf("playground: a disk's delay of %v", s.DiskDelay)
	case !(s.SlowScore == 0 || s.SlowScore >= 1 && s.SlowScore <= 100):
		return fmt.Errorf("playground: a slow score of %v, which goes from 1 to 100", s.SlowScore)
	}
	c.store(id).SetState(store.State{
		Disk: store.Disk(s.Disk), DiskDelay: s.DiskDelay, SlowScore: s.SlowScore, Advertise: s.Advertise,
	})
	return nil
}

func (c *Cluster) diskOf(id uint64) store.Disk {
	if s := c.store(id); s != nil {
		return s.State().Disk
	}
	return store.DiskOK
}
