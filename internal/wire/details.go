package wire

import "google.golang.org/protobuf/encoding/protowire"

// Details is what TiKV says that its answers took, summed: the messages of a
// kvrpcpb.ExecDetailsV2, each by its field numbers (kvproto kvrpcpb.proto).
type Details struct {
	Time   [8]uint64  // TimeDetailV2
	Scan   [19]uint64 // ScanDetailV2
	Write  [18]uint64 // WriteDetail
	RU     [10]uint64 // RUV2, without what is in Inputs
	Inputs uint64     // the sum of its executor_inputs
	Pool   [20]uint64 // PoolTaskDetails, of its maxima the largest; the minima mean nothing
	Pools  uint64     // answers that had one
}

// DetailField is the field of an answer that has an ExecDetailsV2, by the method of its
// request; 0 for those that have none.
func DetailField(method string) protowire.Number {
	switch method {
	case "KVPessimisticRollback", "KvBatchRollback", "KvResolveLock", "KvFlush":
		return 3
	case "KvTxnHeartBeat", "KvCommit", "KvBatchGet", "KvScanLock", "KvBufferBatchGet":
		return 4
	case "KvPrewrite", "KvCheckSecondaryLocks":
		return 5
	case "KvGet":
		return 6
	case "KvPessimisticLock", "KvCheckTxnStatus":
		return 7
	case "Coprocessor", "CoprocessorStream":
		return 11
	}
	return 0
}

// Field returns the bytes of a field of a message, the last if there are several; nil if
// there is none.
func Field(message []byte, num protowire.Number) (body []byte) {
	for len(message) > 0 {
		at, b, _, n := field(message)
		if n < 0 {
			return nil
		}
		if message = message[n:]; at == num {
			body = b
		}
	}
	return body
}

// Add adds an encoded ExecDetailsV2. What it does not know, or cannot read, it leaves out.
func (d *Details) Add(data []byte) {
	for len(data) > 0 {
		num, body, _, n := field(data)
		if n < 0 {
			return
		}
		data = data[n:]
		switch num {
		case 2:
			add(d.Scan[:], body, nil, nil)
		case 3:
			add(d.Write[:], body, nil, nil)
		case 4:
			add(d.Time[:], body, nil, nil)
		case 5:
			add(d.RU[:], body, nil, func(inputs []byte) {
				var all [8]uint64
				add(all[:], inputs, nil, nil)
				for _, n := range all {
					d.Inputs += n
				}
			})
		case 6:
			d.Pools++
			add(d.Pool[:], body, largest, nil)
		}
	}
}

// largest reports whether a field of PoolTaskDetails is a maximum.
func largest(num protowire.Number) bool {
	switch num {
	case 5, 8, 12, 15, 19:
		return true
	}
	return false
}

// add adds the numbers of a message. most tells which are maxima, inner gets what is a
// message itself; both may be nil.
func add(into []uint64, data []byte, most func(protowire.Number) bool, inner func([]byte)) {
	for len(data) > 0 {
		num, body, value, n := field(data)
		if n < 0 {
			return
		}
		data = data[n:]
		switch {
		case body != nil && inner != nil:
			inner(body)
		case int(num) < len(into):
			if most != nil && most(num) {
				into[num] = max(into[num], value)
			} else {
				into[num] += value
			}
		}
	}
}
