package playground

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
)

// What is no request of its verb is refused, in words of the request, and changes nothing.
func TestControlRefusesWhatIsNoRequest(t *testing.T) {
	c := start(t)
	h := c.ControlHandler()
	region := c.Regions(KeyTxn)[0].ID
	for _, q := range []struct{ verb, body, want string }{
		{"heal", `{} {}`, "more than one JSON object"},
		{"trace", `{} x`, "more than one JSON object"},
		{"heal", `null`, "no JSON object"},
		{"heal", `[]`, "no JSON object"},
		{"heal", `{`, "no JSON object"},
		{"wait", `3`, "no JSON object"},
		{"heal", `{"x":1}`, `unknown field "x"`},
		{"heal", `{"x":"` + strings.Repeat("a", maxControl) + `"}`, "longer than 1048576 bytes"},
		{"stop", `{"store":"1"}`, `"store" is a whole number from 0, not a string`},
		{"stop", `{"store":-1}`, `"store" is a whole number from 0, not a number -1`},
		{"stop", `{"member":0.5}`, `"member" is a whole number, not a number 0.5`},
		{"stop", `{"client":true}`, "only a cut is of the client"},
		{"pause", `{"client":true}`, "only a cut is of the client"},
		{"cut", `{"from":1,"to":{"store":1}}`, `"from" is an object, not a number`},
		{"cut", `{"from":{"store":"x"},"to":{"store":1}}`, `"from.store" is a whole number from 0, not a string`},
		{"cut", `{"from":{"store":1}}`, `"to" is missing`},
		{"add-store", `{"labels":{"zone":5}}`, `"labels" is text, not a number`},
		{"set-buckets", `{"region":4,"mode":"txn","keys":"eg=="}`, `"keys" is a list, not a string`},
		{"split", `{"mode":"txn"}`, `"key" is missing`},
		{"split", `{"mode":"txn","key":7}`, `"key" is bytes in base64, not a number`},
		{"split", `{"mode":"txn","key":"!"}`, "bytes that are not in base64"},
		{"merge", `{"region":4}`, `"into" is missing`},
		{"rollback-merge", `{"region":4,"store":1}`, `unknown field "store"`},
		{"remove-peer", `{"region":4,"store":1,"role":"voter"}`, `unknown field "role"`},
		{"add-peer", `{"region":4,"store":1}`, `"role" is missing`},
		{"hide-region", fmt.Sprintf(`{"region":%d}`, region), `"hidden" is missing`},
		{"set-leaving", `{"store":1}`, `"leaving" is missing`},
		{"set-operator-time", ``, `"takes" is missing`},
		{"set-operator-time", `{"takes":null}`, `"takes" is missing`},
		{"stall-tso", ``, `"stalled" is missing`},
		{"stall-tso", `{"stalled":"yes"}`, `"stalled" is true or false, not a string`},
		{"advance", `{}`, `"by" is missing`},
		{"advance", `{"by":5}`, `"by" is a duration such as "1m30s", not a number`},
		{"advance", `{"by":"5"}`, `"5" is no duration such as "1m30s"`},
		{"set-keyspace-config", `{"keyspace":"DEFAULT","key":"k"}`, `"value" is missing`},
		{"set-store", `{"store":1,"slow_score":"x"}`, `"slow_score" is a number, not a string`},
		{"release", ``, `"injection" is missing`},
		{"trace-end", `{}`, `"trace" is missing`},
		{"replay", `{}`, `"journal" is missing`},
		{"wait", `{"timeout_ms":-1}`, "timeout"},
		{"inject", `{"delay":"-1s"}`, "out of its range"},
		{"inject", `{"node":{"client":true}}`, "no request reaches the client"},
		{"inject", `{"node":{"store":99}}`, "no store 99"},
		{"inject", `{"node":{"member":9}}`, "no member 9"},
		{"inject", `{"region_error":"none"}`, `no region error "none"`},
		{"inject", `{"region_error":"NotLeader","key_error":"Sunk"}`, `no key error "Sunk"`},
		{"inject", `{"start_ts":"x"}`, "x is no timestamp"},
		{"inject", `{"start_ts":-1}`, "-1 is no timestamp"},
	} {
		code, a := control(t, h, "POST", "/v1/"+q.verb, q.body)
		if text, _ := a["error"].(string); code != 400 || !strings.Contains(text, q.want) || strings.Contains(text, "playground.") {
			t.Errorf("%s %.60s: %d %v, want %q", q.verb, q.body, code, a, q.want)
		}
	}
	if _, a := control(t, h, "GET", "/v1/counts", ""); a["calls"] == nil {
		t.Error("no calls are", a)
	}
	if j := c.Journal(); len(j) > 0 {
		t.Errorf("refused, and done:\n%s", j)
	}
}

