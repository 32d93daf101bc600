package interop

import (
	"sync"
	"time"
)

// ourRemains are what our client leaves when it dies while it sets a case's keys "a", the
// primary, and "z", in two regions, to "new".
type ourRemains struct {
	name      string
	option    string // of the commit
	lost      string // a method whose requests are lost
	of        string // the key that they are about; "": any
	ends      bool   // the commit returns all the same
	committed bool
}

func allOurRemains() []ourRemains {
	return []ourRemains{
		{"prewritten", "two-phase", "KvCommit", "", false, false},
		{"only the primary prewritten", "two-phase", "KvPrewrite", "z", false, false},
		{"only the secondary prewritten", "two-phase", "KvPrewrite", "a", false, false},
		{"primary committed", "two-phase", "KvCommit", "z", true, true},
		{"async, prewritten", "async", "KvCommit", "", true, true},
		{"async, secondary missing", "async", "KvPrewrite", "z", false, false},
		{"async, primary missing", "async", "KvPrewrite", "a", false, false},
		{"async, primary committed", "async", "KvCommit", "z", true, true},
		{"async, secondary committed", "async", "KvCommit", "a", true, true},
	}
}

// dieOurs lets our client leave one of each of its remains, the i-th with the keys of the
// i-th case, and lets their locks expire.
func (e *env) dieOurs() {
	e.Helper()
	var pairs, splits []string
	for i := range allOurRemains() {
		pairs = append(pairs, casePrefix(i)+"a=old", casePrefix(i)+"z=old")
		splits = append(splits, casePrefix(i), casePrefix(i)+"m")
	}
	e.put(pairs...)
	e.split(splits...)
	var dying sync.WaitGroup
	for i, r := range allOurRemains() {
		for _, k := range []string{"a", "z"} {
			if r.of == "" || r.of == k {
				defer e.fault(map[string]any{"method": r.lost, "key": []byte(casePrefix(i) + k), "drop_request": true}).remove()
			}
		}
		ours := e.c.peer(e.T)
		ours.ask(e.T, command{Do: "begin"})
		for _, k := range []string{"a", "z"} {
			ours.ask(e.T, command{Do: "put", Key: casePrefix(i) + k, Value: "new"})
		}
		ours.send(e.T, command{Do: "commit", Option: r.option})
		if r.ends {
			if a := ours.answer(e.T); a.Error != "" {
				e.Fatalf("%s: %+v", r.name, a)
			}
		}
		left := 2
		if r.of != "" {
			left = 1
		}
		e.eventually(r.name, func() bool { return len(e.with(e.T, casePrefix(i)).locks()) == left })
		ours.cmd.Process.Kill()
		dying.Go(func() { ours.cmd.Wait() })
	}
	dying.Wait()
	e.advance(5 * time.Minute)
	e.now()
}
