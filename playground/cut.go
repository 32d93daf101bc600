package playground

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/vnet"
)

// Client names every process that is none of the cluster's, for Cut.
func Client() Node { return Node{fault.Node{Kind: fault.Client}} }

// Cut loses what from sends to to, until Heal; call it twice for both directions. The
// parties are Client and a node, two stores, or two members of PD; between a store and a
// member nothing is sent here that a client would miss, and Cut refuses.
//
// Between a client and a node connections stay, as on a network that loses packets: what
// is sent on them waits for Heal, or for the end of the connection, and new ones are not
// made. (Over TCP, connections of other processes than this one are made, and what is
// sent on them waits.)
//
// Between two stores, or members, what they pass on to each other for clients is lost too.
// A store leads a region only while it exchanges messages with stores that hold a
// majority of its voters, and a member PD likewise, so one that is cut off from too many
// hands over; PD's leader when its lease of five seconds ends. It does not learn who leads
// then from one that it does not hear.
func (c *Cluster) Cut(from, to Node) (err error) {
	defer c.note("cut", cutArgs{argsOf(from), argsOf(to)}, &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkCut(from, to); err != nil {
		return err
	}
	client := fault.Client
	switch {
	case from.node.Kind == client || to.node.Kind == client:
		n, in := to, true
		if to.node.Kind == client {
			n, in = from, false
		}
		c.cutMu.Lock()
		d := c.cuts[n]
		d.In, d.Out = d.In || in, d.Out || !in
		c.cuts[n] = d
		c.cutMu.Unlock()
		c.server(n).Cut(d)
	case from.node.Kind == fault.Store:
		c.lag.Cut(from.node.ID, to.node.ID) // before a change of leaders
		c.topo.Cut(from.node.ID, to.node.ID)
	default:
		c.pd.Cut(int(from.node.ID), int(to.node.ID))
	}
	c.logger.Info("network cut", slog.String("from", from.String()), slog.String("to", to.String()))
	return nil
}

func (c *Cluster) checkCut(from, to Node) error {
	if c.closed {
		return errClosed
	}
	for _, n := range []Node{from, to} {
		if n.node.Kind != fault.Client && c.server(n) == nil {
			return fmt.Errorf("playground: no %v", n)
		}
		if n.node.Kind == fault.Store && c.topo.Removed(n.node.ID) {
			return fmt.Errorf("playground: %v was removed", n)
		}
	}
	a, b := from.node.Kind, to.node.Kind
	if from == to || a != b && a != fault.Client && b != fault.Client {
		return fmt.Errorf("playground: nothing is sent from %v to %v", from, to)
	}
	return nil
}

// Heal ends every Cut.
func (c *Cluster) Heal() {
	defer c.noted("heal", struct{}{})()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heal()
}

// heal ends every cut. Callers hold the lock.
func (c *Cluster) heal() {
	for n := range c.cuts {
		c.server(n).Cut(vnet.Directions{})
	}
	c.cutMu.Lock()
	clear(c.cuts)
	close(c.healed)
	c.healed = make(chan struct{})
	c.cutMu.Unlock()
	c.topo.Heal()
	c.lag.Heal()
	c.pd.Heal()
}

// reach waits until the way to an address is not cut, in either direction. It does not
// wait for mu, which is held while a node stops.
func (c *Cluster) reach(ctx context.Context, addr string) error {
	for {
		c.cutMu.Lock()
		healed, cut := c.healed, false
		for n := range c.cuts {
			cut = cut || c.server(n).Addr() == addr
		}
		c.cutMu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
