package nullstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/bench/internal/harness"
)

// Server is a running PD with its stores, on loopback.
type Server struct {
	pd, stats string
	store     *store
	driver    *pd
	grpc      []*grpc.Server
	listener  net.Listener // the counters'
	serving   sync.WaitGroup
}

// Start serves on free ports of 127.0.0.1 until Close.
func Start(c Config) (_ *Server, err error) {
	if c.Regions < 1 || c.Keys < c.Regions || c.Stores < 0 {
		return nil, fmt.Errorf("null store: %d regions of %d keys on %d stores", c.Regions, c.Keys, c.Stores)
	}
	s := &Server{store: newStore(c.ValueSize, c.Delay)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var stores []string
	for range max(c.Stores, 1) {
		addr, err := s.listen(s.store.server(), nil)
		if err != nil {
			return nil, err
		}
		stores = append(stores, addr)
	}
	s.driver = newPD(c, stores)
	if s.pd, err = s.listen(s.driver.server(), s.driver.listensAt); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.stats = s.listener.Addr().String()
	s.serving.Go(s.tellStats)
	return s, nil
}

// PD is the address of the one member of PD.
func (s *Server) PD() string { return s.pd }

// StatsAddr is where the counters are told (harness.FetchStats).
func (s *Server) StatsAddr() string { return s.stats }

// Stats are the counters.
func (s *Server) Stats() harness.Stats {
	return harness.Stats{
		Frames: s.store.frames.Load(), Requests: s.store.requests.Load(), Unary: s.store.unary.Load(),
		Timestamps: s.driver.timestamps.Load(), TimestampRequests: s.driver.timestampRequests.Load(),
		CPU: harness.CPU(),
	}
}

// Close ends the server and waits for what it runs.
func (s *Server) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
	for _, g := range s.grpc {
		g.Stop()
	}
	s.serving.Wait()
}

// listen serves g on a free port, which told hears of before the first call comes.
func (s *Server) listen(g *grpc.Server, told func(addr string)) (string, error) {
	s.grpc = append(s.grpc, g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	if told != nil {
		told(l.Addr().String())
	}
	s.serving.Go(func() { _ = g.Serve(l) }) // ends with Stop
	return l.Addr().String(), nil
}

func (s *Server) tellStats() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		_ = errors.Join(json.NewEncoder(conn).Encode(s.Stats()), conn.Close()) // who asked sees it
	}
}

// serverOptions let nothing but the client be the limit.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.InitialWindowSize(1 << 27), grpc.InitialConnWindowSize(1 << 27),
		grpc.MaxRecvMsgSize(1 << 30), grpc.MaxSendMsgSize(1 << 30),
		grpc.MaxConcurrentStreams(1 << 20),
	}
}
