package membuf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// benchKeys are a million keys of 24 bytes: those of bench/, in order or shuffled, those
// of rows of a hundred tables, and random bytes.
func benchKeys(shape string) [][]byte {
	const n = 1_000_000
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, n)
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
			out[i] = fmt.Appendf(nil, "bench/%018d", i)
		}
	}
	if shape != "sequential" {
		rnd.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}

func put(b *testing.B, buf *Buffer, key, value []byte) {
	if err := buf.Put(key, value, 0); err != nil {
		b.Fatal(err)
	}
}

func fill(b *testing.B, ks [][]byte, value []byte) *Buffer {
	buf := new(Buffer)
	for _, k := range ks {
		put(b, buf, k, value)
	}
	return buf
}

// BenchmarkBuffer is issue 5's row: an operation is a million keys. bench/rival has the
// same of client-go's.
func BenchmarkBuffer(b *testing.B) {
	value := make([]byte, 100)
	perKey := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/key") }
	for _, shape := range []string{"sequential", "shuffled", "tables", "random"} {
		b.Run(shape, func(b *testing.B) {
			ks := benchKeys(shape)
			b.Run("set", func(b *testing.B) {
				var before, after runtime.MemStats
				for b.Loop() {
					b.StopTimer()
					runtime.GC()
					runtime.ReadMemStats(&before)
					b.StartTimer()
					buf := fill(b, ks, value)
					b.StopTimer()
					runtime.GC()
					runtime.ReadMemStats(&after)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "live-B/key")
					b.ReportMetric(float64(buf.Memory())/1e6, "Memory-B/key")
					b.StartTimer()
				}
				perKey(b)
			})
			buf := fill(b, ks, value)
			probe := append([][]byte(nil), ks...)
			rand.New(rand.NewPCG(5, 6)).Shuffle(len(probe), func(i, j int) { probe[i], probe[j] = probe[j], probe[i] })
			b.Run("get", func(b *testing.B) {
				for b.Loop() {
					for _, k := range probe {
						if e, ok := buf.Get(k); !ok || e.Op != Put {
							b.Fatal("not there")
						}
					}
				}
				perKey(b)
			})
			b.Run("iterate", func(b *testing.B) {
				for b.Loop() {
					n := 0
					c := buf.Freeze().Scan(keys.Range{}, false)
					for e, ok := c.Next(); ok; e, ok = c.Next() {
						n += len(e.Value) * len(e.Key) / 2400
					}
					if n != len(ks) {
						b.Fatal(n)
					}
				}
				perKey(b)
			})
			b.Run("overwrite", func(b *testing.B) {
				for b.Loop() {
					for _, k := range ks {
						put(b, buf, k, value)
					}
				}
				perKey(b)
			})
		})
	}
}

// BenchmarkStatements makes a savepoint, writes one key and goes back, or does not, in a
// buffer of a million keys.
func BenchmarkStatements(b *testing.B) {
	ks, value := benchKeys("shuffled"), make([]byte, 100)
	for _, back := range []bool{true, false} {
		b.Run(fmt.Sprintf("back=%v", back), func(b *testing.B) {
			buf := fill(b, ks, value)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				sp := buf.Savepoint()
				put(b, buf, ks[i%len(ks)], value)
				if back {
					buf.Undo(sp)
				}
			}
		})
	}
}

// BenchmarkOneKey is the buffer of a transaction that writes one key.
func BenchmarkOneKey(b *testing.B) {
	key, value := []byte("bench/000000000000000001"), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		var buf Buffer
		put(b, &buf, key, value)
		c := buf.Freeze().Scan(keys.Range{}, false)
		if _, ok := c.Next(); !ok {
			b.Fatal("not there")
		}
	}
}
