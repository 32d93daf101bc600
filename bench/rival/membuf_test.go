package main

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/tikv/client-go/v2/tikv"

	"github.com/tikv-go/tikv/bench/rival/internal/harness"
)

const bufferKeys = 1_000_000

// bufferOrder are keys of 24 bytes, as in internal/membuf/bench_test.go.
func bufferOrder(shape string) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, bufferKeys)
	for i := range out {
		switch shape {
		case "tables":
			k := make([]byte, 24)
			copy(k, "t\x80\x00\x00\x00\x00\x00\x00")
			k[8] = byte(i % 100)
			copy(k[9:], "_r\x80\x00\x00\x00")
			binary.BigEndian.PutUint64(k[15:], uint64(i/100))
			out[i] = k
		case "random":
			k := binary.BigEndian.AppendUint64(nil, rnd.Uint64())
			k = binary.BigEndian.AppendUint64(k, rnd.Uint64())
			out[i] = binary.BigEndian.AppendUint64(k, rnd.Uint64())
		default:
			out[i] = harness.Key(i, 24)
		}
	}
	if shape != "sequential" {
		rnd.Shuffle(bufferKeys, func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}

// BenchmarkBuffer is internal/membuf's BenchmarkBuffer for the rival's memory buffer.
func BenchmarkBuffer(b *testing.B) {
	if err := quiet(); err != nil {
		b.Fatal(err)
	}
	pd, _ := nullStore(b, benchProgram(b), true)
	store, err := openTxn(pd)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	value := make([]byte, 100)
	fill := func(b *testing.B, ks [][]byte) tikv.MemBuffer {
		txn, err := store.Begin()
		if err != nil {
			b.Fatal(err)
		}
		buf := txn.GetMemBuffer()
		buf.SetEntrySizeLimit(math.MaxUint64, math.MaxUint64)
		for _, k := range ks {
			if err := buf.Set(k, value); err != nil {
				b.Fatal(err)
			}
		}
		return buf
	}
	perKey := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/bufferKeys, "ns/key")
	}
	for _, shape := range []string{"sequential", "shuffled", "tables", "random"} {
		b.Run(shape, func(b *testing.B) {
			ks := bufferOrder(shape)
			b.Run("set", func(b *testing.B) {
				var before, after runtime.MemStats
				for range b.N {
					b.StopTimer()
					runtime.GC()
					runtime.ReadMemStats(&before)
					b.StartTimer()
					buf := fill(b, ks)
					b.StopTimer()
					runtime.GC()
					runtime.ReadMemStats(&after)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/bufferKeys, "live-B/key")
					b.ReportMetric(float64(buf.Mem())/bufferKeys, "Memory-B/key")
					b.StartTimer()
				}
				perKey(b)
			})
			buf := fill(b, ks)
			probe := append([][]byte(nil), ks...)
			rand.New(rand.NewPCG(5, 6)).Shuffle(len(probe), func(i, j int) { probe[i], probe[j] = probe[j], probe[i] })
			b.Run("get", func(b *testing.B) {
				for range b.N {
					for _, k := range probe {
						if _, err := buf.Get(context.Background(), k); err != nil {
							b.Fatal(err)
						}
					}
				}
				perKey(b)
			})
			b.Run("iterate", func(b *testing.B) {
				for range b.N {
					n := 0
					it, err := buf.Iter(nil, nil)
					if err != nil {
						b.Fatal(err)
					}
					for it.Valid() {
						n += len(it.Value()) * len(it.Key()) / 2400
						if err := it.Next(); err != nil {
							b.Fatal(err)
						}
					}
					it.Close()
					if n != bufferKeys {
						b.Fatal(n)
					}
				}
				perKey(b)
			})
			b.Run("overwrite", func(b *testing.B) {
				for range b.N {
					for _, k := range ks {
						if err := buf.Set(k, value); err != nil {
							b.Fatal(err)
						}
					}
				}
				perKey(b)
			})
		})
	}
}
