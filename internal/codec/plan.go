package codec

import (
	"reflect"
	"slices"
	"strings"
)

// plan is where a message holds what the walker treats. It is immutable once made.
type plan struct {
	steps   []step
	lo, hi  int  // fields of the message's range, -1: none
	reverse int  // field that says that the range is given backwards, -1: none
	region  bool // the range is one of regions
	closed  bool // the range must have an end
	space   bool // the message names its key space

	// What there is in here, at any depth: keys, what is to be changed on V1 too (ranges
	// of regions, and those that must have an end), and what is set whatever the key
	// space is.
	keys, onV1, always bool
}

// step is one field.
type step struct {
	field int
	class class // 0: a message, or several
	sub   *plan
	list  bool
	oneof map[reflect.Type]*plan // by the type of the wrapper
}

// plans makes plans for messages, each once.
type plans map[reflect.Type]*plan

// planOf returns the plan of a message. Messages are not looked up in the service, whose
// methods reflection would make the linker keep.
func planOf(t reflect.Type) *plan {
	all := make(plans)
	p := all.of(t)
	all.reach(func(p *plan) *bool { return &p.keys }, func(p *plan) bool { return p.lo >= 0 || p.hi >= 0 || p.has(key, bounds) })
	all.reach(func(p *plan) *bool { return &p.onV1 }, func(p *plan) bool { return p.region || p.closed || p.has(regionKey, inRegion) })
	all.reach(func(p *plan) *bool { return &p.always }, func(p *plan) bool { return p.space || p.has(rawFlag, rawFlag) })
	return p
}

// of returns the plan of a struct.
func (all plans) of(t reflect.Type) *plan {
	if p := all[t]; p != nil {
		return p
	}
	p := &plan{lo: -1, hi: -1, reverse: -1, region: inRegionForm[t.String()], closed: closedRanges[t.String()], space: reflect.PointerTo(t).Implements(spaceType)}
	all[t] = p // before its fields, which may lead back to it
	for i := range t.NumField() {
		f := t.Field(i)
		if strings.HasPrefix(f.Name, "XXX_") {
			continue
		}
		s := step{field: i, class: classes[t.String()+"."+f.Name]}
		switch {
		case f.Name == "Reverse" && f.Type.Kind() == reflect.Bool:
			p.reverse = i
			continue
		case s.class == lower:
			p.lo = i
			continue
		case s.class == upper:
			p.hi = i
			continue
		case f.Type.Kind() == reflect.Interface:
			s.oneof = all.wrappers(t, f.Type)
		default:
			el := f.Type
			if el.Kind() == reflect.Slice && el.Elem().Kind() == reflect.Pointer {
				s.list, el = true, el.Elem()
			}
			if el.Kind() == reflect.Pointer && el.Elem().Kind() == reflect.Struct {
				s.sub = all.of(el.Elem())
			}
		}
		if s.sub != nil || s.oneof != nil || s.class != 0 && s.class < value {
			p.steps = append(p.steps, s)
		}
	}
	return p
}

// wrappers returns the plans of the alternatives of a oneof.
func (all plans) wrappers(t, oneof reflect.Type) map[reflect.Type]*plan {
	m, ok := reflect.New(t).Interface().(interface{ XXX_OneofWrappers() []interface{} })
	if !ok {
		return nil
	}
	alternatives := make(map[reflect.Type]*plan)
	for _, w := range m.XXX_OneofWrappers() {
		if wt := reflect.TypeOf(w); wt.Implements(oneof) {
			alternatives[wt] = all.of(wt.Elem())
		}
	}
	return alternatives
}

// has reports whether a field is of one of the classes from first to last.
func (p *plan) has(first, last class) bool {
	return slices.ContainsFunc(p.steps, func(s step) bool { return first <= s.class && s.class <= last })
}

// reach sets the mark of every plan from which one is reached that has it itself.
func (all plans) reach(mark func(*plan) *bool, has func(*plan) bool) {
	for changed := true; changed; {
		changed = false
		for _, p := range all {
			if *mark(p) {
				continue
			}
			reached := has(p)
			for _, s := range p.steps {
				reached = reached || s.sub != nil && *mark(s.sub)
				for _, alt := range s.oneof {
					reached = reached || *mark(alt)
				}
			}
			if reached {
				*mark(p), changed = true, true
			}
		}
	}
}
