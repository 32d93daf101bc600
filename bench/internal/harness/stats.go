package harness

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// Stats is what the null store counted since it started.
type Stats struct {
	Frames   uint64 // of BatchCommands
	Requests uint64 // in those frames
	Unary    uint64 // calls apart from those

	Timestamps        uint64
	TimestampRequests uint64

	CPU time.Duration // of its process
}

// FetchStats reads the counters of the null store that tells them at addr: to each
// connection it writes one Stats in JSON, and closes it.
func FetchStats(addr string) (Stats, error) {
	var s Stats
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return s, fmt.Errorf("the null store's counters: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return s, fmt.Errorf("the null store's counters: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&s); err != nil {
		return s, fmt.Errorf("the null store's counters: %w", err)
	}
	return s, nil
}
