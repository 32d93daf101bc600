package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/bench/internal/nullstore"
)

// parts are what this program is to itself: processes that it starts. Their orders come on
// standard input, and where that ends, so do they.
var parts = map[string]func(ctx context.Context, in io.Reader, out io.Writer) error{
	"part-client":     ourClient,
	"part-null":       serveNull,
	"part-playground": servePlayground,
}

// address is where a server is that was started.
type address struct {
	PD    []string
	Stats string
}

// serveNull is the part that is the null store.
func serveNull(_ context.Context, in io.Reader, out io.Writer) error {
	var c nullstore.Config
	orders := json.NewDecoder(in)
	if err := orders.Decode(&c); err != nil {
		return err
	}
	s, err := nullstore.Start(c)
	if err != nil {
		return err
	}
	defer s.Close()
	return serving(orders, out, address{[]string{s.PD()}, s.StatsAddr()})
}

// serving tells where a server is and returns when its starter is gone.
func serving(orders *json.Decoder, out io.Writer, at address) error {
	if err := json.NewEncoder(out).Encode(at); err != nil {
		return err
	}
	var more any
	if err := orders.Decode(&more); err != io.EOF {
		return fmt.Errorf("unexpected order: %v %v", more, err)
	}
	return nil
}

// server is a process that serves what is measured against.
type server struct {
	address
	cmd   *exec.Cmd
	stdin io.Closer
}

// startServer starts a part of this program with its configuration and waits for its
// address.
func startServer(ctx context.Context, part string, config any) (_ *server, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.CommandContext(ctx, exe, part)}
	s.cmd.Stderr = os.Stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", part, err)
			_ = s.close() // its own words are on standard error
		}
	}()
	if err := json.NewEncoder(stdin).Encode(config); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(&s.address); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *server) close() error {
	s.stdin.Close()
	return s.cmd.Wait()
}

// measure runs a client's process once.
func measure(ctx context.Context, program []string, s harness.Spec) (r harness.Result, err error) {
	in, err := json.Marshal(s)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return r, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	_, wrote := stdin.Write(in)
	stdin.Close()
	decoded := json.NewDecoder(stdout).Decode(&r)
	for _, err := range []error{cmd.Wait(), wrote, decoded} {
		if err != nil {
			return r, fmt.Errorf("%s of %s: %w", s.Workload, program[0], err)
		}
	}
	return r, nil
}
