package playground

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/task"
)

// history is what a fixed sequence of requests hears, with the changes that change does
// between them.
func history(c *testCluster, change func(i int)) string {
	var text strings.Builder
	at, kv := c.at(KeyRaw, "k5")
	for i := range 30 {
		change(i)
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		resp, err := kv.RawPut(ctx, &kvrpcpb.RawPutRequest{Context: at, Key: fmt.Appendf(nil, "k%d", i%10), Value: []byte("v")})
		cancel()
		fmt.Fprintln(&text, i, status.Code(err), kindOf(resp.GetRegionError()))
	}
	change(30)
	fmt.Fprintln(&text, c.Regions(KeyRaw), c.Counts().Splits, c.Counts().Merges, c.Counts().Dropped)
	return text.String()
}

// A journal that is replayed on a cluster that gets the same requests has the same
// effects, of chances too, and makes the same journal.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, WithStores(4), WithSeed(7))
		var dropped, last *Injection
		want := history(first, func(i int) {
			switch i {
			case 3:
				dropped = first.Inject(Fault{Method: "RawPut", DropAnswer: true, Times: 1})
			case 5:
				dropped.Remove()
				first.Inject(Fault{Method: "RawPut", RegionError: ServerIsBusy, Chance: 0.4})
			case 12:
				if _, err := first.Split(KeyRaw, []byte("k3")); err != nil {
					t.Fatal(err)
				}
			case 15:
				r := first.Regions(KeyRaw)
				first.must(first.TransferLeader(r[1].ID, r[1].Leader%3+1))
				first.must(first.Merge(r[0].ID, r[1].ID))
			case 20:
				last = first.Inject(Fault{Key: []byte("k7"), RegionError: StaleCommand})
			case 29:
				last.Remove()
			case 30:
				r := first.Regions(KeyRaw)
				first.must(first.AddPeer(r[0].ID, 4, Learner))
				if _, err := first.AddStore(map[string]string{"zone": "z"}); err != nil {
					t.Fatal(err)
				}
			}
		})
		journal := first.Journal()
		if n := strings.Count(string(journal), "\n"); n != 10 || !strings.Contains(string(journal), `"do":"split"`) {
			t.Fatalf("%s", journal)
		}
		second := start(t, WithStores(4), WithSeed(7))
		other := start(t, WithStores(4), WithSeed(7))
		if got := history(other, func(int) {}); got == want {
			t.Fatal("the history does not depend on the changes")
		}
		second.must(second.Replay(journal))
		if got := history(second, func(int) { synctest.Wait() }); got != want {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
		if got := second.Journal(); string(got) != string(journal) {
			t.Fatalf("%s\nwant\n%s", got, journal)
		}
		if len(second.Regions(KeyRaw)[0].Stores) != 4 || len(second.topo.Stores()) != 5 {
			t.Fatal("the last lines were not done:", second.Regions(KeyRaw))
		}
	})
}

// Held requests do not keep what comes next from being done.
func TestReplayReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.must(c.Replay([]byte(`{"at":0,"do":"inject","injection":5,"method":"RawPut","hold":true}
{"at":2,"do":"release","injection":5}
`)))
		if len(c.journal.all()) != 1 {
			t.Fatal("not done at once")
		}
		if err := c.tryPut(t.Context(), "a"); err != nil { // GetRegion, RawPut
			t.Fatal(err)
		}
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		ended := make(chan error, 1)
		tasks.Go("put", func(context.Context) { ended <- c.tryPut(t.Context(), "a") })
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatal("not held again:", err)
		default:
		}
		c.must(c.Replay([]byte(`{"at":0,"do":"stop","store":` + fmt.Sprint(c.topo.ByKey(nil).LeaderStore()) + `}`)))
		if err := <-ended; status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	})
}

// A journal's line may end the node whose request it is done before.
func TestReplayStopsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		store := c.topo.ByKey(nil).LeaderStore()
		c.must(c.Replay(fmt.Appendf(nil, `{"at":1,"do":"stop","store":%d}`, store)))
		if err := c.tryPut(t.Context(), "a"); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		if c.store(store).Server().Running() {
			t.Fatal("it runs")
		}
	})
}

func TestReplayRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.Inject(Fault{Method: "RawPut", Before: func() {}}).Remove()
		expect(t, c.Replay(c.Journal()), "functions")
		for journal, text := range map[string]string{
			`{"at":1`:                                                "damaged",
			`{"at":"x","do":"heal"}`:                                 "damaged",
			`{"do":"heal"}`:                                          "damaged",
			`{"at":-1,"do":"heal"}`:                                  "negative",
			`{"at":1,"do":"stop"}`:                                   "name a store",
			`{"at":1,"do":"cut","from":{},"to":{}}`:                  "name a store",
			`{"at":1,"do":"fly"}`:                                    "no change",
			`{"at":1,"do":"heal","x":1}`:                             "unknown field",
			`{"at":1,"do":"inject","key_error":"Sunk"}`:              "the journal: there is no key error",
			"{\"at\":2,\"do\":\"heal\"}\n{\"at\":1,\"do\":\"heal\"}": "go back",
		} {
			expect(t, c.Replay([]byte(journal)), text)
		}
		c.must(c.Replay(nil))
	})
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"at":1,"do":"split","mode":"raw","key":"aw=="}`))
	f.Add([]byte(`{"at":0,"do":"inject","method":"RawPut","delay":"1s","truncate":3}` + "\n" + `{"at":0,"do":"remove","injection":1}`))
	f.Add([]byte(`{"at":0,"do":"set-store","store":1,"disk":"almost full","slow_score":3}`))
	c, err := Start(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close() })
	f.Fuzz(func(t *testing.T, journal []byte) {
		_ = c.Replay(journal) // does not panic
	})
}

// Every verb over HTTP, by its effect.
func TestControlVerbs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithMembers(3))
		h := c.ControlHandler()
		ask := func(verb, body string) map[string]any {
			t.Helper()
			code, a := control(t, h, "POST", "/v1/"+verb, body)
			if code != 200 {
				t.Fatal(verb, code, a)
			}
			return a
		}
		id := uint64(ask("split", `{"mode":"raw","key":"bQ=="}`)["region"].(float64))
		left := c.Regions(KeyRaw)[0]
		other := uint64(1)
		for left.has(other) {
			other++
		}
		ask("add-peer", fmt.Sprintf(`{"region":%d,"store":%d,"role":"witness"}`, left.ID, other))
		if p := c.topo.ByID(left.ID).Peer(other); !p.IsWitness {
			t.Fatal(p)
		}
		ask("remove-peer", fmt.Sprintf(`{"region":%d,"store":%d}`, left.ID, other))
		if c.topo.ByID(left.ID).Peer(other) != nil {
			t.Fatal("not removed")
		}
		ask("hide-region", fmt.Sprintf(`{"region":%d,"hidden":true}`, id))
		if c.topo.PD().ByID(id) != nil {
			t.Fatal("not hidden")
		}
		ask("merge", fmt.Sprintf(`{"region":%d,"into":%d}`, left.ID, id))
		if c.topo.Len() != 1 || c.topo.ByID(id) == nil {
			t.Fatal(c.Regions(KeyRaw))
		}
		ask("hide-region", fmt.Sprintf(`{"region":%d,"hidden":false}`, id))
		added := uint64(ask("add-store", `{"labels":{"zone":"a"}}`)["store"].(float64))
		if l := c.topo.Labels(added); len(l) != 1 || l[0].Value != "a" || !c.topo.Live(added) {
			t.Fatal(l)
		}
		ask("remove-store", fmt.Sprintf(`{"store":%d}`, added))
		if !c.topo.Removed(added) {
			t.Fatal("not removed")
		}
		ask("set-store", `{"store":1,"disk":"already full","disk_delay":"1s","slow_score":9,"advertise":"a:1",
			"apply_lag":"2s","resolved_lag":"3s","read_wait":"4s"}`)
		if s := c.store(1).State(); s.Disk != 2 || s.DiskDelay != time.Second || s.SlowScore != 9 || s.Advertise != "a:1" ||
			s.ApplyLag != 2*time.Second || s.ResolvedLag != 3*time.Second || s.ReadWait != 4*time.Second || c.lag.Lag(1) != s.ApplyLag {
			t.Fatal(s)
		}
		ask("set-store", `{"store":1}`)
		leader := c.topo.ByID(id).LeaderStore()
		for s := range uint64(4) {
			if s+1 != leader {
				ask("cut", fmt.Sprintf(`{"from":{"store":%d},"to":{"store":%d}}`, s+1, leader))
			}
		}
		if c.topo.ByID(id).LeaderStore() == leader {
			t.Fatal("not cut")
		}
		ask("cut", `{"from":{"client":true},"to":{"store":1}}`)
		ask("heal", ``)
		if len(c.cuts) != 0 {
			t.Fatal("not healed")
		}
		ask("transfer-pd", `{"member":2}`)
		if c.pd.Leader() != 2 {
			t.Fatal(c.pd.Leader())
		}
		ask("transfer-pd", `{"member":0}`)
		now := c.Now()
		ask("advance", `{"by":"1h"}`)
		ask("jump-tso", `{"by":"2h"}`)
		if c.Now().Sub(now) != time.Hour || c.timestamp()>>18 < uint64(c.Now().Add(2*time.Hour).UnixMilli()) {
			t.Fatal(c.Now().Sub(now), c.timestamp())
		}
		ask("stall-tso", `{"stalled":true}`)
		time.AfterFunc(time.Second, func() { control(t, h, "POST", "/v1/stall-tso", `{"stalled":false}`) })
		began := time.Now()
		if c.timestamp(); time.Since(began) != time.Second {
			t.Fatal(time.Since(began))
		}
		synctest.Wait() // a change is in the journal a moment after it is made
		c.controlFaults(h, ask)
	})
}

func (r Region) has(store uint64) bool {
	for _, s := range r.Stores {
		if s == store {
			return true
		}
	}
	return false
}

func (c *testCluster) controlFaults(h http.Handler, ask func(verb, body string) map[string]any) {
	t := c.t
	t.Helper()
	n := ask("inject", `{"method":"RawPut","region_error":"StaleCommand","times":1,"mode":"raw","key":"aw==","node":{"store":`+fmt.Sprint(c.topo.ByKey(nil).LeaderStore())+`}}`)["injection"]
	expect(t, c.tryPut(t.Context(), "k"), "StaleCommand")
	c.must(c.tryPut(t.Context(), "k"))
	_, views := control(t, h, "GET", "/v1/injections", "")
	if v := views["injections"].([]any)[0].(map[string]any); v["injection"] != n || v["hits"] != 1.0 {
		t.Fatal(views)
	}
	ask("remove", fmt.Sprintf(`{"injection":%v}`, n))
	n = ask("inject", `{"method":"RawGet","truncate":1,"append":"AAA="}`)["injection"]
	at, kv := c.at(KeyRaw, "k")
	if _, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: at, Key: []byte("k")}); err == nil {
		t.Fatal("a mangled answer was taken")
	}
	ask("remove", fmt.Sprintf(`{"injection":%v}`, n))
	n = ask("inject", `{"method":"RawPut","hold":true}`)["injection"]
	time.AfterFunc(time.Second, func() { control(t, h, "POST", "/v1/release", fmt.Sprintf(`{"injection":%v}`, n)) })
	began := time.Now()
	if c.must(c.tryPut(t.Context(), "k")); time.Since(began) != time.Second {
		t.Fatal(time.Since(began))
	}
	synctest.Wait() // as above
	for verb, body := range map[string]string{
		"release": `{"injection":99}`, "remove": `{"injection":1}`, "inject": `{"region_error":"x"}`, "cut": `{"from":{"client":true}}`,
		"add-peer": `{"role":"boss"}`, "set-store": `{"store":1,"disk":"x"}`, "transfer-pd": `{"store":1}`, "advance": `{"by":"x"}`,
		"merge": `{"region":1}x`, "replay": `{"journal":"x"}`, "jump-tso": `{"to":1}`,
	} {
		if verb == "merge" {
			body = `{"regions":1}`
		}
		if code, a := control(t, h, "POST", "/v1/"+verb, body); code != 400 || a["error"] == "" {
			t.Error(verb, code, a)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/journal", nil))
	if w.Code != 200 || w.Body.String() != string(c.Journal()) || !strings.Contains(w.Body.String(), `"do":"release"`) {
		t.Fatal(w.Code, w.Body)
	}
	ask("replay", `{"journal":"{\"at\":0,\"do\":\"advance\",\"by\":\"1s\"}"}`)
	if !strings.HasSuffix(string(c.Journal()), `"do":"advance","by":"1s"}`+"\n") {
		t.Fatal(string(c.Journal()))
	}
}

// ControlHandler's comment names every verb.
func TestControlIsDocumented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		text, err := os.ReadFile("control.go")
		if err != nil {
			t.Fatal(err)
		}
		for verb := range c.verbs(nil) {
			if !strings.Contains(string(text), "/v1/"+verb) {
				t.Error(verb, "is not in ControlHandler's comment")
			}
		}
	})
}
