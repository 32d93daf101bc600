package playground

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/serve"
)

// testCluster is a cluster with bare gRPC clients of its servers.
type testCluster struct {
	*Cluster
	t     *testing.T
	conns map[string]*grpc.ClientConn
}

func start(t *testing.T, opts ...Option) *testCluster {
	t.Helper()
	c, err := Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	tc := &testCluster{Cluster: c, t: t, conns: make(map[string]*grpc.ClientConn)}
	t.Cleanup(func() {
		for _, cc := range tc.conns {
			_ = cc.Close()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return tc
}

func (c *testCluster) conn(addr string) *grpc.ClientConn {
	if cc := c.conns[addr]; cc != nil {
		return cc
	}
	c.t.Helper()
	cc, err := c.dial(addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.conns[addr] = cc
	return cc
}

// parted waits until the connection to a node has noticed its end, so that the next request
// is sent over a new one.
func (c *testCluster) parted(addr string) {
	for cc, s := c.conn(addr), connectivity.Ready; cc.GetState() == s; {
		cc.WaitForStateChange(c.t.Context(), s)
	}
}

func (c *testCluster) dial(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if cfg := c.ClientTLS(); cfg != nil {
		creds = credentials.NewTLS(cfg)
	}
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.DialContext(ctx, addr) }),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(serve.Codec()), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10e9, Timeout: 3e9, PermitWithoutStream: true}),
	}, opts...)
	return grpc.NewClient("passthrough:///"+addr, opts...)
}

func (c *testCluster) pdc() pdpb.PDClient { return pdpb.NewPDClient(c.conn(c.PD()[0])) }

func (c *testCluster) tikv(store uint64) tikvpb.TikvClient {
	return tikvpb.NewTikvClient(c.conn(c.store(store).Server().Addr()))
}

func (c *testCluster) header() *pdpb.RequestHeader { return &pdpb.RequestHeader{ClusterId: c.ID()} }

// at is the context of a request for the region that holds a user key, and its leader.
func (c *testCluster) at(mode KeyMode, key string) (*kvrpcpb.Context, tikvpb.TikvClient) {
	c.t.Helper()
	resp, err := c.pdc().GetRegion(c.t.Context(), &pdpb.GetRegionRequest{
		Header: c.header(), RegionKey: c.api.regionKey(mode, []byte(key)),
	})
	if err != nil || resp.Header.Error != nil || resp.Leader == nil {
		c.t.Fatal(resp, err)
	}
	return c.context(resp.Region, resp.Leader), c.tikv(resp.Leader.StoreId)
}

func (c *testCluster) context(r *metapb.Region, p *metapb.Peer) *kvrpcpb.Context {
	version := kvrpcpb.APIVersion_V1
	if c.api == APIV2 {
		version = kvrpcpb.APIVersion_V2
	}
	return &kvrpcpb.Context{
		RegionId: r.Id, RegionEpoch: r.RegionEpoch, Peer: p, ClusterId: c.ID(), ApiVersion: version,
	}
}

func (c *testCluster) rawPut(key, value string) {
	c.t.Helper()
	ctx, kv := c.at(KeyRaw, key)
	resp, err := kv.RawPut(c.t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: c.api.wireKey(KeyRaw, []byte(key)), Value: []byte(value)})
	if err != nil || resp.RegionError != nil || resp.Error != "" {
		c.t.Fatal(resp, err)
	}
}

func (c *testCluster) rawGet(key string) (string, bool) {
	c.t.Helper()
	ctx, kv := c.at(KeyRaw, key)
	resp, err := kv.RawGet(c.t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: c.api.wireKey(KeyRaw, []byte(key))})
	if err != nil || resp.RegionError != nil || resp.Error != "" {
		c.t.Fatal(resp, err)
	}
	return string(resp.Value), !resp.NotFound
}

// expect fails the test unless err is an error that contains text.
func expect(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v, want one with %q", err, text)
	}
}

func kindOf(e *errorpb.Error) RegionFault { return RegionFault(fault.KindOf(e)) }
