//go:build unix

package harness

import (
	"syscall"
	"time"
)

func usage() Usage {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return Usage{}
	}
	return Usage{time.Duration(ru.Utime.Nano()), time.Duration(ru.Stime.Nano())}
}
