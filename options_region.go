package tikv

import "math"

// WithRegionCacheBytes bounds the memory in which the client remembers where regions are,
// some 300 bytes each; those that were not used for longest go first. The default is 64 MiB.
func WithRegionCacheBytes(n int) Option {
	return openOption{"WithRegionCacheBytes", func(c *config) string {
		c.regions.Bytes = int64(n)
		return atLeastOne(n)
	}}
}

// WithMaxInFlight bounds the requests to one store that are under way. Calls beyond it wait
// and try again, as their budget allows. The default is 16384.
func WithMaxInFlight(n int) Option {
	return openOption{"WithMaxInFlight", func(c *config) string {
		c.regions.MaxInFlight = int32(min(n, math.MaxInt32))
		return atLeastOne(n)
	}}
}
