package tikvtest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"
)

// leakCheck finds the goroutines that were started, by whatever way, from the test's
// goroutine since it began: they inherit a profiler label. So it works with tests that
// run in parallel.
type leakCheck struct {
	ctx   context.Context // the labels from before
	label string
}

const labelName = "tikvtest"

// beginLeakCheck labels the goroutine that calls it.
func beginLeakCheck(ctx context.Context) *leakCheck {
	l := &leakCheck{ctx: ctx}
	l.label = fmt.Sprintf("%p", l)
	pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels(labelName, l.label)))
	return l
}

// patience is how long goroutines that are ending may take; fake time in a bubble,
// where it passes only once all others wait.
const patience = 30 * time.Second

// end takes the label off and returns the stacks of the goroutines that are left.
func (l *leakCheck) end() string {
	pprof.SetGoroutineLabels(l.ctx)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for wait := time.Millisecond; ; wait *= 2 {
		left := l.left()
		if left == "" {
			return ""
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-deadline.C:
			pause.Stop()
			return l.left()
		}
	}
}

// left returns the labelled goroutines that run the project's code or gRPC's.
func (l *leakCheck) left() string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return err.Error()
	}
	want := fmt.Sprintf("%q:%q", labelName, l.label)
	var left []string
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, want) && (strings.Contains(stack, "github.com/tikv-go/tikv") || strings.Contains(stack, "google.golang.org/grpc")) {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}
