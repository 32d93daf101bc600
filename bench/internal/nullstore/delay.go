package nullstore

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// line holds a stream's answers back, each for the same time, so that frames overlap as
// they do before a server that works on several at once.
type line struct {
	stream grpc.ServerStream
	delay  time.Duration
	queue  chan delayed
	ended  chan struct{}
}

type delayed struct {
	f   any
	due time.Time
}

func delayLine(stream grpc.ServerStream, delay time.Duration) *line {
	l := &line{stream, delay, make(chan delayed, 1<<12), make(chan struct{})}
	go l.run()
	return l
}

// send queues f. An answer that cannot be sent is the stream's end, which its reader sees.
func (l *line) send(f any) error {
	select {
	case l.queue <- delayed{f, time.Now().Add(l.delay)}:
		return nil
	case <-l.stream.Context().Done():
		return l.stream.Context().Err()
	}
}

// drain waits for the answers that are queued.
func (l *line) drain() {
	close(l.queue)
	<-l.ended
}

func (l *line) run() {
	defer close(l.ended)
	broken := false
	for d := range l.queue {
		broken = broken || !sleep(l.stream.Context(), time.Until(d.due)) || l.stream.SendMsg(d.f) != nil
	}
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
