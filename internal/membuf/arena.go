package membuf

// arena copies byte strings into blocks, so that many small ones cost one allocation.
// What it returned is never written again.
type arena struct{ block []byte }

const (
	minBlock = 512
	maxBlock = 64 << 10
)

// copy returns b in the arena's memory, never nil.
func (a *arena) copy(b []byte) []byte {
	if len(b) == 0 {
		return []byte{}
	}
	if len(b) > cap(a.block)-len(a.block) {
		if len(b) > maxBlock/4 {
			return append(make([]byte, 0, len(b)), b...)
		}
		size := min(max(2*cap(a.block), minBlock), maxBlock)
		a.block = make([]byte, 0, max(size, len(b)))
	}
	start := len(a.block)
	a.block = append(a.block, b...)
	return a.block[start:len(a.block):len(a.block)]
}
