package tikvtest

import (
	"context"
	"fmt"
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func BenchmarkRawGet(b *testing.B) {
	for _, tcp := range []bool{false, true} {
		b.Run(fmt.Sprintf("tcp=%v", tcp), func(b *testing.B) {
			var opts []playground.Option
			if tcp {
				opts = append(opts, playground.WithTCP("127.0.0.1", 0))
			}
			client := NewCluster(b, opts...).Open()
			if err := client.Raw().Put(b.Context(), []byte("a"), []byte("1")); err != nil {
				b.Fatal(err)
			}
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := client.Raw().Get(b.Context(), []byte("a")); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkTxn(b *testing.B) {
	client := NewCluster(b).Open()
	for i := 0; b.Loop(); i++ {
		err := client.RunTxn(b.Context(), func(ctx context.Context, tx *tikv.Txn) error {
			return tx.Put(fmt.Appendf(nil, "k%d", i%100), []byte("v"))
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
