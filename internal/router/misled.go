package router

import (
	"sync"
	"time"
)

// misled are the addresses at which another store answered than the one that PD means:
// a name has come to mean another machine, and the connection is to the one before. It is
// renewed, so that the name is looked up again, but not by each of the calls that find out.
type misled struct {
	mu sync.Mutex
	at map[string]time.Time
}

const renewAgain = time.Second

func (m *misled) renew(t Transport, addr string, now time.Time) {
	d, ok := t.(interface{ Renew(addr string) })
	if !ok {
		return
	}
	m.mu.Lock()
	last, known := m.at[addr]
	again := !known || now.Sub(last) >= renewAgain
	if again {
		if m.at == nil {
			m.at = make(map[string]time.Time)
		}
		m.at[addr] = now
	}
	m.mu.Unlock()
	if again {
		d.Renew(addr)
	}
}
