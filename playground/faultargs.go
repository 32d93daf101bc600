package playground

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// faultArgs is a Fault in JSON.
type faultArgs struct {
	// Injection is the number that the journal has it under.
	Injection uint64 `json:"injection,omitempty"`

	Method  string    `json:"method,omitempty"`
	Node    *nodeArgs `json:"node,omitempty"`
	Region  uint64    `json:"region,omitempty"`
	Mode    string    `json:"mode,omitempty"`
	Key     []byte    `json:"key,omitempty"`
	StartTS timestamp `json:"start_ts,omitempty"`
	Skip    int       `json:"skip,omitempty"`
	Times   int       `json:"times,omitempty"`
	Chance  float64   `json:"chance,omitempty"`

	Delay       duration `json:"delay,omitempty"`
	Hold        bool     `json:"hold,omitempty"`
	DropRequest bool     `json:"drop_request,omitempty"`
	Duplicate   bool     `json:"duplicate,omitempty"`
	RegionError string   `json:"region_error,omitempty"`
	KeyError    string   `json:"key_error,omitempty"`

	DropAnswer bool `json:"drop_answer,omitempty"`
	Disconnect bool `json:"disconnect,omitempty"`
	// Truncate takes bytes off the end of the answer, Append puts some there.
	Truncate int    `json:"truncate,omitempty"`
	Append   []byte `json:"append,omitempty"`

	// Functions tells that the fault has some, which JSON cannot say.
	Functions bool `json:"functions,omitempty"`
}

func faultArgsOf(f Fault) faultArgs {
	q := faultArgs{
		Method: f.Method, Region: f.Region, Key: f.Key, StartTS: timestamp(f.StartTS), Skip: f.Skip, Times: f.Times, Chance: f.Chance,
		Delay: duration(f.Delay), Hold: f.Hold, DropRequest: f.DropRequest, Duplicate: f.Duplicate,
		DropAnswer: f.DropAnswer, Disconnect: f.Disconnect,
		Functions: f.Before != nil || f.After != nil || f.Mangle != nil,
	}
	if f.Node != (Node{}) {
		n := argsOf(f.Node)
		q.Node = &n
	}
	if f.Mode != 0 {
		q.Mode = f.Mode.String()
	}
	if f.RegionError != 0 {
		q.RegionError = f.RegionError.String()
	}
	if f.KeyError != 0 {
		q.KeyError = f.KeyError.String()
	}
	return q
}

// check refuses what no Fault says.
func (q faultArgs) check() error {
	_, err := q.fault()
	return err
}

func (q faultArgs) fault() (Fault, error) {
	f := Fault{
		Method: q.Method, Region: q.Region, Key: q.Key, StartTS: uint64(q.StartTS), Skip: q.Skip, Times: q.Times, Chance: q.Chance,
		Delay: time.Duration(q.Delay), Hold: q.Hold, DropRequest: q.DropRequest, Duplicate: q.Duplicate,
		DropAnswer: q.DropAnswer, Disconnect: q.Disconnect,
	}
	if q.Functions {
		return f, errors.New("playground: a fault with functions cannot be done again")
	}
	var err error
	if q.Node != nil {
		if f.Node, err = q.Node.node(); err != nil {
			return f, err
		}
	}
	if q.Mode != "" {
		if f.Mode, err = modeOf(q.Mode); err != nil {
			return f, err
		}
	}
	region, key := slices.Index(regionFaults[:], q.RegionError), slices.Index(keyFaults[:], q.KeyError)
	switch { // the first of each is "none"
	case q.RegionError != "" && region < 1:
		return f, fmt.Errorf("playground: there is no region error %q", q.RegionError)
	case q.KeyError != "" && key < 1:
		return f, fmt.Errorf("playground: there is no key error %q", q.KeyError)
	}
	f.RegionError, f.KeyError = RegionFault(max(0, region)), KeyFault(max(0, key))
	if q.Delay < 0 || q.Truncate < 0 || q.Skip < 0 || q.Times < 0 || q.Chance < 0 || q.Chance > 1 {
		return f, errors.New("playground: a number of the fault is out of its range")
	}
	if q.Truncate > 0 || len(q.Append) > 0 {
		f.Mangle = func(answer []byte) []byte {
			return append(slices.Clone(answer[:max(0, len(answer)-q.Truncate)]), q.Append...)
		}
	}
	return f, nil
}

// checkNode refuses a fault's node that no request can reach.
func (c *Cluster) checkNode(n Node) error {
	switch {
	case n == Client():
		return errors.New("playground: no request reaches the client: a fault's node is a store or a member")
	case n != Node{} && c.server(n) == nil:
		return fmt.Errorf("playground: no %v", n)
	}
	return nil
}

// faultVerbs adds the verbs by which faults come and go.
func (c *Cluster) faultVerbs(all map[string]verb, renumbered map[uint64]uint64) {
	all["inject"] = verbOf(func(q faultArgs) (any, error) {
		f, err := q.fault()
		if err == nil && renumbered == nil { // a journal may have a fault of a store that is not there yet
			err = c.checkNode(f.Node)
		}
		if err != nil {
			return nil, err
		}
		before := q.Injection
		q.Injection = 0
		i := c.inject(q, f)
		if before != 0 && renumbered != nil {
			renumbered[before] = i.id
		}
		return map[string]uint64{"injection": i.id}, nil
	})
	for name, f := range map[string]func(*Injection){"release": (*Injection).Release, "remove": (*Injection).Remove} {
		all[name] = verbOf(func(q injectionArgs) (any, error) {
			id := q.Injection
			if now, ok := renumbered[id]; ok {
				id = now
			}
			i := c.journal.injection(id)
			if i == nil {
				return nil, fmt.Errorf("playground: no injection %d", q.Injection)
			}
			f(i)
			return done(nil)
		})
	}
}