// The control address refuses in JSON what it does not have, too.
func TestControlRefusesUnknownPaths(t *testing.T) {
	h := start(t).ControlHandler()
	for _, q := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/", 404, "there is no /"},
		{"POST", "/v1/fly", 404, "there is no /v1/fly"},
		{"GET", "/v1/stop", 405, "/v1/stop takes POST"},
		{"POST", "/v1/journal", 405, "/v1/journal takes GET"},
		{"PUT", "/v1/stop", 405, "/v1/stop takes POST"},
		{"GET", "/v1/versions", 400, "key is missing"},
	} {
		code, a := control(t, h, q.method, q.path, "")
		if text, _ := a["error"].(string); code != q.code || !strings.Contains(text, q.want) {
			t.Errorf("%s %s: %d %v", q.method, q.path, code, a)
		}
	}
}

// A timestamp is taken as text, too, as the answers have it.
func TestControlTakesTimestampsAsText(t *testing.T) {
	c := start(t)
	h := c.ControlHandler()
	for _, body := range []string{`{"start_ts":"470659654243319809"}`, `{"start_ts":470659654243319809}`} {
		if code, a := control(t, h, "POST", "/v1/inject", body); code != 200 {
			t.Fatal(code, a)
		}
	}
	for _, line := range strings.Fields(string(c.Journal())) {
		if !strings.Contains(line, `"start_ts":470659654243319809`) {
			t.Error(line)
		}
	}
}

// A journal is replayed that is longer than any other request may be.
func TestControlReplaysLongJournals(t *testing.T) {
	c := start(t)
	h := c.ControlHandler()
	line := `{"at":0,"do":"heal"}` + "\n"
	if code, a := control(t, h, "POST", "/v1/replay", `{"journal":`+jsonOf(strings.Repeat(line, 1+maxControl/len(line)))+`}`); code != 200 {
		t.Fatal(code, a)
	}
}

// What was removed is changed no more.
func TestRemovedStoreIsNotChanged(t *testing.T) {
	c := start(t, WithStores(4))
	c.must(c.RemoveStore(4))
	expect(t, c.SetStore(4, StoreState{Disk: DiskAlreadyFull}), "store 4 was removed")
	expect(t, c.Cut(Client(), Store(4)), "store 4 was removed")
	expect(t, c.Cut(Store(4), Store(1)), "store 4 was removed")
	expect(t, c.SetLeaving(4, true), "no store 4")
}

// A journal tells of a split at the empty key as of any other.
func TestReplayOfEmptyKey(t *testing.T) {
	c := start(t)
	if _, err := c.Split(KeyRaw, nil); err != nil {
		t.Fatal(err)
	}
	c.must(c.Replay(c.Journal()))
}

// A store that cannot listen was never there.
func TestAddStoreFails(t *testing.T) {
	c := start(t)
	taken, err := c.network.Listen("198.18.1.5:20160")
	c.must(err)
	_, err = c.AddStore(map[string]string{"zone": "a"})
	expect(t, err, "198.18.1.5:20160")
	if n := len(c.storeViews()); n != 3 || len(c.topo.Stores()) != 3 || len(c.Journal()) > 0 {
		t.Fatal(n, c.topo.Stores(), string(c.Journal()))
	}
	c.must(taken.Close())
	id, err := c.AddStore(nil)
	c.must(err)
	if !c.topo.Live(id) || c.storeViews()[3].Address != "198.18.1.5:20160" {
		t.Fatal(c.storeViews())
	}
}

// The clock and the timestamps go no further than there are timestamps for.
func TestClocksHaveAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		h := c.ControlHandler()
		for _, q := range []struct{ verb, by, want string }{
			{"jump-tso", "-1h", "do not go back"},
			{"advance", "-300000h", "the clock cannot be at"}, // it begins in 2000
			{"advance", "2562047h", ""},
			{"advance", "2562047h", "cannot be moved"},
			{"advance", "-2562047h", ""},
			{"jump-tso", "2562047h", ""},
			{"jump-tso", "2562047h", "no timestamps at"},
		} {
			code, a := control(t, h, "POST", "/v1/"+q.verb, `{"by":"`+q.by+`"}`)
			if text, _ := a["error"].(string); (code == 200) != (q.want == "") || !strings.Contains(text, q.want) {
				t.Error(q, code, a)
			}
		}
		before, now := c.timestamp(), c.Now()
		c.JumpTSO(math.MaxInt64)
		c.Advance(-1 << 62)
		if ts := c.timestamp(); ts <= before || ts > before+1<<20 || !c.Now().Equal(now) {
			t.Fatal(before, ts, now, c.Now())
		}
		if n := strings.Count(string(c.Journal()), "\n"); n != 3 {
			t.Errorf("%d lines:\n%s", n, c.Journal())
		}
	})
}
