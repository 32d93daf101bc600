package main

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/playground"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPeer(t *testing.T) {
	cluster, err := playground.Start(t.Context(), playground.WithTCP("127.0.0.1", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	in := `{"do":"get","key":"a"}
{"do":"begin"}
{"do":"put","key":"a","value":"1"}
{"do":"prewrite"}
{"do":"latest","key":"a"}
{"do":"count","key":"n","times":3}
{"do":"latest","key":"n"}
{"do":"scan","key":"a","end":"z"}
{"do":"begin","option":"pessimistic"}
{"do":"lock","key":"n"}
{"do":"fair"}
{"do":"lock","key":"m"}
{"do":"put","key":"m","value":"1"}
{"do":"commit","option":"auto"}
{"do":"latest","key":"m"}
{"do":"frob"}
`
	var out bytes.Buffer
	if err := serve(t.Context(), strings.Join(cluster.PD(), ","), "v1", "", strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	want := []string{`"no transaction is open"`, `{}`, `{}`, `{}`, `"kind":"absent"`, `{}`, `{"value":"3"}`, `{"pairs":[["n","3"]]}`,
		`{}`, `{"value":"3"}`, `{}`, `"kind":"absent"`, `{}`, `"ts":`, `{"value":"1"}`, `unknown command`}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatal(out.String())
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("answer %d is %s, not %s", i, lines[i], want[i])
		}
	}
}
