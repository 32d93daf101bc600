package wire

import (
	"slices"
	"testing"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
)

func TestListRequest(t *testing.T) {
	data, err := (&ListRequest{Key: []byte("a"), End: []byte("b")}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var got meta_storagepb.GetRequest
	if err := got.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	if want := (meta_storagepb.GetRequest{Key: []byte("a"), RangeEnd: []byte("b")}); got.String() != want.String() {
		t.Errorf("%v, want %v", &got, &want)
	}
}

func listings() []*meta_storagepb.GetResponse {
	return []*meta_storagepb.GetResponse{
		{},
		{Header: &meta_storagepb.ResponseHeader{ClusterId: 7, Revision: 9}, Count: 2, Kvs: []*meta_storagepb.KeyValue{
			{Key: []byte("k"), Value: []byte("one"), CreateRevision: 3, ModRevision: 4, Version: 5, Lease: 6}, {Key: []byte("l")},
		}},
		{Header: &meta_storagepb.ResponseHeader{Error: &meta_storagepb.Error{Type: meta_storagepb.ErrorType_UNKNOWN, Message: "no"}}, More: true},
	}
}

func TestListing(t *testing.T) {
	for _, m := range listings() {
		compareListing(t, encoded(t, m))
	}
}

// compareListing decodes what kvproto can, and encodes, as kvproto does.
func compareListing(t *testing.T, data []byte) {
	t.Helper()
	var got Listing
	_ = got.Unmarshal(data)
	var want meta_storagepb.GetResponse
	if want.Unmarshal(data) != nil {
		return
	}
	if err := got.Unmarshal(encoded(t, &want)); err != nil {
		t.Fatal(err)
	}
	if got.Refused != (want.GetHeader().GetError() != nil) {
		t.Errorf("refused: %v, want %v", got.Refused, want.Header)
	}
	if !slices.EqualFunc(got.Values, want.Kvs, func(v []byte, kv *meta_storagepb.KeyValue) bool { return string(v) == string(kv.Value) }) {
		t.Errorf("%q, want %v", got.Values, want.Kvs)
	}
}
