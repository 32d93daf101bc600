package router

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/transport"
)

func get() *kvrpcpb.GetRequest { return &kvrpcpb.GetRequest{Context: &kvrpcpb.Context{}, Version: 5} }

// Sequences of answers to a read that replicas may serve, as in TestSequences. Store 2 is
// the preferred one.
func TestRoutes(t *testing.T) {
	prefer2 := map[string]string{"zone": "z2"}
	for _, c := range []struct {
		name                         string
		route                        Route
		answers, asked, result, took string
	}{
		{"follower", Route{Policy: ReadFollower, Labels: prefer2}, "ok", "2r", "ok", "0s"},
		{"stores", Route{Policy: ReadFollower, Stores: []uint64{3}}, "ok", "3r", "ok", "0s"},
		{"nearest", Route{Policy: ReadNearest, Labels: prefer2}, "dial ok", "2r 1", "ok", "0s"},
		{"no election in sight", Route{Policy: ReadNearest, Labels: prefer2}, "notleader dial dial ok", "2r 1! 3r! 2r!", "ok", "50ms-104ms"},
		{"a leader told", Route{Policy: ReadNearest, Labels: prefer2}, "notleader=3 ok", "2r 3!", "ok", "0s"},
		{"prefer-leader", Route{Policy: ReadPreferLeader, Labels: prefer2}, "busy dial ok", "1 2r! 3r!", "ok", "0s"},
		{"all busy", Route{Policy: ReadPreferLeader, Labels: prefer2}, "busy busy busy ok", "1 2r! 3r! 1!", "ok", "250ms-500ms"},
		{"stale", Route{Stale: true, Labels: prefer2}, "notready ok", "2s 1!", "ok", "0s"},
		{"stale, no leader", Route{Stale: true, Labels: prefer2}, "notready dial notready notleader=1 ok", "2s 1! 3s! 2r! 1<2!", "ok", "0s"},
		{"replica behind", Route{Policy: ReadFollower, Labels: prefer2}, "epoch=behind epoch=split ok", "2r 1! 1/2!", "ok", "0s"},
		{"replica ahead", Route{Policy: ReadFollower, Labels: prefer2}, "epoch=split ok", "2r 1/2!", "ok", "0s"},
		{"replica without the region", Route{Policy: ReadFollower, Labels: prefer2}, "notfound notfound ok", "2r 1! 1!", "ok", "2ms"},
		{"flashback", Route{Policy: ReadFollower, Labels: prefer2}, "flashback flashback", "2r 1!", "refused", "0s"},
		{"threshold", Route{BusyThreshold: time.Second, Labels: prefer2}, "queue=2000 queue=3000 queue=3000 ok", "1 2r! 3r! 1!", "ok", "0s"},
		{"read timeout", Route{ReadTimeout: time.Second, Labels: prefer2}, "hang hang hang hang ok", "1 2r! 3r! 1! 2!", "ok", "33s"},
		{"overdue at the store", Route{ReadTimeout: time.Second, Labels: prefer2}, "overdue ok", "1 2r!", "ok", "0s"},
		{"hedge", Route{HedgeAfter: 10 * time.Millisecond, Labels: prefer2}, "after=1000 after=20", "1 2r", "ok", "30ms"},
		{"hedge in vain", Route{HedgeAfter: 10 * time.Millisecond, Labels: prefer2}, "after=20 after=1000", "1 2r", "ok", "20ms"},
		{"hedge not needed", Route{HedgeAfter: 10 * time.Millisecond, Labels: prefer2}, "after=5", "1", "ok", "5ms"},
		{"hedge fails", Route{HedgeAfter: 10 * time.Millisecond, Labels: prefer2}, "after=50 dial", "1 2r", "ok", "50ms"},
		{"both fail", Route{HedgeAfter: 10 * time.Millisecond, ReadTimeout: time.Second, Labels: prefer2}, "hang dial ok", "1 2r 3r!", "ok", "1s"},
		{"fail fast", Route{FailFast: true}, "dial dial dial", "1 2 3", "unavailable", "0s"},
		{"fail fast, elected", Route{FailFast: true}, "dial notleader=2 ok", "1 2 2!", "ok", "0s"},
		{"by size", Route{BySize: func(keys int) Policy { return Policy(keys) * ReadFollower }, Labels: prefer2}, "ok", "2r", "ok", "0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, c.answers, func(t *testing.T, w *world) {
				call, start := newCall("read"), time.Now()
				call.Route = &c.route
				_, err := Do[*kvrpcpb.GetResponse](t.Context(), w.Router, call, []byte("k"), get())
				if got := strings.Join(w.script.asked, " "); got != c.asked || outcome(err) != c.result || !within(t, time.Since(start), c.took) {
					t.Fatalf("asked %q, %s in %v (%v)", got, outcome(err), time.Since(start), err)
				}
				if len(w.script.words) > 0 {
					t.Fatalf("not all was asked for: %q is left", w.script.words)
				}
			})
		})
	}
}

