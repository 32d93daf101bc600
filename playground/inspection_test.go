package playground

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/tikv-go/tikv/internal/task"
)

func TestInspectionOverControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		h := c.ControlHandler()
		get := func(path string, params ...string) map[string]any {
			t.Helper()
			q := url.Values{}
			for i := 0; i < len(params); i += 2 {
				q.Set(params[i], base64.StdEncoding.EncodeToString([]byte(params[i+1])))
			}
			code, a := control(t, h, "GET", path+"?"+q.Encode(), "")
			if code != 200 {
				t.Fatal(path, code, a)
			}
			return a
		}
		_, begun := control(t, h, "POST", "/v1/trace", "")
		s := c.timestamp()
		c.prewrite(s, "k\xff", "v")
		locks := get("/v1/locks", "start", "k", "end", "l")["locks"].([]any)
		if len(locks) != 1 || locks[0].(map[string]any)["start_ts"] != fmt.Sprint(s) || locks[0].(map[string]any)["ttl"] != "3s" {
			t.Fatal(locks)
		}
		if l := get("/v1/locks", "start", "l")["locks"].([]any); len(l) != 0 {
			t.Fatal(l)
		}
		if txns := get("/v1/txns")["txns"].([]any); len(txns) != 1 || txns[0] != fmt.Sprint(s) || c.Txns()[0] != s {
			t.Fatal(txns, c.Txns())
		}
		e := c.timestamp()
		c.commit(s, e, "k\xff")
		versions := get("/v1/versions", "key", "k\xff")["versions"].([]any)
		if v := versions[0].(map[string]any); len(versions) != 1 || v["kind"] != "put" || v["commit_ts"] != fmt.Sprint(e) || v["value"] != "dg==" {
			t.Fatal(versions)
		}
		code, ended := control(t, h, "POST", "/v1/trace-end", jsonOf(begun))
		calls, _ := ended["calls"].([]any)
		var methods []any
		for _, k := range calls {
			methods = append(methods, k.(map[string]any)["method"])
		}
		if got := fmt.Sprint(methods); code != 200 || got != "[Tso GetRegion KvPrewrite Tso GetRegion KvCommit]" {
			t.Fatal(code, got)
		}
		if code, a := control(t, h, "POST", "/v1/trace-end", jsonOf(begun)); code != 400 {
			t.Fatal("ended twice", a)
		}
		if code, a := control(t, h, "GET", "/v1/locks?start=!", ""); code != 400 {
			t.Fatal(a)
		}
		held := c.Inject(Fault{Method: "KvGet", Hold: true})
		tasks := task.Root(t.Context())
		tasks.Go("get", func(context.Context) { c.get(e, "k\xff") })
		synctest.Wait()
		waiting := get("/v1/waiting")["calls"].([]any)
		if len(waiting) != 1 || waiting[0].(map[string]any)["method"] != "KvGet" {
			t.Fatal(waiting)
		}
		held.Remove()
		if err := tasks.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
