package wire

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// number is the field of a member of kvproto's oneofs.
func number(t testing.TB, member any) protowire.Number {
	t.Helper()
	tag := reflect.TypeOf(member).Elem().Field(0).Tag.Get("protobuf")
	n, err := strconv.Atoi(strings.Split(tag, ",")[1])
	if err != nil {
		t.Fatal(err)
	}
	return protowire.Number(n)
}

// TestRequests writes frames with Append and reads them with kvproto.
func TestRequests(t *testing.T) {
	context := &kvrpcpb.Context{RegionId: 1, RegionEpoch: &metapb.RegionEpoch{Version: 1 << 40}, Peer: &metapb.Peer{Id: 300}}
	for _, want := range [][]*tikvpb.BatchCommandsRequest_Request{
		{},
		{{Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: &kvrpcpb.RawGetRequest{}}}},
		{
			{Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: &kvrpcpb.RawGetRequest{Context: context, Key: []byte("k")}}},
			{Cmd: &tikvpb.BatchCommandsRequest_Request_BroadcastTxnStatus{BroadcastTxnStatus: &kvrpcpb.BroadcastTxnStatusRequest{Context: context}}},
			{Cmd: &tikvpb.BatchCommandsRequest_Request_RawPut{RawPut: &kvrpcpb.RawPutRequest{Value: make([]byte, 1<<17)}}},
		},
	} {
		frame, sum := []byte{}, 0
		var ids []uint64
		for i, req := range want {
			m := reflect.ValueOf(req.Cmd).Elem().Field(0).Interface().(Message)
			r, size := Measure(number(t, req.Cmd), m)
			var err error
			if frame, err = r.Append(frame); err != nil {
				t.Fatal(err)
			}
			sum += size
			if len(frame) != sum {
				t.Fatalf("%d bytes, %d were announced", len(frame), sum)
			}
			ids = append(ids, uint64(i)<<20)
		}
		frame = AppendIDs(frame, ids)
		if n := len(frame) - sum; n != SizeIDs(ids) {
			t.Errorf("%d bytes of ids, %d were announced", n, SizeIDs(ids))
		}
		var got tikvpb.BatchCommandsRequest
		if err := got.Unmarshal(frame); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.RequestIds, ids) || len(got.Requests) != len(want) {
			t.Fatal(got.RequestIds, ids)
		}
		for i := range want {
			if got.Requests[i].String() != want[i].String() {
				t.Errorf("%v came back as %v", want[i], got.Requests[i])
			}
		}
	}
}

// TestAppendRefuses: what kvproto cannot encode is an error, not a broken frame.
func TestAppendRefuses(t *testing.T) {
	r, _ := Measure(7, broken{})
	if _, err := r.Append(nil); err == nil {
		t.Error("no error")
	}
}

type broken struct{}

func (broken) Size() int                                { return 3 }
func (broken) MarshalToSizedBuffer([]byte) (int, error) { return 0, ErrMalformed }

// responses are frames of kvproto's, encoded.
func responses(t testing.TB) [][]byte {
	t.Helper()
	type answer = tikvpb.BatchCommandsResponse_Response
	var out [][]byte
	for _, m := range []*tikvpb.BatchCommandsResponse{
		{},
		{Responses: []*answer{{}}, RequestIds: []uint64{1}},
		{
			Responses: []*answer{
				{Cmd: &tikvpb.BatchCommandsResponse_Response_RawGet{RawGet: &kvrpcpb.RawGetResponse{Value: []byte("v")}}},
				{Cmd: &tikvpb.BatchCommandsResponse_Response_Get{Get: &kvrpcpb.GetResponse{NotFound: true, RegionError: &errorpb.Error{Message: "no"}}}},
				{Cmd: &tikvpb.BatchCommandsResponse_Response_Coprocessor{Coprocessor: &coprocessor.Response{Data: []byte("rows")}}},
				{Cmd: &tikvpb.BatchCommandsResponse_Response_Empty{Empty: &tikvpb.BatchCommandsEmptyResponse{}}},
			},
			RequestIds: []uint64{7, 1 << 40, 0, 3}, TransportLayerLoad: 280, TikvSendTimeNs: 1 << 60,
			HealthFeedback: &kvrpcpb.HealthFeedback{StoreId: 4, SlowScore: 80},
		},
	} {
		data, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, data)
	}
	// Unpacked ids, an unknown field, and one command that overrides another.
	odd := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 9)
	odd = protowire.AppendFixed64(protowire.AppendTag(odd, 77, protowire.Fixed64Type), 1)
	two := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), nil)
	two = protowire.AppendBytes(protowire.AppendTag(two, 13, protowire.BytesType), []byte{0x1a, 1, 'x'})
	odd = protowire.AppendBytes(protowire.AppendTag(odd, 1, protowire.BytesType), two)
	return append(out, odd)
}

// compare cuts data and decodes it with kvproto, which must agree.
func compare(t *testing.T, r *Response, data []byte) {
	t.Helper()
	var want tikvpb.BatchCommandsResponse
	bad := want.Unmarshal(data)
	err := r.Parse(data)
	if bad != nil {
		return // what is malformed deep inside, the caller who decodes it finds
	}
	if plain, _ := want.Marshal(); err == ErrMalformed && !bytes.Equal(plain, data) {
		// kvproto cuts numbers that are too long where protobuf has them refused; what it
		// writes itself must be read.
		data = plain
		err = r.Parse(data)
	}
	if len(want.Responses) != len(want.RequestIds) {
		if err != ErrUnequal {
			t.Fatalf("%d answers, %d ids: %v", len(want.Responses), len(want.RequestIds), err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v, kvproto reads %v", err, &want)
	}
	if !slices.Equal(r.IDs, want.RequestIds) || r.Load != want.TransportLayerLoad || r.SendTime != want.TikvSendTimeNs {
		t.Fatalf("%+v of %v", r, &want)
	}
	var health *kvrpcpb.HealthFeedback
	if r.Health != nil {
		health = &kvrpcpb.HealthFeedback{}
		if err := health.Unmarshal(r.Health); err != nil {
			t.Fatal(err)
		}
	}
	if h := want.HealthFeedback; (health == nil) != (h == nil) {
		t.Fatalf("health %v of %v", health, h)
	}
	for i, a := range r.Answers {
		cmd := want.Responses[i].Cmd
		if cmd == nil {
			continue // none, or one that kvproto does not know
		}
		if a.Command != number(t, cmd) {
			continue // an unknown one behind it: the caller refuses it as another's
		}
		one := protowire.AppendBytes(protowire.AppendTag(nil, a.Command, protowire.BytesType), a.Body)
		var got tikvpb.BatchCommandsResponse_Response
		if err := got.Unmarshal(one); err != nil {
			t.Fatal(err)
		}
		x, err1 := got.Marshal()
		y, err2 := want.Responses[i].Marshal()
		if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
			t.Fatalf("%v of %v (%v, %v)", &got, want.Responses[i], err1, err2)
		}
	}
}

func TestResponses(t *testing.T) {
	var r Response
	for _, data := range responses(t) {
		compare(t, &r, data)
		for n := range data { // cut off anywhere
			compare(t, &r, data[:n])
		}
	}
}

func FuzzResponse(f *testing.F) {
	for _, data := range responses(f) {
		f.Add(data)
	}
	var r Response
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, &r, data) })
}

// TestParseAllocations: cutting a frame allocates nothing once its slices have grown.
func TestParseAllocations(t *testing.T) {
	all := responses(t)
	var r Response
	n := testing.AllocsPerRun(100, func() {
		for _, data := range all {
			_ = r.Parse(data)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
