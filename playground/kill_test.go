package playground

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// A child process keeps a cluster in a directory, writes to it, splits it, takes
// timestamps, and prints each once it was acknowledged. The parent kills it at a random
// point and looks for what was acknowledged.

const killEnv = "TIKV_GO_PLAYGROUND_KILL_DIR"

// killChild is the child's main; false in any other process.
func killChild() bool {
	dir := os.Getenv(killEnv)
	if dir == "" {
		return false
	}
	if err := killWork(context.Background(), dir); err != nil {
		fmt.Println("error", err)
	}
	return true
}

func killWork(ctx context.Context, dir string) error {
	c, err := Start(ctx, WithDir(dir, false))
	if err != nil {
		return err
	}
	dial := func(addr string) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(c.DialContext), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(serve.Codec())))
	}
	pdConn, err := dial(c.PD()[0])
	if err != nil {
		return err
	}
	tso, err := pdpb.NewPDClient(pdConn).Tso(ctx)
	if err != nil {
		return err
	}
	stores := make(map[uint64]tikvpb.TikvClient)
	for _, s := range c.stores {
		cc, err := dial(s.Server().Addr())
		if err != nil {
			return err
		}
		stores[s.ID] = tikvpb.NewTikvClient(cc)
	}
	for {
		if err := tso.Send(&pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: c.ID()}, Count: 7}); err != nil {
			return err
		}
		ts, err := tso.Recv()
		if err != nil {
			return err
		}
		n := uint64(ts.Timestamp.Physical)<<18 | uint64(ts.Timestamp.Logical)
		fmt.Println("ts", n)
		key := strconv.FormatUint(n, 10)
		if n%5 == 0 {
			if _, err := c.Split(KeyRaw, []byte(key)); err != nil {
				return err
			}
			fmt.Println("split", key)
		}
		r := c.topo.ByKey([]byte(key))
		p, err := stores[r.LeaderStore()].RawPut(ctx, &kvrpcpb.RawPutRequest{
			Context: &kvrpcpb.Context{RegionId: r.ID(), RegionEpoch: r.Meta.RegionEpoch, Peer: r.Leader},
			Key:     []byte(key), Value: []byte("value of " + key),
		})
		if err != nil || p.RegionError != nil || p.Error != "" {
			return fmt.Errorf("put: %v %v", p, err)
		}
		fmt.Println("put", key)
	}
}

func TestKilledClusterLosesNothing(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 6))
	acknowledged := make(map[string][]string) // by kind
	lastTS := uint64(0)
	for round := range 6 {
		child := exec.Command(exe)
		child.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		killAt, lines := 1+r.IntN(300), bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			kind, what, _ := strings.Cut(lines.Text(), " ")
			switch kind {
			case "ts":
				ts, err := strconv.ParseUint(what, 10, 64)
				if err != nil || ts <= lastTS {
					t.Fatalf("round %d: timestamp %s after %d (%v)", round, what, lastTS, err)
				}
				lastTS = ts
			case "put", "split":
				acknowledged[kind] = append(acknowledged[kind], what)
			default:
				t.Fatal(lines.Text())
			}
			if n == killAt {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // "signal: killed"
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			c := start(t, WithDir(dir, false))
			for _, key := range acknowledged["put"] {
				if v, ok := c.rawGet(key); !ok || v != "value of "+key {
					t.Fatalf("put %s was acknowledged and is lost: %q", key, v)
				}
			}
			for _, key := range acknowledged["split"] {
				if at := c.topo.ByKey([]byte(key)); string(at.Meta.StartKey) != key {
					t.Fatalf("split %s was acknowledged and is lost", key)
				}
			}
			if ts := c.timestamp(); ts <= lastTS {
				t.Fatalf("timestamp %d after %d", ts, lastTS)
			} else {
				lastTS = ts
			}
		})
	}
	if len(acknowledged["put"]) < 50 || len(acknowledged["split"]) < 5 {
		t.Fatalf("%d puts, %d splits", len(acknowledged["put"]), len(acknowledged["split"]))
	}
}
