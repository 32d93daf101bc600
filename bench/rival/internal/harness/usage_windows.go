package harness

import (
	"syscall"
	"time"
)

func usage() Usage {
	var created, exited, sys, user syscall.Filetime
	self, err := syscall.GetCurrentProcess()
	if err != nil || syscall.GetProcessTimes(self, &created, &exited, &sys, &user) != nil {
		return Usage{}
	}
	return Usage{ticks(user), ticks(sys)}
}

// ticks is a time that Windows counts in units of 100 ns.
func ticks(t syscall.Filetime) time.Duration {
	return time.Duration(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 100
}
