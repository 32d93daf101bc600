package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/transport/transporttest"
)

// fakePD answers from a list of regions, at once, and counts.
type fakePD struct {
	mu      sync.Mutex
	regions []*metapb.Region
	leader  uint64 // store of every leader
	loads   int
	scans   int
	gone    uint64   // a store that PD does not know
	stores  []uint64 // that were asked for
	err     error
	silent  string // what is never answered: "regions" or "stores"
}

// wait waits for ever where it is to.
func (p *fakePD) wait(ctx context.Context, what string) error {
	p.mu.Lock()
	silent := p.silent == what
	p.mu.Unlock()
	if silent {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

// asked returns the stores that were asked for since the last time.
func (p *fakePD) asked() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	stores := p.stores
	p.stores = nil
	return stores
}

func (p *fakePD) found(m *metapb.Region) region.Found {
	f := region.Found{Meta: m}
	for _, peer := range m.GetPeers() {
		if peer.StoreId == p.leader {
			f.Leader = peer
		}
	}
	return f
}

func (p *fakePD) Region(ctx context.Context, key []byte, _ bool) (region.Found, error) {
	if err := p.wait(ctx, "regions"); err != nil {
		return region.Found{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loads++
	for _, m := range p.regions {
		if (keys.Range{Start: m.StartKey, End: m.EndKey}).Contains(key) {
			return p.found(m), p.err
		}
	}
	return region.Found{}, p.err
}

func (p *fakePD) PrevRegion(context.Context, []byte) (region.Found, error) {
	return region.Found{}, errors.New("not asked here")
}

func (p *fakePD) ScanRegions(ctx context.Context, ranges []keys.Range, limit int) ([]region.Found, error) {
	if err := p.wait(ctx, "regions"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scans++
	var out []region.Found
	for _, m := range p.regions {
		if slices.ContainsFunc(ranges, func(r keys.Range) bool { return !r.Intersect(keys.Range{Start: m.StartKey, End: m.EndKey}).Empty() }) && len(out) < limit {
			out = append(out, p.found(m))
		}
	}
	return out, p.err
}

func (p *fakePD) RegionByID(context.Context, uint64) (region.Found, error) {
	return region.Found{}, errors.New("not asked here")
}

func (p *fakePD) Stores(context.Context) ([]*metapb.Store, error) {
	return nil, errors.New("not asked here")
}

func (p *fakePD) Store(ctx context.Context, id uint64) (*metapb.Store, error) {
	if err := p.wait(ctx, "stores"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stores = append(p.stores, id)
	if id == p.gone {
		p.leader = 2 // it had time to move
		return nil, nil
	}
	return &metapb.Store{Id: id, Address: fmt.Sprint("s", id), Labels: []*metapb.StoreLabel{{Key: "zone", Value: fmt.Sprint("z", id)}}}, nil
}

func regionMeta(id uint64, start, end string, ver uint64) *metapb.Region {
	m := &metapb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end), RegionEpoch: &metapb.RegionEpoch{Version: ver, ConfVer: 1}}
	for i := range uint64(3) {
		m.Peers = append(m.Peers, &metapb.Peer{Id: id*10 + i + 1, StoreId: i + 1})
	}
	return m
}

// script answers requests in turn, with the words of answer, and notes who was asked.
type script struct {
	mu      sync.Mutex
	words   []string
	forever bool // the last word is never used up
	asked   []string
	reqs    []kvrpcpb.Context

	renewed []string
	pd      *fakePD
}

func (s *script) do(ctx context.Context, addr string, req transport.Message) (transport.Response, error) {
	c := req.(transport.Request).GetContext()
	s.mu.Lock()
	word := "ok"
	if len(s.words) > 0 {
		if word = s.words[0]; len(s.words) > 1 || !s.forever {
			s.words = s.words[1:]
		}
	}
	if len(s.asked) > 20000 {
		panic("asked for ever")
	}
	asked := strings.TrimPrefix(addr, "s")
	if to, ok := ctx.Value(forwardKey{}).(string); ok {
		asked = strings.TrimPrefix(to, "s") + "<" + asked
	}
	if c.ReplicaRead {
		asked += "r"
	}
	if c.StaleRead {
		asked += "s"
	}
	if c.RegionId != 1 {
		asked += fmt.Sprintf("/%d", c.RegionId)
	}
	if c.IsRetryRequest {
		asked += "!"
	}
	s.asked = append(s.asked, asked)
	s.reqs = append(s.reqs, *c)
	s.mu.Unlock()
	return s.answer(ctx, addr, word, req)
}

// forwarding shows the script by what store a request is to be passed on.
type forwarding struct {
	*transporttest.Stores
	script *script
}

func (f forwarding) Renew(addr string) { f.script.renewed = append(f.script.renewed, addr) }

type forwardKey struct{}

func (f forwarding) Call(ctx context.Context, to transport.Target, req transport.Message, resp transport.Decoder) error {
	if to.Forward != "" {
		ctx = context.WithValue(ctx, forwardKey{}, to.Forward)
	}
	return f.Stores.Call(ctx, to, req, resp)
}

// answer makes what a word stands for.
func (s *script) answer(ctx context.Context, addr, word string, req transport.Message) (transport.Response, error) {
	name, arg, _ := strings.Cut(word, "=")
	n, _ := strconv.ParseUint(arg, 10, 64)
	failed := func(kind transport.Kind, sent bool, err error) (transport.Response, error) {
		return nil, &transport.Error{Addr: addr, Kind: kind, Sent: sent, Err: err}
	}
	e := &errorpb.Error{Message: word}
	switch name {
	case "ok":
		return answerTo(req, nil), nil
	case "dial":
		return failed(transport.Dial, false, errors.New("refused"))
	case "lost":
		return failed(transport.ConnLost, true, errors.New("reset"))
	case "unsent":
		return failed(transport.ConnLost, false, errors.New("reset"))
	case "full":
		return failed(transport.QueueFull, false, nil)
	case "closed":
		return failed(transport.Closed, n == 1, transport.ErrClosed)
	case "status":
		return failed(transport.Refused, true, status.Error(codes.Code(n), "no"))
	case "encoding":
		return failed(transport.Refused, false, errors.New("bad"))
	case "hang":
		<-ctx.Done()
		return failed(transport.Timeout, n == 0, context.Cause(ctx))
	case "notleader":
		e.NotLeader = &errorpb.NotLeader{RegionId: 1}
		if arg != "" {
			e.NotLeader.Leader = &metapb.Peer{Id: 10 + n, StoreId: n}
		}
	case "notfound":
		e.RegionNotFound = &errorpb.RegionNotFound{}
	case "epoch":
		e.EpochNotMatch = &errorpb.EpochNotMatch{}
		switch arg {
		case "split":
			e.EpochNotMatch.CurrentRegions = []*metapb.Region{regionMeta(1, "m", "", 2), regionMeta(2, "", "m", 2)}
		case "newer": // each time
			e.EpochNotMatch.CurrentRegions = []*metapb.Region{regionMeta(1, "", "", req.(transport.Request).GetContext().RegionEpoch.Version+1)}
		case "same":
			e.EpochNotMatch.CurrentRegions = []*metapb.Region{regionMeta(1, "", "", 1)}
		case "stranger":
			e.EpochNotMatch.CurrentRegions = []*metapb.Region{regionMeta(9, "", "a", 1)}
		case "behind":
			m := regionMeta(1, "", "", 1)
			m.RegionEpoch.ConfVer = 0
			e.EpochNotMatch.CurrentRegions = []*metapb.Region{m}
		}
	case "busy":
		e.ServerIsBusy = &errorpb.ServerIsBusy{BackoffMs: n}
	case "buckets":
		e.BucketVersionNotMatch = &errorpb.BucketVersionNotMatch{Version: n, Keys: [][]byte{{}, []byte("k"), {}}}
	case "notready":
		e.DataIsNotReady = &errorpb.DataIsNotReady{}
	case "queue":
		e.ServerIsBusy = &errorpb.ServerIsBusy{EstimatedWaitMs: uint32(n)}
	case "overdue":
		e.ServerIsBusy = &errorpb.ServerIsBusy{Reason: "deadline is exceeded"}
	case "after": // n milliseconds
		select {
		case <-time.After(time.Duration(n) * time.Millisecond):
			return answerTo(req, nil), nil
		case <-ctx.Done():
			return failed(transport.Timeout, true, context.Cause(ctx))
		}
	case "stale":
		e.StaleCommand = &errorpb.StaleCommand{}
	case "store":
		e.StoreNotMatch = &errorpb.StoreNotMatch{}
	case "large":
		e.RaftEntryTooLarge = &errorpb.RaftEntryTooLarge{}
	case "disk":
		e.DiskFull = &errorpb.DiskFull{}
	case "flashback":
		e.FlashbackInProgress = &errorpb.FlashbackInProgress{}
	case "unsure":
		e.UndeterminedResult = &errorpb.UndeterminedResult{}
	case "recovery":
		e.RecoveryInProgress = &errorpb.RecoveryInProgress{}
	case "witness":
		e.IsWitness = &errorpb.IsWitness{}
	case "maxts":
		e.MaxTimestampNotSynced = &errorpb.MaxTimestampNotSynced{}
	case "uninitialized":
		e.RegionNotInitialized = &errorpb.RegionNotInitialized{}
	case "readindex":
		e.ReadIndexNotReady = &errorpb.ReadIndexNotReady{}
	case "merging":
		e.ProposalInMergingMode = &errorpb.ProposalInMergingMode{}
	case "mismatch":
		e.MismatchPeerId = &errorpb.MismatchPeerId{}
	case "unprepared":
		e.FlashbackNotPrepared = &errorpb.FlashbackNotPrepared{}
	case "wrongkey":
		e.KeyNotInRegion = &errorpb.KeyNotInRegion{}
	case "message":
		e.Message = arg
	case "future":
		e.Message = "invalid max_ts update: 2 exceeds the limit 1"
	default:
		panic("unknown word " + word)
	}
	return answerTo(req, e), nil
}

// answerTo makes an answer to a request, with a region error or nil.
func answerTo(req transport.Message, e *errorpb.Error) transport.Response {
	switch req.(type) {
	case *kvrpcpb.GetRequest:
		return &kvrpcpb.GetResponse{RegionError: e}
	case *kvrpcpb.RawCoprocessorRequest:
		return &kvrpcpb.RawCoprocessorResponse{RegionError: e}
	}
	return &kvrpcpb.RawPutResponse{RegionError: e}
}

// world is a router on fakes: region 1 holds all keys, store 1 leads.
type world struct {
	*Router
	pd     *fakePD
	script *script
	tasks  *task.Group
	probed error // what probes of stores find
}

func inWorld(t *testing.T, words string, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{tasks: task.New(t.Context())}
		defer w.tasks.Close(ErrClosed)
		w.pd = &fakePD{regions: []*metapb.Region{regionMeta(1, "", "", 1)}, leader: 1}
		w.script = &script{words: strings.Fields(words), pd: w.pd}
		w.Router = New(w.tasks.Context(), Config{
			ClusterID: 7, Transport: forwarding{transporttest.New(w.script.do), w.script}, Tasks: w.tasks,
			Regions: region.NewWith(w.pd, w.tasks, region.Config{Probe: func(context.Context, string) error { return w.probed }}),
		})
		test(t, w)
	})
}

var v1 = codec.New(codec.V1, codec.Raw, 0)

func newCall(kind string) *Call {
	c := &Call{Op: "Op", Codec: v1}
	c.Resend = kind != "once"
	c.Decides = kind == "write"
	return c
}

func put() *kvrpcpb.RawPutRequest { return &kvrpcpb.RawPutRequest{Context: &kvrpcpb.Context{}} }

// within reports whether d is what a case allows: "2ms" or, with jitter, "50ms-100ms".
func within(t *testing.T, d time.Duration, want string) bool {
	t.Helper()
	low, high, ranged := strings.Cut(want, "-")
	if !ranged {
		high = low
	}
	a, err := time.ParseDuration(low)
	if err != nil {
		t.Fatal(err)
	}
	b, err := time.ParseDuration(high)
	if err != nil {
		t.Fatal(err)
	}
	return a <= d && d <= b
}
