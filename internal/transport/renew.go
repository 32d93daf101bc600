package transport

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/task"
)

// How changed credentials are taken up.
const (
	// RefreshEvery is how often files are looked at. After a failed connection they
	// are looked at sooner, but no oftener than every refreshPause.
	RefreshEvery = 10 * time.Second
	refreshPause = time.Second

	// DrainLimit is how long a connection that was replaced lives on for its calls.
	DrainLimit = 30 * time.Second
	drainPause = 100 * time.Millisecond
	// drainGrace is the least that it lives on: callers may have found it just before
	// it was replaced.
	drainGrace = time.Second

	renewAtOnce = 8
)

// refreshing is credentials that have to be looked after.
type refreshing interface {
	refresh() (changed bool, err error)
}

// watch looks after the pool's credentials until the pool ends.
func (p *Pool) watch(ctx context.Context, creds refreshing) {
	var said string // of a failure, so that it is said once
	next := time.NewTimer(RefreshEvery)
	defer next.Stop()
	for {
		suspected := false
		select {
		case <-next.C:
		case <-p.suspect:
			suspected = true
		case <-ctx.Done():
			return
		}
		switch changed, err := creds.refresh(); {
		case err != nil:
			if err.Error() != said {
				p.cfg.Logger.Warn("new TLS files cannot be used, the old ones stay", "err", err)
			}
			said = err.Error()
		default:
			said = ""
			if changed {
				p.cfg.Logger.Debug("TLS files have changed")
				p.version.Add(1)
			}
			if changed || !suspected {
				p.renew(ctx)
			}
		}
		if backoff.Sleep(ctx, refreshPause) != nil {
			return
		}
		next.Reset(RefreshEvery - refreshPause)
	}
}

// suspectFiles asks for a look at the files: a connection has failed.
func (p *Pool) suspectFiles() {
	select {
	case p.suspect <- struct{}{}:
	default:
	}
}

// renew replaces the endpoints whose connections may have been made with other
// credentials than today's. One whose replacement gets no connection stays; it is tried
// again with the next look at the files.
func (p *Pool) renew(ctx context.Context) {
	var old []*endpoint
	for _, e := range *p.endpoints.Load() {
		if e.version.Load() != p.version.Load() {
			old = append(old, e)
		}
	}
	_ = task.Each(ctx, renewAtOnce, len(old), func(ctx context.Context, i int) error {
		p.replace(ctx, old[i])
		return nil
	})
}

// Renew makes new connections to addr, for the calls from then on: it is for an address
// that has come to mean another machine. Calls under way keep the old ones.
func (p *Pool) Renew(addr string) {
	for _, e := range p.lanes(addr) {
		p.tasks.Go("transport renewal", func(ctx context.Context) { p.replace(ctx, e) })
	}
}

// replace puts a new endpoint, connected, in the place of e, which ends when its calls
// have. One without a connection goes by the new credentials with its next attempt.
func (p *Pool) replace(ctx context.Context, e *endpoint) {
	if s := e.conn.GetState(); s != connectivity.Ready && s != connectivity.Connecting {
		e.version.Store(p.version.Load())
		e.conn.ResetConnectBackoff()
		return
	}
	fresh, err := newEndpoint(p, e.to)
	if err == nil && !fresh.conn.ready(ctx, p.cfg.DialTimeout) {
		err = cmp.Or(fresh.condition.get().Failure, errDialTimeout)
		fresh.close(ConnLost, ErrDropped)
	}
	if err != nil {
		p.cfg.Logger.Warn("no new connection, the old one stays", "addr", e.addr, "err", err)
		return
	}
	if !p.swap(e, fresh) {
		fresh.close(ConnLost, ErrDropped)
		return
	}
	p.tasks.Go("transport drain", e.drain)
}

// ready connects, and waits until that has come to an end, well or not.
func (l *link) ready(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	l.Connect()
	for {
		switch s := l.GetState(); s {
		case connectivity.Ready:
			return true
		case connectivity.TransientFailure, connectivity.Shutdown:
			return false
		default:
			if !l.WaitForStateChange(ctx, s) {
				return false
			}
		}
	}
}

// drain closes e, which nobody finds any more, when its calls have ended or have had
// their time.
func (e *endpoint) drain(ctx context.Context) {
	late := time.Now().Add(DrainLimit)
	for ended := backoff.Sleep(ctx, drainGrace); ended == nil && e.busy() && time.Now().Before(late); {
		ended = backoff.Sleep(ctx, drainPause)
	}
	e.close(ConnLost, ErrDropped) // nothing, if the pool was first
	e.pool.drained(e)
}

// busy reports whether e has calls of any kind.
func (e *endpoint) busy() bool {
	queued, pending := e.load()
	return queued+pending > 0 || e.conn.calls.Load() > 0
}
