package tikv

import (
	"errors"
	"maps"
	"time"

	"github.com/tikv-go/tikv/internal/region"
)

// Store is a TiKV or TiFlash server, as PD knows it.
type Store struct {
	ID            uint64
	Addr, Version string
	State         StoreState
	Labels        map[string]string
	TiFlash       bool // or a node that computes for TiFlash
}

// StoreState is PD's.
type StoreState uint8

// The states.
const (
	StoreUp      StoreState = iota
	StoreOffline            // leaving
)

// String is the state's name.
func (s StoreState) String() string {
	if s == StoreOffline {
		return "offline"
	}
	return "up"
}

// StoreHealth is what this client has seen of a store.
type StoreHealth struct {
	Store
	Reachable bool    // there is a connection on which the store has spoken
	Open      bool    // the breaker: no request goes to it, since it did not answer; it is probed when one would
	SlowScore float64 // 1: well, 100: worst; from 80 on reads that have a choice avoid it
	Conns     int     // connections to it
	InFlight  int     // requests under way
	LastErr   error   // the last failure to reach it; nil if it was always reached
}

// Stores tells what this client knows of the stores that it has used, in the order of
// their ids, without I/O. The result is the caller's.
func (c *Client) Stores() []StoreHealth {
	now := time.Now()
	all := []StoreHealth{}
	for _, s := range c.engine.regions.Load().Stores() {
		all = append(all, c.health(s, now))
	}
	return all
}

func (c *Client) health(s *region.Store, now time.Time) StoreHealth {
	seen := c.engine.pool.Condition(s.Addr)
	h := StoreHealth{
		Store:     Store{ID: s.ID, Addr: s.Addr, Version: s.Version, Labels: maps.Clone(s.Labels), TiFlash: s.TiFlash()},
		Reachable: seen.Connected, Open: s.Away(), SlowScore: s.SlowScore(now),
		Conns: seen.Conns, InFlight: s.InFlight(),
	}
	if s.Leaving {
		h.State = StoreOffline
	}
	err := s.LastErr()
	if err == nil {
		err = seen.Failure
	}
	if err != nil { // in words: its types are not for users
		h.LastErr = errors.New(err.Error())
	}
	return h
}
