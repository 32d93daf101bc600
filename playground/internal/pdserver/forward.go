package pdserver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Calls that a member passes on to the leader because their metadata asks for it (PD:
// server/forward.go). Members reach each other inside of the process, but what cuts,
// suspends or stops them stands between them as between processes.

// pdService is the service whose calls are passed on, as calls are named.
const pdService = "/pdpb.PD"

// forwardedHost is the metadata by which a client asks for it (PD: pkg/utils/grpcutil,
// ForwardMetadataKey): a URL of the leader.
const forwardedHost = "pd-forwarded-host"

// target is the member that is to answer a call: m itself, or the leader if the call's
// metadata names it. Another host is refused, in words by which clients know that the
// leader has changed (PD: server/forward.go, validatePDForwardedHost).
func (m *Member) target(ctx context.Context) (*Member, error) {
	hosts := metadata.ValueFromIncomingContext(ctx, forwardedHost)
	if len(hosts) == 0 || hosts[0] == "" {
		return m, nil
	}
	leader := m.leader()
	switch {
	case leader == nil:
		return nil, errNotLeader()
	case !sameHost(leader.url(), hosts[0]):
		return nil, status.Errorf(codes.InvalidArgument,
			"forwarded host %q is not a client URL of the PD leader: pd is not leader of cluster", hosts[0])
	}
	return leader, nil
}

// sameHost compares URLs without their schemes, which they must have (isSamePDClientURL).
func sameHost(a, b string) bool {
	trim := func(url string) (string, bool) {
		if rest, ok := strings.CutPrefix(url, "http://"); ok {
			return rest, true
		}
		return strings.CutPrefix(url, "https://")
	}
	x, ok := trim(a)
	y, also := trim(b)
	return ok && also && x == y
}

// forward has another member answer a unary call; or refuses, if err says so.
func (m *Member) forward(ctx context.Context, to *Member, err error, method string, req any) (any, error) {
	if err != nil {
		return nil, err
	}
	answer, err := m.at(ctx, to, func(ctx context.Context) (any, error) {
		return to.unary(method).call(ctx, req, to.intercept)
	})
	if err != nil {
		return nil, err
	}
	return m.unary(method).read(answer)
}

// at runs handle as if m had sent a request to another member and had its answer. What is
// lost on the way waits until it is not, or until ctx or m ends.
func (m *Member) at(ctx context.Context, to *Member, handle func(context.Context) (any, error)) (any, error) {
	if err := m.pd.pass(ctx, m.life(ctx), m, to, to); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	delete(md, forwardedHost)
	there := peer.NewContext(metadata.NewIncomingContext(ctx, md), &peer.Peer{Addr: memberAddr(m.index)})
	answer, err := handle(there)
	if lost := m.pd.pass(ctx, m.life(ctx), to, m, to); lost != nil {
		return nil, lost
	}
	return answer, err
}

// memberAddr is where a request comes from that a member has passed on.
type memberAddr int

var _ net.Addr = memberAddr(0)

func (memberAddr) Network() string  { return "pd" }
func (a memberAddr) String() string { return fmt.Sprintf("pd-%d", int(a)) }

// pass waits until messages go from one member to another, of which away is not the one
// that waits; there it may be that nobody listens any more.
func (pd *PD) pass(ctx, life context.Context, from, to, away *Member) error {
	for {
		pd.mu.RLock()
		condition, lost, changed := away.condition, pd.seats.cut[[2]int{from.index, to.index}], pd.seats.changed
		pd.mu.RUnlock()
		switch {
		case condition == Stopped:
			return status.Errorf(codes.Unavailable, "connection error: desc = \"transport: Error while dialing: dial tcp %s: connect: %v\"",
				away.server.Addr(), syscall.ECONNREFUSED)
		case condition == Running && !lost:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-life.Done():
			return status.Error(codes.Unavailable, context.Cause(life).Error())
		}
	}
}

// unreadable is the error of an answer that cannot be decoded, as gRPC's clients have it.
func unreadable(err error) error {
	return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
}
