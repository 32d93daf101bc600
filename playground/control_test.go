package playground

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// control sends a control request and returns its status and answer.
func control(t *testing.T, h http.Handler, method, path, body string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil && w.Code < 404 {
		t.Fatalf("%s: %v in %q", path, err, w.Body)
	}
	return w.Code, answer
}

func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		h := c.ControlHandler()
		code, a := control(t, h, "POST", "/v1/split", `{"mode":"txn","key":"bQ=="}`)
		regions := c.Regions(KeyTxn)
		if code != 200 || len(regions) != 2 || a["region"] != float64(regions[1].ID) || string(regions[1].Start) != "m" {
			t.Fatal(code, a, regions)
		}
		code, a = control(t, h, "GET", "/v1/regions?mode=txn", "")
		if list := a["regions"].([]any); code != 200 || len(list) != 2 || list[0].(map[string]any)["end"] != "bQ==" {
			t.Fatal(code, a)
		}
		lead := regions[0].Leader%3 + 1
		if code, a = control(t, h, "POST", "/v1/transfer-leader", `{"region":`+jsonOf(regions[0].ID)+`,"store":`+jsonOf(lead)+`}`); code != 200 || c.Regions(KeyTxn)[0].Leader != lead {
			t.Fatal(code, a)
		}
		for _, store := range []string{"1", "2"} {
			if code, a = control(t, h, "POST", "/v1/stop", `{"store":`+store+`}`); code != 200 {
				t.Fatal(code, a)
			}
		}
		code, a = control(t, h, "GET", "/v1/stores", "")
		if s := a["stores"].([]any)[0].(map[string]any); code != 200 || s["running"] != false || s["leaders"] != float64(0) {
			t.Fatal(code, a)
		}
		if code, a = control(t, h, "POST", "/v1/wait", `{"timeout_ms":60000}`); code != 504 {
			t.Fatal("two of three stores are down, and all regions are led:", code, a)
		}
		time.AfterFunc(10*time.Second, func() {
			if err := c.Cluster.Start(Store(2)); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		if code, a = control(t, h, "POST", "/v1/wait", ``); code != 200 || time.Since(began) != 10*time.Second {
			t.Fatal(code, a, time.Since(began))
		}
		code, a = control(t, h, "GET", "/v1/counts", "")
		if code != 200 || a["splits"] != float64(1) || a["starts"] != float64(1) {
			t.Fatal(code, a)
		}
		if code, a = control(t, h, "GET", "/v1/cluster", ""); code != 200 || a["api"] != "v1" || a["regions"] != float64(2) {
			t.Fatal(code, a)
		}
	})
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestControlRefuses(t *testing.T) {
	c := start(t, WithAPIVersion(APIV1TTL))
	h := c.ControlHandler()
	for _, q := range []struct{ path, body, want string }{
		{"/v1/split", `{"mode":"both","key":"bQ=="}`, `mode is txn or raw, not "both"`},
		{"/v1/split", `{"mode":"txn","key":"bQ=="}`, "has no transactional keys"},
		{"/v1/split", `{"mode":"raw","key":7}`, "bytes in base64"},
		{"/v1/split", `{"mode":"raw","kay":"bQ=="}`, "unknown field"},
		{"/v1/transfer-leader", `{"region":99999,"store":1}`, "no region 99999"},
		{"/v1/stop", `{}`, "name a store or a member"},
		{"/v1/stop", `{"store":9}`, "no store 9"},
		{"/v1/stop", `{"member":3}`, "no member 3"},
		{"/v1/pause", `{"store":1,"member":0}`, "name a store or a member"},
	} {
		code, a := control(t, h, "POST", q.path, q.body)
		if text, _ := a["error"].(string); code != 400 || !strings.Contains(text, q.want) {
			t.Errorf("%s %s: %d %v, want %q", q.path, q.body, code, a, q.want)
		}
	}
	if code, _ := control(t, h, "GET", "/v1/split", ""); code != 405 {
		t.Error(code)
	}
	if code, a := control(t, h, "GET", "/v1/regions?mode=txn", ""); code != 400 {
		t.Error(code, a)
	}
}
