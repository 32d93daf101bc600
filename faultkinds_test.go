package tikv_test

import (
	"maps"
	"slices"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// faultKind is a fault that happens to one request.
type faultKind struct {
	name   string
	place  faultPlace
	fault  playground.Fault
	before func(e *faultTest) // when the request arrives
	kills  bool               // the client dies when the request has been handled
	mayRun bool               // the client cannot know whether the request ran
	fatal  error              // it is no use to try again
	spoils bool               // the cluster is not the same afterwards
}

type faultPlace uint8

const (
	anywhere faultPlace = iota
	onStores
	onPD
	onKeys // of stores, where answers have errors of keys
)

// befalls reports whether a work's request can meet the fault.
func (k *faultKind) befalls(w faultWork) bool {
	switch k.place {
	case onStores:
		return !w.pd
	case onPD:
		return w.pd
	case onKeys:
		return !w.pd && !w.raw
	}
	return true
}

// ways is 2 if it makes a difference how patient the client is.
func (k *faultKind) ways() int {
	if k.kills || k.place == onKeys {
		return 1
	}
	return 2
}

var faultKinds = func() []faultKind {
	kinds := []faultKind{
		{name: "lost request", fault: playground.Fault{DropRequest: true}, mayRun: true},
		{name: "lost answer", fault: playground.Fault{DropAnswer: true}, mayRun: true},
		{name: "disconnect", fault: playground.Fault{Disconnect: true}, mayRun: true},
		{name: "duplicate", fault: playground.Fault{Duplicate: true}},
		{name: "delay", fault: playground.Fault{Delay: 25 * time.Second}, mayRun: true},
		{name: "client killed", fault: playground.Fault{DropAnswer: true}, kills: true},
		{name: "leader move", place: onStores, before: (*faultTest).moveLeaders},
		{name: "split", place: onStores, before: (*faultTest).split, spoils: true},
		{name: "store restart", place: onStores, before: (*faultTest).restartStores, mayRun: true},
		{name: "PD paused", place: onPD, before: func(e *faultTest) { e.leaveMember((*playground.Cluster).Pause) }, spoils: true},
		{name: "PD stopped", place: onPD, before: func(e *faultTest) { e.leaveMember((*playground.Cluster).Stop) }, spoils: true},
		{name: "PD leader moved", place: onPD, before: func(e *faultTest) { e.must(e.cluster.TransferPD(1)) }, spoils: true},
	}
	for r := playground.NotLeader; r <= playground.UndeterminedResult; r++ {
		k := faultKind{name: r.String(), place: onStores, fault: playground.Fault{RegionError: r}}
		switch r {
		case playground.RaftEntryTooLarge:
			k.fatal = tikv.ErrTooLarge
		case playground.FlashbackInProgress, playground.FlashbackNotPrepared:
			k.fatal = tikv.ErrRejected
		case playground.StaleCommand, playground.UndeterminedResult:
			k.mayRun = true
		}
		kinds = append(kinds, k)
	}
	for k := playground.KeyLocked; k <= playground.Abort; k++ {
		kinds = append(kinds, faultKind{name: "key error " + k.String(), place: onKeys, fault: playground.Fault{KeyError: k}})
	}
	return kinds
}()

// answered is what a call ends with if its request is answered with a key error; nil: as
// if it had not been.
func (w faultWork) answered(k playground.KeyFault) error {
	if want, ok := w.told[k]; ok {
		return want
	}
	if w.behind {
		return nil
	}
	return toldOfKeys[k]
}

// toldOfKeys is how calls end that do not expect such an answer, or that it decides.
var toldOfKeys = map[playground.KeyFault]error{
	playground.KeyLocked:       nil, // by one who is dead
	playground.WriteConflict:   tikv.ErrWriteConflict,
	playground.AlreadyExist:    tikv.ErrAlreadyExists,
	playground.Deadlock:        tikv.ErrRejected,
	playground.CommitTSExpired: tikv.ErrRejected,
	playground.TxnNotFound:     tikv.ErrTxnAborted,
	playground.TxnLockNotFound: tikv.ErrTxnAborted,
	playground.PrimaryMismatch: tikv.ErrRejected,
	playground.AssertionFailed: tikv.ErrAssertion,
	playground.Abort:           tikv.ErrRejected,
}

// The calls that make more of an answer.
var (
	// toldOfCommit: what does not say that the primary key is not committed says nothing.
	toldOfCommit = told(tikv.ErrUndetermined, map[playground.KeyFault]error{
		playground.CommitTSExpired: nil, playground.TxnLockNotFound: tikv.ErrTxnAborted,
	})
	toldOfLock = map[playground.KeyFault]error{playground.WriteConflict: nil, playground.Deadlock: tikv.ErrDeadlock}
	toldOfBeat = map[playground.KeyFault]error{
		playground.TxnNotFound: tikv.ErrTxnAborted, playground.TxnLockNotFound: tikv.ErrTxnAborted, playground.PrimaryMismatch: tikv.ErrTxnAborted,
	}
	// toldOfOthers: who resolves locks is told about another transaction.
	toldOfOthers = told(tikv.ErrRejected, nil)
)

// told is the same for all key errors but for some.
func told(most error, but map[playground.KeyFault]error) map[playground.KeyFault]error {
	all := make(map[playground.KeyFault]error)
	for k := range toldOfKeys {
		all[k] = most
	}
	maps.Copy(all, but)
	return all
}

func (e *faultTest) moveLeaders() {
	for _, r := range e.cluster.Regions(e.mode()) {
		e.must(e.cluster.TransferLeader(r.ID, r.Stores[(slices.Index(r.Stores, r.Leader)+1)%len(r.Stores)]))
	}
}

func (e *faultTest) split() {
	for _, at := range []string{"a5", "y5"} {
		_, err := e.cluster.Split(e.mode(), []byte(at))
		e.must(err)
	}
}

// restartStores stops the stores that lead for a second, one after the other.
func (e *faultTest) restartStores() {
	for i, r := range e.cluster.Regions(e.mode()) {
		store := playground.Store(r.Leader)
		e.after(time.Duration(i)*1200*time.Millisecond, func() { e.must(e.cluster.Stop(store)) })
		e.after(time.Duration(i)*1200*time.Millisecond+time.Second, func() { e.must(e.cluster.Start(store)) })
	}
}

func (e *faultTest) after(d time.Duration, f func()) {
	if d == 0 {
		f()
		return
	}
	e.pending.add(1)
	time.AfterFunc(d, func() {
		defer e.pending.add(-1)
		f()
	})
}

// leaveMember takes PD's leader away for half a minute.
func (e *faultTest) leaveMember(how func(*playground.Cluster, playground.Node) error) {
	e.must(how(e.cluster.Cluster, playground.Member(0)))
	e.after(30*time.Second, func() { e.must(e.cluster.Start(playground.Member(0))) })
}
