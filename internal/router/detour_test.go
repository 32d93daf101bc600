package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/transport"
)

// A store to which another passes requests on, and which is not the one that PD means, is
// looked up again; the connection to the one that passes on is none to be renewed.
func TestMisledDetour(t *testing.T) {
	inWorld(t, "dial notleader=1 ok store ok", func(t *testing.T, w *world) {
		w.probed = errors.New("refused")
		do := func() {
			if _, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, newCall("read"), nil, put()); err != nil {
				t.Fatal(err)
			}
		}
		do()
		<-time.After(2 * time.Second) // what is known of stores is old enough to be asked for again
		w.pd.asked()
		do()
		<-time.After(time.Millisecond)
		if got := strings.Join(w.script.asked, " "); got != "1 2 1<2! 1<2 1<2!" {
			t.Fatal(got)
		}
		if len(w.script.renewed) > 0 || !slices.Contains(w.pd.asked(), 1) {
			t.Fatal("renewed:", w.script.renewed)
		}
	})
}

// A call that no store passes on, a stream, waits for a leader that is out of reach; it is
// not refused for what it is.
func TestNoDetourForStreams(t *testing.T) {
	inWorld(t, "", func(t *testing.T, w *world) {
		call := newCall("read")
		asked := 0
		call.Exchange = func(_ context.Context, to transport.Target, _ transport.Message, resp transport.Decoder) error {
			asked++
			switch {
			case to.Forward != "":
				return &transport.Error{Addr: to.Addr, Kind: transport.Refused, Err: fmt.Errorf("stream: %w", transport.ErrNotForwarded)}
			case to.Addr == "s1":
				return &transport.Error{Addr: to.Addr, Kind: transport.Dial, Err: errors.New("refused")}
			}
			e := &errorpb.Error{NotLeader: &errorpb.NotLeader{Leader: &metapb.Peer{Id: 11, StoreId: 1}}}
			data, err := (&kvrpcpb.RawPutResponse{RegionError: e}).Marshal()
			return errors.Join(err, resp.Unmarshal(data))
		}
		began := time.Now()
		_, err := Do[*kvrpcpb.RawPutResponse](t.Context(), w.Router, call, nil, put())
		if outcome(err) != "unavailable" || time.Since(began) != 20*time.Second || asked < 10 || asked > 1000 {
			t.Fatal(err, time.Since(began), asked)
		}
	})
}
