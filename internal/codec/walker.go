package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/pingcap/kvproto/pkg/disaggregated"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"

	"github.com/tikv-go/tikv/internal/keys"
)

// Walker encodes and decodes whole messages of TiKV's service: every field that holds a
// key, as a table of all fields says. The zero Walker is ready, and safe for concurrent
// use.
type Walker struct{ plans sync.Map } // of *plan, by the reflect.Type of the message

// Encode returns the message that carries req's keys, and what names the key space, in
// the form of c. req is as it was afterwards; the new message shares with it what is not
// treated, but never the context, which it has even if req has none.
func (w *Walker) Encode(c Codec, req any) (any, error) {
	v, p, err := w.message(req)
	if err != nil {
		return nil, err
	}
	e := encoder{c: c}
	out := e.message(v, p, form{})
	if ctx := out.Elem().FieldByName("Context"); ctx.IsValid() && ctx.IsNil() {
		own := &kvrpcpb.Context{}
		c.Fill(own)
		ctx.Set(reflect.ValueOf(own))
	}
	return out.Interface(), nil
}

// Decode turns the keys of resp into user keys, in place: they share the bytes of what
// was there, but for region keys. The boundaries of regions are clipped to the key
// space. The error is an *OutsideError: the answer is about another key space, and is
// half decoded.
func (w *Walker) Decode(c Codec, resp any) error {
	v, p, err := w.message(resp)
	if err != nil {
		return err
	}
	d := decoder{c: c}
	return d.message(v, p, form{})
}

func (w *Walker) message(m any) (reflect.Value, *plan, error) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return v, nil, fmt.Errorf("codec: %T is no message", m)
	}
	t := v.Type().Elem()
	if p, ok := w.plans.Load(t); ok {
		return v, p.(*plan), nil
	}
	if t.Kind() != reflect.Struct || !strings.HasPrefix(t.PkgPath(), "github.com/pingcap/kvproto/") {
		return v, nil, fmt.Errorf("codec: %T is not of TiKV's service", m)
	}
	p, _ := w.plans.LoadOrStore(t, planOf(t))
	return v, p.(*plan), nil
}

// form is how the ranges of a part of a message are written.
type form struct {
	region, reverse bool
	inform          bool // a range outside of the key space is left out: it only informs
}

func (f form) in(p *plan, v reflect.Value) form {
	f.region = f.region || p.region
	if p.reverse >= 0 {
		f.reverse = v.Elem().Field(p.reverse).Bool()
	}
	return f
}

// changes reports whether the codec changes a key in a part of a message: on V1
// those of regions at most, and ends that must be there.
func (c Codec) changes(p *plan, f form) bool {
	if c.version == V2 || f.region && !c.plain() {
		return p.keys
	}
	return p.onV1 && !c.plain()
}

// bounds returns the fields of the range, the lower bound first; one may be missing.
func (f form) bounds(p *plan, v reflect.Value) (lo, hi reflect.Value) {
	if p.lo >= 0 {
		lo = v.Elem().Field(p.lo)
	}
	if p.hi >= 0 {
		hi = v.Elem().Field(p.hi)
	}
	if f.reverse && p.lo >= 0 && p.hi >= 0 {
		return hi, lo
	}
	return lo, hi
}

// spaced is a message that names its key space.
type spaced interface{ GetApiVersion() kvrpcpb.APIVersion }

var spaceType = reflect.TypeFor[spaced]()

// fillSpace names the key space in a message that has fields for it.
func (c Codec) fillSpace(m any) {
	var ctx kvrpcpb.Context
	c.Fill(&ctx)
	switch m := m.(type) {
	case *kvrpcpb.Context:
		c.Fill(m)
	case *kvrpcpb.CompactRequest:
		m.ApiVersion, m.Keyspace = ctx.ApiVersion, &kvrpcpb.CompactRequest_KeyspaceId{KeyspaceId: c.KeyspaceID()}
	case *mpp.TaskMeta:
		m.ApiVersion, m.Keyspace = ctx.ApiVersion, &mpp.TaskMeta_KeyspaceId{KeyspaceId: c.KeyspaceID()}
	case *disaggregated.DisaggTaskMeta:
		m.ApiVersion, m.Keyspace = ctx.ApiVersion, &disaggregated.DisaggTaskMeta_KeyspaceId{KeyspaceId: c.KeyspaceID()}
	}
}

// encoder copies what it changes, and the way there.
type encoder struct{ c Codec }

