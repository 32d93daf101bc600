package copr

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"strings"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"google.golang.org/protobuf/encoding/protowire"
)

// StartTS is the timestamp that a request reads at: its own, or that of a plan made
// before requests had one (endpoint.rs, get_start_ts_fallback; tipb's DAGRequest,
// AnalyzeReq and ChecksumRequest).
func StartTS(q *coprocessor.Request) uint64 {
	field := map[int64]protowire.Number{DAG: 1, Analyze: 2, Checksum: 1}[q.Tp]
	if q.StartTs != 0 || field == 0 {
		return q.StartTs
	}
	found, err := fields(q.Data)
	if err != nil {
		return 0
	}
	return found[field].number
}

// value is a field of a message that was not generated; the last one counts.
type value struct {
	number uint64
	bytes  []byte
}

var errPlan = errors.New("copr: the plan is no message of its kind")

// fields reads a message.
func fields(data []byte) (map[protowire.Number]value, error) {
	all := make(map[protowire.Number]value)
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, errPlan
		}
		data = data[n:]
		var v value
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return nil, errPlan
		}
		data, all[num] = data[n:], v
	}
	return all, nil
}

// Echo is a handler whose answer is the plan, and of each pair the key and the value, each
// with its length before it as a varint.
func Echo(_ context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
	out := protowire.AppendBytes(nil, plan)
	for _, p := range pairs {
		out = protowire.AppendBytes(protowire.AppendBytes(out, p[0]), p[1])
	}
	return out, nil
}

// Sum is the handler of Checksum: its plan is a tipb.ChecksumRequest, its answer a
// tipb.ChecksumResponse (TiKV src/coprocessor/checksum.rs). The keys must begin with the
// rule's new prefix, in the place of which the old one is counted.
func Sum(_ context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
	req, err := fields(plan)
	if err != nil {
		return nil, err
	}
	if algorithm := req[3].number; algorithm != 0 {
		return nil, fmt.Errorf("[src/coprocessor/checksum.rs:62]: unknown checksum algorithm %d", algorithm)
	}
	rule, err := fields(req[4].bytes)
	if err != nil {
		return nil, err
	}
	before, after := rule[1].bytes, rule[2].bytes
	table := crc64.MakeTable(crc64.ECMA)
	prefix := crc64.Checksum(before, table)
	var sum, kvs, size uint64
	for _, p := range pairs {
		k, v := p[0], p[1]
		if len(k) < len(after) || string(k[:len(after)]) != string(after) {
			return nil, fmt.Errorf("[src/coprocessor/checksum.rs:81]: Wrong prefix expect: %s", strings.ReplaceAll(fmt.Sprint(after), " ", ", "))
		}
		sum ^= crc64.Update(crc64.Update(prefix, table, k[len(after):]), table, v)
		kvs++
		size += uint64(len(k) + len(v) + len(before) - len(after))
	}
	var out []byte
	for i, n := range []uint64{sum, kvs, size} {
		out = protowire.AppendVarint(protowire.AppendTag(out, protowire.Number(i+1), protowire.VarintType), n)
	}
	return out, nil
}
