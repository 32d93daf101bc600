package router

import (
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// Parcel is one part of a call that is split: a request to a region, and what came of it.
type Parcel struct {
	Call   *Call // the part's own
	Region *region.Region
	Req    transport.Request
	Resp   Answer // empty at first
	Err    error  // as of SendInto

	s       sending
	t       try
	to      transport.Target
	pending transport.Pending
	sight   *sight // if somebody watches
	way     way
}

// way is how far a parcel is.
type way uint8

const (
	waits   way = iota // nothing was done
	started            // the first attempt is under way
	missed             // and did not succeed
	over               // Err is what came of it
)

// starter is a Transport that lets one caller have many requests under way.
type starter interface {
	Start(ctx context.Context, to transport.Target, req transport.Message) (transport.Pending, error)
	Batched(req transport.Message) bool
}

const (
	// window is how many parcels of one call are under way at a time.
	window = 256
	// parallel is how many of those that met something are worked on at a time.
	parallel = 16
)

// SendAll does SendInto for every parcel. The first attempts are all made from the
// calling goroutine, so that requests to one store share frames and nothing is paid for
// a region but its request; what fails, is hedged or has to ask PD for stores goes on in
// tasks of its own. It returns when all are over; told, unless it is nil, is called when
// one is, by several goroutines at a time.
func (r *Router) SendAll(ctx context.Context, parcels []Parcel, told func(i int)) {
	b := batch{r: r, ctx: ctx, parcels: parcels, told: told, began: time.Now()}
	if b.out, _ = r.cfg.Transport.(starter); b.out != nil {
		b.begin(window)
		if late := b.left(b.next); len(late) == 0 {
			b.await(nil)
		} else {
			b.both(late)
		}
	}
	if left := b.left(len(parcels)); len(left) > 0 {
		b.finish(left)
	}
}

// batch is a SendAll.
type batch struct {
	r       *Router
	ctx     context.Context
	out     starter
	parcels []Parcel
	told    func(i int)
	began   time.Time
	next    int // to begin
}

// begin makes the first attempts of the parcels before most, where that is simple.
func (b *batch) begin(most int) {
	for ; b.next < len(b.parcels) && b.next < most; b.next++ {
		b.r.begin(b.ctx, b.out, &b.parcels[b.next], b.began)
	}
}

// left is which of the first n parcels are neither over nor under way.
func (b *batch) left(n int) (all []int) {
	for i := range b.parcels[:n] {
		if way := b.parcels[i].way; way == waits || way == missed {
			all = append(all, i)
		}
	}
	return all
}

// await waits for the first attempts, but for parcels that others work on, and begins more.
func (b *batch) await(others []int) {
	for i := range b.parcels {
		if len(others) > 0 && others[0] == i {
			others = others[1:]
			continue
		}
		b.begin(i + window)
		if b.r.await(b.ctx, &b.parcels[i]); b.parcels[i].way == over {
			b.tell(i)
		}
	}
}

// both goes on with what is left while it awaits the others.
func (b *batch) both(left []int) {
	_ = task.Each(b.ctx, parallel, len(left)+1, func(ctx context.Context, i int) error {
		if i == 0 {
			b.await(left)
			return nil
		}
		return b.end(ctx, left[i-1])
	})
}

// finish does what is left.
func (b *batch) finish(left []int) {
	_ = task.Each(b.ctx, parallel, len(left), func(ctx context.Context, i int) error { return b.end(ctx, left[i]) })
}

func (b *batch) end(ctx context.Context, i int) error {
	b.r.finish(ctx, &b.parcels[i])
	b.tell(i)
	return nil
}

func (b *batch) tell(i int) {
	if b.told != nil {
		b.told(i)
	}
}

// begin makes the first attempt of a parcel, if it has to wait for nothing before, and there
// is to be no other beside it.
func (r *Router) begin(ctx context.Context, out starter, p *Parcel, began time.Time) {
	if p.Call.Exchange != nil || p.Req.GetContext() == nil || !out.Batched(p.Req) || !r.knows(p.Region, p.Call.Route) {
		return
	}
	if p.Call.begun.IsZero() {
		p.Call.begun = began
	}
	if p.Err = r.open(ctx, p.Call, p.Region.ID); p.Err != nil {
		p.way = over
		return
	}
	p.s = sending{selector: first(p.Region.LeaderIndex()), region: p.Region}
	if p.Call.Route != nil && r.pick(ctx, p.Call, &p.s, p.Req).next != send {
		return
	}
	p.s.asked()
	p.t, p.way = try{began: began}, missed
	var ok bool
	if p.to, ok = r.address(ctx, p.Call, &p.s, p.Req, &p.t); !ok {
		return
	}
	if w := p.Call.watching(); w != nil {
		if p.sight = r.look(ctx, w, p.Call, p.to, p.Req, p.Resp, &p.t); p.sight == nil {
			return
		}
		ctx, p.to = p.sight.ctx, p.sight.to
	}
	if p.t.err = p.t.store.Admit(); p.t.err != nil {
		p.t.rule = refusal(p.t.err)
		p.seen()
		return
	}
	if p.pending, p.t.err = out.Start(ctx, p.to, p.Req); p.t.err != nil {
		r.read(ctx, p.Call, p.to, p.Resp, &p.t)
		p.seen()
		return
	}
	p.way = started
}

// knows reports whether a choice among the region's peers can be made without asking PD for
// stores, and is one choice.
func (r *Router) knows(reg *region.Region, route *Route) bool {
	if route == nil {
		return r.cfg.Regions.KnownStore(reg.Leader().GetStoreId()) != nil
	}
	for i := range reg.NumPeers() {
		if r.cfg.Regions.KnownStore(reg.Peer(i).GetStoreId()) == nil {
			return false
		}
	}
	return route.HedgeAfter == 0
}

// await waits for the first attempt.
func (r *Router) await(ctx context.Context, p *Parcel) {
	if p.way != started {
		return
	}
	var into transport.Decoder = p.Resp
	if p.sight != nil {
		ctx, into = p.sight.ctx, &p.sight.count
	}
	p.t.err = p.pending.Wait(ctx, into)
	p.way = missed
	defer p.seen()
	if r.read(ctx, p.Call, p.to, p.Resp, &p.t); p.t.rule == nil {
		r.settle(&p.s)
		p.way = over
	}
}

// seen ends what a Watch sees of the first attempt.
func (p *Parcel) seen() {
	if p.sight != nil {
		p.sight.end(p.sight, p.t)
	}
}

// finish does what is left.
func (r *Router) finish(ctx context.Context, p *Parcel) {
	if p.way == missed {
		p.Err = r.pursue(ctx, p.Call, &p.s, &p.t, true, p.Req, p.Resp)
	} else {
		p.Err = r.SendInto(ctx, p.Call, p.Region, p.Req, p.Resp)
	}
	p.way = over
}
