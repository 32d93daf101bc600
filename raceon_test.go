//go:build race

package tikv_test

// raced is whether the race detector is on.
const raced = true
