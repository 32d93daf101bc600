package nullstore

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/bench/internal/harness"
)

// BenchmarkFrame is what a frame of 32 requests costs to answer, gRPC apart.
func BenchmarkFrame(b *testing.B) {
	d := harness.MakeData(1000, keySize, valueSize, 1)
	one := func(cmd protowire.Number, body []byte) []byte { return appendBytes(nil, cmd, body) }
	var batch []byte
	for i := range 50 {
		batch = appendBytes(batch, 2, d.Keys[i])
	}
	for _, c := range []struct {
		name    string
		request []byte
	}{
		{"raw get", one(cmdRawGet, appendBytes(nil, 2, d.Keys[7]))},
		{"raw batch get of 50", one(cmdRawBatchGet, batch)},
		{"raw scan of 100", one(cmdRawScan, appendVarint(appendBytes(nil, 2, d.Keys[7]), 3, 100))},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newStore(valueSize, 0)
			var message, ids []byte
			for i := range 32 {
				message = appendBytes(message, 1, c.request)
				ids = protowire.AppendVarint(ids, uint64(i))
			}
			message = appendBytes(message, 2, ids)
			var a answerer
			b.ReportAllocs()
			for b.Loop() {
				f := &frame{in: mem.BufferSlice{mem.SliceBuffer(message)}}
				if n, err := a.frame(s, f); n != 32 || err != nil {
					b.Fatal(n, err)
				}
				f.out.Free()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/request")
		})
	}
}
