package nullstore

import (
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/bench/internal/harness"
)

// store answers for TiKV.
type store struct {
	value      []byte
	valueField []byte // field 3 of a KvPair, encoded
	delay      time.Duration
	pool       pool

	frames, requests, unary atomic.Uint64
}

func newStore(valueSize int, delay time.Duration) *store {
	v := harness.Value(valueSize)
	return &store{value: v, valueField: appendBytes(nil, 3, v), delay: delay}
}

func (s *store) server() *grpc.Server {
	return grpc.NewServer(append(serverOptions(), experimental.BufferPool(&s.pool), grpc.UnknownServiceHandler(s.handle))...)
}

func (s *store) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	name := method[strings.LastIndexByte(method, '/')+1:]
	if name == "BatchCommands" {
		return s.batchCommands(stream)
	}
	return s.one(name, stream)
}

// one answers a unary call.
func (s *store) one(name string, stream grpc.ServerStream) error {
	var f frame
	if err := stream.RecvMsg(&f); err != nil {
		return err
	}
	s.unary.Add(1)
	request, done := f.bytes(&s.pool)
	answer, err := s.answer(nil, commands[name], request)
	done()
	if err != nil {
		return err
	}
	if !sleep(stream.Context(), s.delay) {
		return stream.Context().Err()
	}
	return stream.SendMsg(&frame{out: mem.SliceBuffer(answer)})
}

// batchCommands answers each frame with one.
func (s *store) batchCommands(stream grpc.ServerStream) error {
	send := stream.SendMsg
	if s.delay > 0 {
		d := delayLine(stream, s.delay)
		defer d.drain()
		send = d.send
	}
	var a answerer
	for {
		f := new(frame)
		if err := stream.RecvMsg(f); err != nil {
			return nil // the client has ended the stream
		}
		n, err := a.frame(s, f)
		if err != nil {
			return err
		}
		s.frames.Add(1)
		s.requests.Add(uint64(n))
		if err := send(f); err != nil {
			return err
		}
	}
}

// answerer makes frames of answers; it keeps what it needs from one to the next.
type answerer struct {
	size     int // of the largest frame so far
	one, ids []byte
}

// frame turns f's requests into answers and counts them.
func (a *answerer) frame(s *store, f *frame) (n int, err error) {
	in, done := f.bytes(&s.pool)
	defer done()
	buf := s.pool.Get(2*a.size + 64)
	out := (*buf)[:0]
	a.ids = a.ids[:0]
	parsed := fields(in, func(x field) {
		switch {
		case x.num == 1:
			n++
			cmd, _, ok := next(x.data)
			if !ok {
				err = errMalformed
				return
			}
			if a.one, err = s.answer(a.one[:0], cmd.num, cmd.data); err != nil {
				return
			}
			out = appendBatched(out, cmd.num, a.one)
		case x.num == 2 && x.typ == protowire.BytesType:
			a.ids = append(a.ids, x.data...)
		case x.num == 2:
			a.ids = protowire.AppendVarint(a.ids, x.value)
		}
	})
	if err != nil || parsed != nil {
		return 0, errMalformed
	}
	out = appendBytes(out, 2, a.ids)
	out = appendVarint(out, 3, 1) // transport_layer_load
	*buf, a.size = out, max(a.size, len(out))
	f.in, f.out = nil, mem.NewBuffer(buf, &s.pool)
	return n, nil
}

// appendBatched appends a BatchCommandsResponse.Response.
func appendBatched(out []byte, cmd protowire.Number, answer []byte) []byte {
	tag := protowire.SizeTag(cmd)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(tag+protowire.SizeBytes(len(answer))))
	return appendBytes(out, cmd, answer)
}
