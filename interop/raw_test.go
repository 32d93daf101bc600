package interop

import (
	"bytes"
	"fmt"
	"hash/crc64"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/rawkv"
)

// The official client's raw operations, each API version.
func TestOfficialRaw(t *testing.T) {
	for _, v := range []struct {
		api  string
		opts []rawkv.ClientOpt
		args []string
	}{
		{"v1", nil, nil},
		{"v1ttl", []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V1TTL)}, nil},
		{"v2", []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2)}, nil},
		{"v2", []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2), rawkv.WithKeyspace("tenant")}, []string{"--keyspace", "tenant"}},
	} {
		t.Run(fmt.Sprint(v.api, v.args), func(t *testing.T) {
			c := start(t, append([]string{"--api", v.api}, v.args...)...)
			client := c.officialRaw(t, v.opts...)
			if client.ClusterID() != c.ID {
				t.Fatalf("cluster %d, the playground says %d", client.ClusterID(), c.ID)
			}
			rawSingle(t, client)
			rawBatches(t, c, client, v.api == "v1" || v.api == "v1ttl")
			rawSwap(t, c, v.opts)
			if v.api != "v1" {
				rawTTL(t, client)
			}
		})
	}
}

func rawSingle(t *testing.T, client *rawkv.Client) {
	t.Helper()
	ctx := within(t)
	must(t, client.Put(ctx, []byte("a"), []byte("1")))
	must(t, client.Put(ctx, []byte("empty"), []byte{}))
	if v, err := client.Get(ctx, []byte("a")); err != nil || string(v) != "1" {
		t.Fatalf("%q %v", v, err)
	}
	if v, err := client.Get(ctx, []byte("empty")); err != nil || v == nil || len(v) != 0 {
		t.Fatalf("%q %v", v, err)
	}
	if v, err := client.Get(ctx, []byte("absent")); err != nil || v != nil {
		t.Fatalf("%q %v", v, err)
	}
	must(t, client.Delete(ctx, []byte("a")))
	must(t, client.Delete(ctx, []byte("empty")))
	if v, err := client.Get(ctx, []byte("a")); err != nil || v != nil {
		t.Fatalf("%q %v", v, err)
	}
}

// rawBatches works over several regions that split under way.
func rawBatches(t *testing.T, c *cluster, client *rawkv.Client, v1 bool) {
	t.Helper()
	ctx := within(t)
	const n = 2000
	var ks, vs [][]byte
	for i := range n {
		ks = append(ks, fmt.Appendf(nil, "k%05d", i))
		vs = append(vs, fmt.Appendf(nil, "v%05d", i))
	}
	must(t, client.BatchPut(ctx, ks, vs))
	if v1 {
		for _, at := range []string{"k00500", "k01000", "k01500"} {
			c.split(t, "raw", at)
		}
	}
	got, err := client.BatchGet(ctx, ks)
	must(t, err)
	for i := range ks {
		if !bytes.Equal(got[i], vs[i]) {
			t.Fatalf("key %d: %q", i, got[i])
		}
	}
	keys, values, err := client.Scan(ctx, []byte("k00100"), []byte("k01900"), 10000)
	must(t, err)
	if len(keys) != 1800 || string(keys[0]) != "k00100" || string(values[1799]) != "v01899" {
		t.Fatalf("%d keys", len(keys))
	}
	keys, _, err = client.ReverseScan(ctx, []byte("k01900"), []byte("k00100"), 10000)
	must(t, err)
	if len(keys) != 1800 || string(keys[0]) != "k01899" || string(keys[1799]) != "k00100" {
		t.Fatalf("%d keys backwards", len(keys))
	}
	// One pair short: the XOR over all of them is 0, since the code is linear.
	sum, err := client.Checksum(ctx, []byte("k00001"), []byte("l"))
	must(t, err)
	if sum.TotalKvs != n-1 || v1 && sum.Crc64Xor != xorOf(ks[1:], vs[1:]) {
		t.Fatalf("%+v", sum)
	}
	must(t, client.DeleteRange(ctx, []byte("k00100"), []byte("k01900")))
	keys, _, err = client.Scan(ctx, []byte("k"), []byte("l"), 10000)
	must(t, err)
	if len(keys) != 200 {
		t.Fatalf("%d keys are left", len(keys))
	}
	must(t, client.BatchDelete(ctx, keys))
}

// xorOf is TiKV's checksum (CRC-64/XZ of key and value): V2 adds its prefixes.
func xorOf(keys, values [][]byte) uint64 {
	table, xor := crc64.MakeTable(crc64.ECMA), uint64(0)
	for i := range keys {
		xor ^= crc64.Update(crc64.Checksum(keys[i], table), table, values[i])
	}
	return xor
}

func rawSwap(t *testing.T, c *cluster, opts []rawkv.ClientOpt) {
	t.Helper()
	client, ctx := c.officialRaw(t, opts...), within(t)
	client.SetAtomicForCAS(true)
	if prev, ok, err := client.CompareAndSwap(ctx, []byte("cas"), nil, []byte("1")); err != nil || !ok || prev != nil {
		t.Fatal(prev, ok, err)
	}
	if prev, ok, err := client.CompareAndSwap(ctx, []byte("cas"), []byte("0"), []byte("2")); err != nil || ok || string(prev) != "1" {
		t.Fatal(prev, ok, err)
	}
	if prev, ok, err := client.CompareAndSwap(ctx, []byte("cas"), []byte("1"), []byte("2")); err != nil || !ok || string(prev) != "1" {
		t.Fatal(prev, ok, err)
	}
}

func rawTTL(t *testing.T, client *rawkv.Client) {
	t.Helper()
	ctx := within(t)
	must(t, client.PutWithTTL(ctx, []byte("ttl"), []byte("v"), 1000))
	left, err := client.GetKeyTTL(ctx, []byte("ttl"))
	must(t, err)
	if left == nil || *left > 1000 || *left < 900 {
		t.Fatalf("TTL %v", left)
	}
	must(t, client.Put(ctx, []byte("ttl"), []byte("v")))
	if left, err = client.GetKeyTTL(ctx, []byte("ttl")); err != nil || left == nil || *left != 0 {
		t.Fatal(left, err)
	}
}

// What one client writes the other reads.
func TestRawTogether(t *testing.T) {
	for _, api := range []string{"v1", "v2"} {
		t.Run(api, func(t *testing.T) {
			c := start(t, "--api", api)
			var opts []rawkv.ClientOpt
			if api == "v2" {
				opts = append(opts, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2))
			}
			official, ours, ctx := c.officialRaw(t, opts...), c.peer(t), within(t)
			for i := range 50 {
				key, value := fmt.Sprintf("together%02d", i), fmt.Sprintf("v%d", i)
				if i%2 == 0 {
					must(t, official.Put(ctx, []byte(key), []byte(value)))
					if a := ours.ask(t, command{Do: "rawget", Key: key}); a.Value == nil || *a.Value != value {
						t.Fatalf("%+v", a)
					}
				} else {
					ours.ask(t, command{Do: "rawput", Key: key, Value: value})
					if v, err := official.Get(ctx, []byte(key)); err != nil || string(v) != value {
						t.Fatalf("%q %v", v, err)
					}
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
