package playground

import (
	"context"

	"github.com/tikv-go/tikv/playground/internal/copr"
)

// Coprocessor computes an answer from the request's plan and the pairs it asked for: of
// the ranges in the request's order, in each by the key; keys are as the ranges name them,
// on APIV2 with their keyspace before them. It is called once for each page of an answer, concurrently for different requests,
// outside of any lock of the cluster, and must return when ctx ends, which is when the
// request's time is over or its store stops.
//
// An error is the answer's other_error.
type Coprocessor func(ctx context.Context, plan []byte, pairs [][2][]byte) ([]byte, error)

// WithCoprocessor answers coprocessor requests of type tp over a range's pairs. TiKV's
// types are 103 (DAG), 104 (analyze) and 105 (checksum); one without a Coprocessor is
// refused as unsupported. That of 103 also answers the batch coprocessor's requests and
// the MPP tasks of stores that are labelled engine=tiflash (AddStore, WithLabels).
func WithCoprocessor(tp int64, h Coprocessor) Option {
	return option(func(c *config) {
		if h == nil {
			c.refuse("WithCoprocessor(%d): no function", tp)
			return
		}
		if c.coprocessors == nil {
			c.coprocessors = make(copr.Handlers)
		}
		c.coprocessors[tp] = copr.Handler(h)
	})
}

// WithRawCoprocessor answers requests of RawCoprocessor, TiKV's coprocessor of version 2,
// that ask for name in a version that this one satisfies: "1.2.3". The pairs are raw.
func WithRawCoprocessor(name, version string, h Coprocessor) Option {
	return option(func(c *config) {
		v, ok := copr.ParseVersion(version)
		switch {
		case h == nil:
			c.refuse("WithRawCoprocessor(%q): no function", name)
		case !ok:
			c.refuse("WithRawCoprocessor(%q): %q is no version", name, version)
		default:
			if c.plugins == nil {
				c.plugins = make(copr.Plugins)
			}
			c.plugins[name] = copr.Plugin{Version: v, Handler: copr.Handler(h)}
		}
	})
}

// EchoCoprocessor answers with the plan, and of each pair the key and the value, each with
// its length before it as a varint.
func EchoCoprocessor() Coprocessor { return copr.Echo }

// ChecksumCoprocessor is TiKV's for type 105: of a tipb.ChecksumRequest it makes a
// tipb.ChecksumResponse, the CRC-64 of each pair by exclusive or, their number and size.
func ChecksumCoprocessor() Coprocessor { return copr.Sum }
