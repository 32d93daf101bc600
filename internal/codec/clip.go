package codec

import (
	"errors"
	"reflect"

	"github.com/tikv-go/tikv/internal/keys"
)

// Why a request cannot be sent part by part.
var (
	ErrNoRange   = errors.New("codec: request without a range")
	ErrBackwards = errors.New("codec: request of a range backwards")
	ErrTasks     = errors.New("codec: request of tasks for other regions")
)

// Clip returns a copy of a request of user keys that asks for what lies in part alone, or
// nil if that is nothing. A request without bounds, and one without ranges, asks for
// everything.
func (w *Walker) Clip(req any, part keys.Range) (any, error) {
	v, p, err := w.message(req)
	if err != nil {
		return nil, err
	}
	if (form{}).in(p, v).reverse {
		return nil, ErrBackwards
	}
	out := reflect.New(v.Type().Elem())
	out.Elem().Set(v.Elem())
	if p.lo >= 0 && p.hi >= 0 {
		if !clip(p, out, part) {
			return nil, nil
		}
		return out.Interface(), nil
	}
	return clipLists(p, out, part)
}

// clip makes the range of a message that part of it which lies in part, if there is any.
func clip(p *plan, m reflect.Value, part keys.Range) bool {
	lo, hi := m.Elem().Field(p.lo), m.Elem().Field(p.hi)
	r := keys.Range{Start: lo.Bytes(), End: hi.Bytes()}.Intersect(part)
	lo.SetBytes(r.Start)
	hi.SetBytes(r.End)
	return !r.Empty()
}

// clipLists clips the ranges that a message lists.
func clipLists(p *plan, out reflect.Value, part keys.Range) (any, error) {
	var lists []step
	given := 0
	for _, s := range p.steps {
		if !s.list {
			continue
		}
		n := out.Elem().Field(s.field).Len()
		switch {
		case s.sub.ranged() != nil:
			lists = append(lists, s)
			given += n
		case n > 0 && s.sub.keys:
			return nil, ErrTasks
		}
	}
	if len(lists) == 0 {
		return nil, ErrNoRange
	}
	if given == 0 {
		list := out.Elem().Field(lists[0].field)
		whole := reflect.New(list.Type().Elem().Elem())
		clip(lists[0].sub, whole, part)
		list.Set(reflect.Append(reflect.Zero(list.Type()), whole))
		return out.Interface(), nil
	}
	left := 0
	for _, s := range lists {
		list := out.Elem().Field(s.field)
		list.Set(clipList(s, list, part))
		left += list.Len()
	}
	if left == 0 {
		return nil, nil
	}
	return out.Interface(), nil
}

func clipList(s step, list reflect.Value, part keys.Range) reflect.Value {
	kept := reflect.MakeSlice(list.Type(), 0, list.Len())
	for i := range list.Len() {
		if list.Index(i).IsNil() {
			continue
		}
		el := reflect.New(list.Type().Elem().Elem())
		el.Elem().Set(list.Index(i).Elem())
		if s.class == chained && i+1 < list.Len() && !list.Index(i+1).IsNil() {
			if hi := el.Elem().Field(s.sub.hi); hi.Len() == 0 {
				hi.SetBytes(list.Index(i + 1).Elem().Field(s.sub.lo).Bytes())
			}
		}
		if clipElement(s.sub, el, part) {
			kept = reflect.Append(kept, el)
		}
	}
	return kept
}

// clipElement clips a range, or the one inside of a message around it.
func clipElement(p *plan, el reflect.Value, part keys.Range) bool {
	if p.lo >= 0 {
		return clip(p, el, part)
	}
	inner := p.ranged()
	f := el.Elem().Field(inner.field)
	if f.IsNil() {
		return false
	}
	r := reflect.New(f.Type().Elem())
	r.Elem().Set(f.Elem())
	f.Set(r)
	return clip(inner.sub, r, part)
}

// ranged returns the field of a message that is a range, a step without a field where the
// message is one itself, and nil if it is neither.
func (p *plan) ranged() *step {
	if p.lo >= 0 && p.hi >= 0 {
		return &step{field: -1, sub: p}
	}
	for i := range p.steps {
		if s := &p.steps[i]; !s.list && s.sub != nil && s.sub.lo >= 0 && s.sub.hi >= 0 {
			return s
		}
	}
	return nil
}
