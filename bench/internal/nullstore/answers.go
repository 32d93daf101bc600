package nullstore

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// The commands that are answered with more than nothing, by their field in
// BatchCommandsRequest.Request; the answer's field is the same (tikvpb.proto). The numbers
// of the fields below are kvrpcpb's.
const (
	cmdGet         = 1
	cmdScan        = 2
	cmdPrewrite    = 3
	cmdBatchGet    = 7
	cmdRawGet      = 13
	cmdRawBatchGet = 14
	cmdRawScan     = 19
	cmdLock        = 23
	cmdHeartBeat   = 26
)

var commands = map[string]protowire.Number{
	"KvGet": cmdGet, "KvScan": cmdScan, "KvPrewrite": cmdPrewrite, "KvBatchGet": cmdBatchGet,
	"RawGet": cmdRawGet, "RawBatchGet": cmdRawBatchGet, "RawScan": cmdRawScan, "KvTxnHeartBeat": cmdHeartBeat,
	"KvPessimisticLock": cmdLock,
}

// answer appends what is answered to a command.
func (s *store) answer(dst []byte, cmd protowire.Number, request []byte) ([]byte, error) {
	var err error
	switch cmd {
	case cmdGet, cmdRawGet:
		dst = appendBytes(dst, 3, s.value)
	case cmdBatchGet, cmdRawBatchGet:
		err = fields(request, func(f field) {
			if f.num == 2 {
				dst = s.pair(dst, f.data)
			}
		})
	case cmdScan, cmdRawScan:
		dst, err = s.scan(dst, cmd, request)
	case cmdPrewrite:
		dst, err = prewrite(dst, request)
	case cmdLock:
		dst, err = s.lock(dst, request)
	case cmdHeartBeat: // what is asked for, at least 20 s
		life := uint64(20000)
		err = fields(request, func(f field) {
			if f.num == 4 {
				life = max(life, f.value)
			}
		})
		dst = appendVarint(dst, 3, life)
	}
	return dst, err
}

// pair appends a KvPair with every key's value.
func (s *store) pair(dst, key []byte) []byte {
	return append(s.pairKey(dst, key), s.valueField...)
}

// pairKey appends a KvPair up to its value.
func (s *store) pairKey(dst, key []byte) []byte {
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(bytesSize(len(key))+len(s.valueField)))
	return appendBytes(dst, 2, key)
}

// scan makes as many pairs as are asked for. Their keys are the first key with a number
// behind it, so they stay in its region: no key of the key space lies between them.
func (s *store) scan(dst []byte, cmd protowire.Number, request []byte) ([]byte, error) {
	var start []byte
	var limit uint64
	err := fields(request, func(f field) {
		switch f.num {
		case 2:
			start = f.data
		case 3:
			limit = f.value
		}
	})
	if err != nil {
		return dst, err
	}
	var key, pair [64]byte
	head := s.pairKey(pair[:0], append(append(key[:0], start...), 0, 0, 0, 0))
	for i := range limit {
		binary.BigEndian.PutUint32(head[len(head)-4:], uint32(i))
		dst = append(append(dst, head...), s.valueField...)
	}
	return dst, nil
}

// lock tells what is asked for of the keys: every one has its value.
func (s *store) lock(dst, request []byte) ([]byte, error) {
	keys, values, existence := 0, false, false
	err := fields(request, func(f field) {
		switch f.num {
		case 2: // mutations
			keys++
		case 10: // return_values
			values = f.value != 0
		case 12: // check_existence
			existence = f.value != 0
		}
	})
	for range keys {
		if values {
			dst = appendBytes(dst, 5, s.value)
		}
		if values || existence {
			dst = appendVarint(dst, 6, 0) // not_founds
		}
	}
	return dst, err
}

// prewrite gives the timestamps that async commit and one-phase commit ask for.
func prewrite(dst, request []byte) ([]byte, error) {
	var after uint64
	var async, onePhase bool
	err := fields(request, func(f field) {
		switch f.num {
		case 4, 9, 10: // start_version, for_update_ts, min_commit_ts
			after = max(after, f.value)
		case 11:
			async = f.value != 0
		case 13:
			onePhase = f.value != 0
		}
	})
	switch {
	case onePhase:
		dst = appendVarint(dst, 4, after+1)
	case async:
		dst = appendVarint(dst, 3, after+1)
	}
	return dst, err
}