func (e encoder) message(v reflect.Value, p *plan, f form) reflect.Value {
	out := reflect.New(v.Type().Elem())
	out.Elem().Set(v.Elem())
	if p.space {
		e.c.fillSpace(out.Interface())
	}
	f = f.in(p, v)
	if lo, hi := f.bounds(p, out); lo.IsValid() || hi.IsValid() {
		e.bounds(lo, hi, f)
		if p.closed && e.c.version != V2 && !e.c.plain() && hi.Len() == 0 {
			hi.SetBytes(top())
		}
	}
	for _, s := range p.steps {
		e.step(out.Elem().Field(s.field), s, f)
	}
	return out
}

// identity reports whether keys of the form are sent as they are given.
func (e encoder) identity(f form) bool { return e.c.version != V2 && (!f.region || e.c.plain()) }

func (e encoder) bounds(lo, hi reflect.Value, f form) {
	if e.identity(f) {
		return
	}
	var user keys.Range
	if lo.IsValid() {
		user.Start = lo.Bytes()
	}
	if hi.IsValid() {
		user.End = hi.Bytes()
	}
	wire := e.c.Range(user)
	if f.region {
		wire = e.c.RegionRange(wire)
	}
	if lo.IsValid() {
		lo.SetBytes(wire.Start)
	}
	if hi.IsValid() {
		hi.SetBytes(wire.End)
	}
}

// step treats one field of a copy.
func (e encoder) step(v reflect.Value, s step, f form) {
	switch {
	case s.class == rawFlag:
		v.SetBool(e.c.mode == Raw)
	case s.oneof != nil:
		if alt := s.oneof[dynamic(v)]; alt != nil && (alt.always || e.c.changes(alt, f)) {
			v.Set(e.message(v.Elem(), alt, f))
		}
	case s.sub != nil:
		f.region = f.region || s.class == inRegion
		if s.sub.always || e.c.changes(s.sub, f) {
			e.messages(v, s, f)
		}
	case s.class == bounds:
		if !e.c.plain() {
			v.Set(reflect.ValueOf(e.boundaries(v.Interface().([][]byte))))
		}
	default:
		e.keys(v, s.class)
	}
}

func (e encoder) messages(v reflect.Value, s step, f form) {
	if !s.list {
		if !v.IsNil() {
			v.Set(e.message(v, s.sub, f))
		}
		return
	}
	if v.Len() == 0 {
		return
	}
	out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		el := v.Index(i)
		if el.IsNil() {
			continue
		}
		if s.class == chained && i+1 < v.Len() {
			el = e.chain(el, v.Index(i+1))
		}
		out.Index(i).Set(e.message(el, s.sub, f))
	}
	v.Set(out)
}

// chain gives a range without an end that of its list: the start of the next. In a key
// space of its own an empty end would be written as the end of that space.
func (e encoder) chain(el, next reflect.Value) reflect.Value {
	r := el.Interface().(*kvrpcpb.KeyRange)
	if e.c.version != V2 || len(r.EndKey) > 0 || next.IsNil() {
		return el
	}
	return reflect.ValueOf(&kvrpcpb.KeyRange{StartKey: r.StartKey, EndKey: next.Interface().(*kvrpcpb.KeyRange).StartKey})
}

func (e encoder) keys(v reflect.Value, cl class) {
	one := e.c.Key
	switch {
	case cl == regionKey && !e.c.plain():
		one = func(user []byte) []byte { return e.c.RegionKey(e.c.Key(user)) }
	case e.c.version != V2:
		return
	}
	if list, ok := v.Interface().([][]byte); ok {
		if list == nil {
			return
		}
		out := make([][]byte, len(list))
		for i := range list {
			out[i] = one(list[i])
		}
		v.Set(reflect.ValueOf(out))
		return
	}
	if b := v.Bytes(); len(b) > 0 || cl == key {
		v.SetBytes(one(b))
	}
}

func (e encoder) boundaries(user [][]byte) [][]byte {
	out := make([][]byte, len(user))
	for i, b := range user {
		r := keys.Range{Start: b}
		if i > 0 && i == len(user)-1 {
			r = keys.Range{End: b}
			out[i] = e.c.RegionRange(e.c.Range(r)).End
			continue
		}
		out[i] = e.c.RegionRange(e.c.Range(r)).Start
	}
	return out
}

// decoder works in place.
type decoder struct{ c Codec }

func (d decoder) message(v reflect.Value, p *plan, f form) error {
	if !d.c.changes(p, f) {
		return nil
	}
	f = f.in(p, v)
	if lo, hi := f.bounds(p, v); lo.IsValid() || hi.IsValid() {
		if p.closed && d.c.version != V2 && bytes.Equal(hi.Bytes(), top()) {
			hi.SetBytes(nil)
		}
		switch err := d.bounds(lo, hi, f); {
		case err != nil && f.inform:
			lo.SetBytes(nil)
			hi.SetBytes(nil)
		case err != nil:
			return err
		}
	}
	f.inform = false
	for _, s := range p.steps {
		if err := d.step(v.Elem().Field(s.field), s, f); err != nil {
			return err
		}
	}
	return nil
}

