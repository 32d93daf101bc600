package wire

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// numbers gives each number of a message another value, and tells them by their fields.
func numbers(m any, from uint64) map[int]uint64 {
	all := map[int]uint64{}
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		if tag := strings.Split(v.Type().Field(i).Tag.Get("protobuf"), ","); len(tag) > 1 {
			num, _ := strconv.Atoi(tag[1])
			from += 1 << (num % 20)
			switch f := v.Field(i); f.Kind() {
			case reflect.Uint64:
				f.SetUint(from)
				all[num] = from
			case reflect.Bool:
				f.SetBool(true)
				all[num] = 1
			}
		}
	}
	return all
}

// Every number that kvproto has is read, under its field, and sums and maxima are taken.
func TestDetails(t *testing.T) {
	var m kvrpcpb.ExecDetailsV2
	m.TimeDetail = &kvrpcpb.TimeDetail{WaitWallTimeMs: 7} // which the other one supersedes
	m.TimeDetailV2, m.ScanDetailV2, m.WriteDetail = new(kvrpcpb.TimeDetailV2), new(kvrpcpb.ScanDetailV2), new(kvrpcpb.WriteDetail)
	m.RuV2, m.ReadPoolTaskDetails = &kvrpcpb.RUV2{ExecutorInputs: new(kvrpcpb.ExecutorInputs)}, new(kvrpcpb.PoolTaskDetails)
	want := map[string]map[int]uint64{
		"time": numbers(m.TimeDetailV2, 1), "scan": numbers(m.ScanDetailV2, 1000), "write": numbers(m.WriteDetail, 1<<30),
		"ru": numbers(m.RuV2, 5), "pool": numbers(m.ReadPoolTaskDetails, 9), "inputs": numbers(m.RuV2.ExecutorInputs, 3),
	}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const times = 3
	var d Details
	for range times {
		d.Add(data)
	}
	for name, got := range map[string][]uint64{"time": d.Time[:], "scan": d.Scan[:], "write": d.Write[:], "ru": d.RU[:], "pool": d.Pool[:]} {
		if len(want[name]) < 7 {
			t.Errorf("%s: %d numbers", name, len(want[name]))
		}
		for num, n := range want[name] {
			if name != "pool" || !strings.HasPrefix(poolField(num), "Max") {
				n *= times
			}
			if num >= len(got) || got[num] != n {
				t.Errorf("%s: field %d is not %d: %v", name, num, n, got)
			}
		}
	}
	inputs := uint64(0)
	for _, n := range want["inputs"] {
		inputs += n
	}
	if d.Inputs != times*inputs || d.Pools != times {
		t.Error(d.Inputs, inputs, d.Pools)
	}
}

// poolField is the name of a field of PoolTaskDetails.
func poolField(num int) string {
	v := reflect.TypeFor[kvrpcpb.PoolTaskDetails]()
	for i := range v.NumField() {
		if strings.Contains(v.Field(i).Tag.Get("protobuf"), ","+strconv.Itoa(num)+",") {
			return v.Field(i).Name
		}
	}
	return ""
}

// The details are found in every answer that has some, and in no other.
func TestDetailField(t *testing.T) {
	for method, answer := range map[string]interface{ Marshal() ([]byte, error) }{
		"KvGet":                 &kvrpcpb.GetResponse{Value: []byte("v"), ExecDetailsV2: some()},
		"KvBatchGet":            &kvrpcpb.BatchGetResponse{Pairs: []*kvrpcpb.KvPair{{Key: []byte("k")}}, ExecDetailsV2: some()},
		"KvBufferBatchGet":      &kvrpcpb.BufferBatchGetResponse{ExecDetailsV2: some()},
		"KvPrewrite":            &kvrpcpb.PrewriteResponse{MinCommitTs: 1 << 60, ExecDetailsV2: some()},
		"KvCommit":              &kvrpcpb.CommitResponse{CommitVersion: 5, ExecDetailsV2: some()},
		"KvPessimisticLock":     &kvrpcpb.PessimisticLockResponse{Values: [][]byte{nil, {}}, ExecDetailsV2: some()},
		"KVPessimisticRollback": &kvrpcpb.PessimisticRollbackResponse{ExecDetailsV2: some()},
		"KvBatchRollback":       &kvrpcpb.BatchRollbackResponse{ExecDetailsV2: some()},
		"KvTxnHeartBeat":        &kvrpcpb.TxnHeartBeatResponse{LockTtl: 300, ExecDetailsV2: some()},
		"KvCheckTxnStatus":      &kvrpcpb.CheckTxnStatusResponse{CommitVersion: 5, ExecDetailsV2: some()},
		"KvCheckSecondaryLocks": &kvrpcpb.CheckSecondaryLocksResponse{CommitTs: 5, ExecDetailsV2: some()},
		"KvResolveLock":         &kvrpcpb.ResolveLockResponse{ExecDetailsV2: some()},
		"KvScanLock":            &kvrpcpb.ScanLockResponse{ExecDetailsV2: some()},
		"KvFlush":               &kvrpcpb.FlushResponse{ExecDetailsV2: some()},
		"Coprocessor":           &coprocessor.Response{Data: []byte("d"), ExecDetailsV2: some()},
		"CoprocessorStream":     &coprocessor.Response{ExecDetailsV2: some()},
		"KvScan":                nil, "RawGet": nil, "": nil,
	} {
		field := DetailField(method)
		if (field == 0) != (answer == nil) {
			t.Errorf("%q: field %d", method, field)
		}
		if answer == nil {
			continue
		}
		data, err := answer.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var d Details
		if d.Add(Field(data, field)); d.Scan[1] != 42 || d.Time[5] != 1<<40 {
			t.Errorf("%s: %+v", method, d)
		}
		if Field(data, 100) != nil || Field(data[:len(data)-1], field) != nil {
			t.Errorf("%s: fields that are not there", method)
		}
	}
}

func some() *kvrpcpb.ExecDetailsV2 {
	return &kvrpcpb.ExecDetailsV2{
		ScanDetailV2: &kvrpcpb.ScanDetailV2{ProcessedVersions: 42}, TimeDetailV2: &kvrpcpb.TimeDetailV2{TotalRpcWallTimeNs: 1 << 40},
	}
}

// What is no message adds what can be read, and does no harm.
func FuzzDetails(f *testing.F) {
	whole, err := some().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{0x12, 0x03, 0x08, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		var d, twice Details
		d.Add(data)
		twice.Add(data)
		twice.Add(data)
		if twice.Scan[1] != 2*d.Scan[1] || twice.Pools != 2*d.Pools {
			t.Errorf("%+v, twice %+v", d, twice)
		}
	})
}