// What a plug-in of TiKV's does with raw keys may be a write: replicas are not asked for it,
// and no two stores at once.
func TestPlugInsAreNotReads(t *testing.T) {
	for name, route := range map[string]Route{
		"follower": {Policy: ReadFollower}, "hedged": {HedgeAfter: 10 * time.Millisecond},
		"read timeout": {ReadTimeout: 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, "after=50", func(t *testing.T, w *world) {
				call := newCall("once")
				call.Route = &route
				reg, err := w.Locate(t.Context(), call, []byte("k"))
				if err == nil {
					_, err = w.Send(t.Context(), call, reg, &kvrpcpb.RawCoprocessorRequest{Context: &kvrpcpb.Context{}})
				}
				if got := strings.Join(w.script.asked, " "); got != "1" || err != nil {
					t.Fatalf("asked %q: %v", got, err)
				}
			})
		})
	}
}

// fuzzWords are the answers of FuzzRouter.
var fuzzWords = []string{
	"ok", "dial", "lost", "unsent", "full", "status=2", "status=3", "encoding", "hang", "hang=1", "notleader", "notleader=1",
	"notleader=2", "notleader=3", "notleader=9", "notfound", "epoch", "epoch=split", "epoch=behind", "epoch=newer", "busy", "busy=20",
	"queue=500", "overdue", "stale", "store", "large", "disk", "flashback", "unsure", "notready", "message=words", "after=30",
	"epoch=same", "epoch=stranger", "buckets=2", "recovery", "witness", "maxts", "uninitialized", "readindex", "merging",
	"mismatch", "unprepared", "wrongkey", "future",
}

// FuzzRouter: whatever a call meets, it ends, with an answer, an error of a known kind, or
// its deadline; a write that must not run twice is not sent again after it may have. The
// last of the answers may be all that comes from then on.
func FuzzRouter(f *testing.F) {
	f.Add(uint16(0), []byte{1, 11, 2, 10})
	f.Add(uint16(0x155), []byte{29, 1, 29, 29})
	for i := range fuzzWords {
		for _, how := range []uint16{0x400, 0x401, 0x402, 0x428, 0x62c} {
			f.Add(how, []byte{byte(i)})
		}
	}
	f.Fuzz(func(t *testing.T, how uint16, answers []byte) {
		if len(answers) > 200 {
			return
		}
		var words []string
		for _, b := range answers {
			words = append(words, fuzzWords[int(b)%len(fuzzWords)])
		}
		var req transport.Request = get()
		kind := [...]string{"read", "write", "once", "read"}[how&3]
		if kind != "read" {
			req = put()
		}
		route := &Route{
			Policy: Policy(how>>2) % lastPolicy, Stale: how&32 != 0, FailFast: how&64 != 0, BusyThreshold: time.Duration(how&128) * time.Millisecond,
			ReadTimeout: time.Duration(how&256) * time.Millisecond, HedgeAfter: time.Duration(how&512) * time.Microsecond,
		}
		inWorld(t, strings.Join(words, " "), func(t *testing.T, w *world) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			call, start := newCall(kind), time.Now()
			call.Route = route
			w.script.forever = how&1024 != 0
			reg, err := w.Locate(ctx, call, []byte("k"))
			for err == nil {
				if _, err = w.Send(ctx, call, reg, req); err != ErrRegionChanged {
					break
				}
				reg, err = w.Locate(ctx, call, []byte("k"))
			}
			switch got := outcome(err); got {
			case "ok", "undetermined", "unavailable", "refused":
				if got == "undetermined" && kind == "read" {
					t.Fatal(err)
				}
			default:
				t.Fatal(err)
			}
			if took := time.Since(start); took > 100*time.Second {
				t.Fatal(took)
			}
			if kind == "once" {
				w.sentOnce(t, words)
			}
			w.script.mu.Lock() // a rival that lost may be under way
			defer w.script.mu.Unlock()
			if w.script.words, w.script.forever = nil, false; len(w.script.asked) > 3000 {
				t.Fatal(len(w.script.asked), "requests")
			}
		})
	})
}

// sentOnce checks that nothing was asked after an answer that left the outcome open.
func (w *world) sentOnce(t *testing.T, words []string) {
	t.Helper()
	for i := range w.script.asked {
		if i >= len(words) {
			return
		}
		switch words[i] {
		case "lost", "status=2", "hang", "stale", "unsure", "message=words":
			if i+1 < len(w.script.asked) {
				t.Fatalf("%q after %q", w.script.asked[i+1:], words[i])
			}
		}
	}
}