func (d decoder) bounds(lo, hi reflect.Value, f form) error {
	var r keys.Range
	if lo.IsValid() {
		r.Start = lo.Bytes()
	}
	if hi.IsValid() {
		r.End = hi.Bytes()
	}
	was := r
	switch {
	case f.region:
		r = d.c.WireRange(r)
	case d.c.version == V2:
		r = r.Intersect(d.c.Space())
	}
	if d.c.version == V2 && r.Empty() && (!was.Empty() || !bytes.HasPrefix(r.Start, d.c.prefix[:])) {
		return &OutsideError{Key: was.Start}
	}
	r = UserRange(d.c, r)
	if lo.IsValid() {
		lo.SetBytes(r.Start)
	}
	if hi.IsValid() {
		hi.SetBytes(r.End)
	}
	return nil
}

// top is above every key: the longest that TiKV takes are shorter (storage.max-key-size).
func top() []byte { return bytes.Repeat([]byte{0xff}, 8<<10+1) }

// UserRange returns the user keys of a wire range that lies in the key space.
func UserRange(c Codec, wire keys.Range) keys.Range {
	if c.version != V2 {
		return wire
	}
	if bytes.HasPrefix(wire.Start, c.prefix[:]) {
		wire.Start = wire.Start[prefixLen:]
	}
	if !bytes.HasPrefix(wire.End, c.prefix[:]) {
		wire.End = nil
	} else {
		wire.End = wire.End[prefixLen:]
	}
	return wire
}

func (d decoder) step(v reflect.Value, s step, f form) error {
	switch {
	case s.oneof != nil:
		if alt := s.oneof[dynamic(v)]; alt != nil {
			return d.message(v.Elem(), alt, f)
		}
	case s.sub != nil:
		f.region = f.region || s.class == inRegion
		return d.messages(v, s, f)
	case s.class == bounds:
		v.Set(reflect.ValueOf(d.boundaries(v.Interface().([][]byte))))
	case s.class != rawFlag:
		return d.keys(v, s.class)
	}
	return nil
}

func (d decoder) messages(v reflect.Value, s step, f form) error {
	if !d.c.changes(s.sub, f) {
		return nil
	}
	if !s.list {
		if v.IsNil() {
			return nil
		}
		f.inform = s.sub.region
		return d.message(v, s.sub, f)
	}
	kept := 0
	for i := range v.Len() {
		el := v.Index(i)
		if !el.IsNil() {
			err := d.message(el, s.sub, f)
			var outside *OutsideError
			if s.class == ours && errors.As(err, &outside) {
				continue
			}
			if err != nil {
				return err
			}
		}
		v.Index(kept).Set(el)
		kept++
	}
	v.SetLen(kept)
	return nil
}

func (d decoder) keys(v reflect.Value, cl class) error {
	if cl == regionKey {
		v.SetBytes(d.regionKey(v.Bytes()))
		return nil
	}
	if d.c.version != V2 {
		return nil
	}
	if list, ok := v.Interface().([][]byte); ok {
		for i := range list {
			user, err := d.c.UserKey(list[i])
			if err != nil {
				return err
			}
			list[i] = user
		}
		return nil
	}
	b := v.Bytes()
	if len(b) == 0 {
		return nil
	}
	user, err := d.c.UserKey(b)
	if err != nil {
		return err
	}
	v.SetBytes(user)
	return nil
}

// regionKey returns the user key of one in region form, or nil if it is none of ours.
func (d decoder) regionKey(enc []byte) []byte {
	if d.c.plain() || len(enc) == 0 {
		return enc
	}
	wire, _, err := keys.Decode(enc)
	if err != nil {
		return nil
	}
	user, err := d.c.UserKey(wire)
	if err != nil {
		return nil
	}
	return user
}

// boundaries clips a list of boundaries to the key space.
func (d decoder) boundaries(enc [][]byte) [][]byte {
	if d.c.plain() || len(enc) < 2 {
		return enc
	}
	var user [][]byte
	for i := range len(enc) - 1 {
		part := d.c.WireRange(keys.Range{Start: enc[i], End: enc[i+1]})
		if part.Empty() {
			continue
		}
		part = UserRange(d.c, part)
		if len(user) == 0 {
			user = append(user, part.Start)
		}
		user = append(user, part.End)
	}
	return user
}

// dynamic is the type inside of a oneof's field, nil if nothing is set.
func dynamic(v reflect.Value) reflect.Type {
	if v.IsNil() {
		return nil
	}
	return v.Elem().Type()
}
