package harness

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is a process's processor time.
type Usage struct{ User, Sys time.Duration }

// Total is user's and system's time.
func (u Usage) Total() time.Duration { return u.User + u.Sys }

// CPU is the time that this process has used, 0 where the system does not say.
func CPU() time.Duration { return usage().Total() }

// rss is this process's memory in KiB as Linux counts it, 0 elsewhere.
func rss() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n
		}
	}
	return 0
}
