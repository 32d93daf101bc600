package tikv_test

import (
	"bytes"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// The playground says the words that the router's table looks for, in each case that
// the table has; a client never sends most of these.
func TestServerTexts(t *testing.T) {
	for name, c := range map[string]struct {
		cluster playground.APIVersion
		client  codec.APIVersion
		req     *kvrpcpb.RawPutRequest
		class   router.Class
	}{
		"TtlNotEnabled":        {playground.APIV1, codec.V1, &kvrpcpb.RawPutRequest{Ttl: 1}, router.ClassUnsupported},
		"CfDeprecated":         {playground.APIV2, codec.V2, &kvrpcpb.RawPutRequest{Cf: "write"}, router.ClassUnsupported},
		"ApiVersionNotMatched": {playground.APIV1, codec.V2, &kvrpcpb.RawPutRequest{}, router.ClassUnsupported},
		"InvalidKeyMode":       {playground.APIV2, codec.V2, &kvrpcpb.RawPutRequest{Key: []byte("no prefix")}, router.ClassUnsupported},
		"KeyTooLarge":          {playground.APIV1, codec.V1, &kvrpcpb.RawPutRequest{Key: bytes.Repeat([]byte("k"), 8193)}, router.ClassTooLarge},
		"InvalidCf":            {playground.APIV1, codec.V1, &kvrpcpb.RawPutRequest{Cf: "moon"}, router.ClassOther},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(c.cluster))
			pool := transport.New(transport.Config{Dial: cluster.DialContext})
			defer pool.Close()
			client, err := pd.Open(t.Context(), cluster.PD(), pd.Config{Pool: pool})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			tasks := task.New(t.Context())
			defer tasks.Close(nil)
			r := router.New(tasks.Context(), router.Config{
				ClusterID: client.ClusterID(), Regions: router.NewRegions(client, tasks, region.Config{}), Transport: pool,
			})
			call := &router.Call{Op: "Op", Codec: codec.New(c.client, codec.Raw, 0)}
			if c.req.Key == nil {
				c.req.Key = call.Codec.Key([]byte("k"))
			}
			c.req.Context, c.req.Value = &kvrpcpb.Context{}, []byte("v")
			resp, err := router.Do[*kvrpcpb.RawPutResponse](t.Context(), r, call, c.req.Key, c.req)
			if err != nil || resp.GetError() == "" || router.Classify(resp.GetError()) != c.class {
				t.Fatalf("%q is class %d (%v)", resp.GetError(), router.Classify(resp.GetError()), err)
			}
			t.Log(resp.GetError(), keys.Printer{}.Key(c.req.Key))
		})
	}
}
