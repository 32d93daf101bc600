package playground

import (
	"testing"
	"testing/synctest"
	"time"
)

// everywhere runs a test on each network: loopback TCP, memory, memory in fake time.
func everywhere(t *testing.T, f func(t *testing.T, opts ...Option)) {
	t.Run("tcp", func(t *testing.T) { f(t, WithTCP("127.0.0.1", 0)) })
	t.Run("memory", func(t *testing.T) { f(t) })
	t.Run("synctest", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t) }) })
}

func TestRaw(t *testing.T) {
	for _, api := range []APIVersion{APIV1, APIV1TTL, APIV2} {
		t.Run(api.String(), func(t *testing.T) {
			everywhere(t, func(t *testing.T, opts ...Option) {
				c := start(t, append(opts, WithAPIVersion(api), WithSplitKeys(KeyRaw, []byte("m")))...)
				for _, k := range []string{"a", "m", "z"} {
					c.rawPut(k, "value of "+k)
				}
				for _, k := range []string{"a", "m", "z"} {
					if v, ok := c.rawGet(k); !ok || v != "value of "+k {
						t.Fatal(k, v, ok)
					}
				}
				if _, ok := c.rawGet("b"); ok {
					t.Fatal("b is there")
				}
			})
		})
	}
}

// A start and an end wait for no timer.
func TestStartIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c, err := Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Fatalf("a cluster takes %v to start and end", took)
		}
	})
}
