package store

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// Only requests to compute a plan are checked, if they name a version that is older (TiKV
// src/coprocessor/endpoint.rs, handle_unary_request_impl).
func TestBucketVersion(t *testing.T) {
	m := meta.New(storage.NewMemory())
	topo := topology.New(m, 1)
	if err := topo.Bootstrap(nil, new(meta.Change)); err != nil {
		t.Fatal(err)
	}
	s := &Store{Config: Config{Topology: topo}}
	r := topo.ByKey(nil)
	cop := func(version uint64) request {
		return &coprocessor.Request{Context: &kvrpcpb.Context{BucketsVersion: version}}
	}
	if e := s.checkBuckets(cop(1), r); e != nil {
		t.Error(e)
	}
	if err := topo.SetBuckets(r.ID(), [][]byte{[]byte("k")}); err != nil {
		t.Fatal(err)
	}
	now := topo.Buckets(r.ID()).Version
	for _, test := range []struct {
		req  request
		want bool
	}{
		{cop(now - 1), true}, {cop(1), true}, {cop(0), false}, {cop(now), false}, {cop(now + 1), false},
		{&kvrpcpb.GetRequest{Context: &kvrpcpb.Context{BucketsVersion: 1}}, false},
	} {
		e := s.checkBuckets(test.req, r)
		if (e != nil) != test.want {
			t.Errorf("%v: %v", test.req, e)
		}
		if b := e.GetBucketVersionNotMatch(); e != nil && (b.GetVersion() != now || len(b.Keys) != 3 || string(b.Keys[1]) != "k") {
			t.Error(e)
		}
	}
	if _, err := topo.Split(r.ID(), [][]byte{[]byte("c")}); err != nil {
		t.Fatal(err)
	}
	if e := s.checkBuckets(cop(1), topo.ByID(r.ID())); e != nil {
		t.Error("a split region has its buckets still:", e)
	}
}
