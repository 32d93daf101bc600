package playground

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// A node that restarts at another address is found there by who asks the others.
func TestMove(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3), WithPDServices())...)
		c.rawPut("k", "1")
		old, store := c.PD()[1], c.store(1).Server().Addr()
		for _, n := range []Node{Member(1), Store(1)} {
			if err := c.Move(n); err != nil {
				t.Fatal(err)
			}
		}
		for _, gone := range []string{old, store} {
			if _, err := c.DialContext(t.Context(), gone); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatal(gone, err)
			}
		}
		now := c.PD()[1]
		resp, err := c.member(0).GetMembers(t.Context(), &pdpb.GetMembersRequest{})
		if err != nil || now == old || !slices.Equal(resp.Members[1].ClientUrls, []string{"http://" + now}) {
			t.Fatal(resp, err)
		}
		if c.leaderOf(1) != "pd-0" {
			t.Fatal("the member that moved is no member")
		}
		if _, err := c.member(1).GetStore(via(t.Context(), "http://"+c.PD()[0]), &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1}); err != nil {
			t.Fatal(err)
		}
		info, err := c.member(1).GetClusterInfo(t.Context(), &pdpb.GetClusterInfoRequest{})
		if err != nil || info.TsoUrls[1] != "http://"+now {
			t.Fatal(info, err)
		}
		s, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
		if err != nil || s.Store.Address != c.store(1).Server().Addr() || s.Store.Address == store {
			t.Fatal(s, err)
		}
		if err := c.TransferLeader(c.Regions(KeyRaw)[0].ID, 1); err != nil {
			t.Fatal(err)
		}
		if v, _ := c.rawGet("k"); v != "1" {
			t.Fatal(v)
		}
		expect(t, c.Move(Member(3)), "no member 3")
		expect(t, c.Move(Client()), "only a cut is of the client")
	})
}

// The members as an operator sees them, and a move over HTTP and in the journal.
func TestControlMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		h := c.ControlHandler()
		old := c.PD()
		for path, body := range map[string]string{"/v1/move": `{"member":0}`, "/v1/stop": `{"member":1}`, "/v1/pause": `{"member":2}`} {
			if code, a := control(t, h, "POST", path, body); code != 200 {
				t.Fatal(path, a)
			}
		}
		<-time.After(5 * time.Second)
		code, a := control(t, h, "GET", "/v1/members", "")
		members, _ := a["members"].([]any)
		if code != 200 || len(members) != 3 {
			t.Fatal(code, a)
		}
		for i, want := range []struct{ running, paused bool }{{true, false}, {false, false}, {true, true}} {
			m := members[i].(map[string]any)
			if m["running"] != want.running || m["paused"] != want.paused || m["leader"] != false || (m["address"] == old[i]) != (i != 0) {
				t.Error(i, m)
			}
		}
		if code, a := control(t, h, "POST", "/v1/start", `{"member":2}`); code != 200 {
			t.Fatal(a)
		}
		_, a = control(t, h, "GET", "/v1/members", "")
		if m := a["members"].([]any)[0].(map[string]any); m["leader"] != true {
			t.Fatal(a)
		}
		again := start(t, WithMembers(3))
		if err := again.Replay(c.Journal()); err != nil || !slices.Equal(again.PD(), c.PD()) || slices.Equal(again.PD(), old) {
			t.Fatal(again.PD(), c.PD(), err)
		}
	})
}
