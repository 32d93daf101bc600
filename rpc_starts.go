package tikv

import (
	"bytes"
	"sync"
)

// starts remembers where regions start that were asked for by id, since the cache finds
// them by their keys alone.
type starts struct {
	mu   sync.Mutex
	keys map[uint64][]byte
}

// startsRoom is how many: beyond that all are forgotten.
const startsRoom = 1 << 12

func (s *starts) get(id uint64) (key []byte, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, known = s.keys[id]
	return key, known
}

func (s *starts) put(id uint64, key []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil || len(s.keys) >= startsRoom {
		s.keys = make(map[uint64][]byte)
	}
	s.keys[id] = bytes.Clone(key) // what it is part of is the cache's
}
