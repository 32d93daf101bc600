package playground

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/pdserver"
	"github.com/tikv-go/tikv/playground/internal/serve"
)

// Node is a party: a store, a member of PD, or the clients. The zero Node is any.
type Node struct{ node fault.Node }

// Store names a store by its id.
func Store(id uint64) Node { return Node{fault.Node{Kind: fault.Store, ID: id}} }

// Member names a member of PD by its place in Cluster.PD.
func Member(i int) Node {
	return Node{fault.Node{Kind: fault.Member, ID: uint64(i)}}
}

// String returns "store 1" or "member 0".
func (n Node) String() string {
	switch n.node.Kind {
	case fault.Store:
		return fmt.Sprintf("store %d", n.node.ID)
	case fault.Member:
		return fmt.Sprintf("member %d", n.node.ID)
	case fault.Client:
		return "the client"
	}
	return "any node"
}

// errClosed is every change to a cluster that was closed.
var errClosed = errors.New("playground: cluster closed")

// change runs f on a node's server, and on tell, by which the others hear of its state.
func (c *Cluster) change(n Node, f func(s *serve.Server, tell func(pdserver.Condition) error) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	switch n.node.Kind {
	case fault.Store:
		if s := c.store(n.node.ID); s != nil {
			if c.topo.Removed(s.ID) {
				return fmt.Errorf("playground: %v was removed", n)
			}
			return f(s.Server(), func(is pdserver.Condition) error {
				return c.topo.SetLive(n.node.ID, is == pdserver.Running, c.Now())
			})
		}
	case fault.Member:
		if m := c.member(n); m != nil {
			return f(m.Server(), func(is pdserver.Condition) error { return c.pd.SetCondition(m, is) })
		}
	case fault.Client:
		return errors.New("playground: name a store or a member: only a cut is of the client")
	}
	return fmt.Errorf("playground: no %v", n)
}

// server is a node's, or nil.
func (c *Cluster) server(n Node) *serve.Server {
	switch n.node.Kind {
	case fault.Store:
		if s := c.store(n.node.ID); s != nil {
			return s.Server()
		}
	case fault.Member:
		if m := c.member(n); m != nil {
			return m.Server()
		}
	}
	return nil
}

func (c *Cluster) member(n Node) *pdserver.Member {
	if members := c.pd.Members(); n.node.ID < uint64(len(members)) {
		return members[n.node.ID]
	}
	return nil
}

// Stop closes a node's connections and refuses new ones. What it was doing ends; what
// it acknowledged survives. The regions that a store leads are led by others, where a
// majority of their peers' stores runs, else by none; PD's leader gives its place to
// another member, if a majority of them runs.
func (c *Cluster) Stop(n Node) (err error) {
	defer c.note("stop", argsOf(n), &err)()
	return c.change(n, func(s *serve.Server, tell func(pdserver.Condition) error) error { return c.stop(n, s, tell) })
}

func (c *Cluster) stop(n Node, s *serve.Server, tell func(pdserver.Condition) error) error {
	delete(c.paused, n)
	err := tell(pdserver.Stopped)
	s.Stop()
	c.logger.Info("node stopped", slog.String("node", n.String()))
	return err
}

// Pause keeps a node's connections, and makes new ones, but lets nothing through them,
// like a process that is suspended. Others lead its regions, as after Stop. PD's leader
// keeps its place for the five seconds of its lease.
func (c *Cluster) Pause(n Node) (err error) {
	defer c.note("pause", argsOf(n), &err)()
	return c.change(n, func(s *serve.Server, tell func(pdserver.Condition) error) error {
		if !s.Running() {
			return fmt.Errorf("playground: %v does not run", n)
		}
		c.paused[n] = true
		s.Pause()
		c.logger.Info("node paused", slog.String("node", n.String()))
		return tell(pdserver.Silent)
	})
}

// Start ends Stop and Pause. The node has the address that it had.
func (c *Cluster) Start(n Node) (err error) {
	defer c.note("start", argsOf(n), &err)()
	return c.change(n, func(s *serve.Server, tell func(pdserver.Condition) error) error {
		if c.paused[n] {
			delete(c.paused, n)
			s.Resume()
			return tell(pdserver.Running)
		}
		return c.run(n, s, tell)
	})
}

func (c *Cluster) run(n Node, s *serve.Server, tell func(pdserver.Condition) error) error {
	if s.Running() {
		return nil
	}
	if err := s.Start(c.root.Context()); err != nil {
		return err
	}
	c.counter.Starts.Add(1)
	if n.node.Kind == fault.Store {
		c.pd.StoreStarted(n.node.ID)
	}
	c.logger.Info("node started", slog.String("node", n.String()))
	return tell(pdserver.Running)
}

// Move restarts a node at another port of its host, where PD knows it from then on. Who
// still has its old address finds nobody there.
func (c *Cluster) Move(n Node) (err error) {
	defer c.note("move", argsOf(n), &err)()
	return c.change(n, func(s *serve.Server, tell func(pdserver.Condition) error) error {
		next, err := c.elsewhere(s.Addr())
		if err != nil {
			return err
		}
		if err := c.stop(n, s, tell); err != nil {
			return err
		}
		s.SetAddr(next)
		return c.run(n, s, tell)
	})
}

// elsewhere is another address of the same host: on TCP with any port, in memory with the
// next.
func (c *Cluster) elsewhere(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("playground: %w", err)
	}
	if c.network == nil {
		return net.JoinHostPort(host, "0"), nil
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", fmt.Errorf("playground: %w", err)
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1)), nil
}

// TransferPD makes member i PD's leader.
func (c *Cluster) TransferPD(i int) (err error) {
	defer c.note("transfer-pd", argsOf(Member(i)), &err)()
	return c.change(Member(i), func(*serve.Server, func(pdserver.Condition) error) error {
		return c.pd.Lead(c.pd.Members()[i])
	})
}
