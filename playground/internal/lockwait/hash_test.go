package lockwait

import "testing"

// The reference is github.com/dgryski/go-farm's Fingerprint64, which the official client
// compares with; interop checks that a deadlock is found to be its victim's own.
func TestHash(t *testing.T) {
	for _, c := range []struct {
		n    int // bytes, the i-th 7i+3
		want uint64
	}{
		{0, 0x9ae16a3b2f90404f},
		{1, 0xbec09cc447469d8b},
		{2, 0x16f8263645a8ecf5},
		{3, 0x40b4412e33eefd64},
		{4, 0xf3c7ee05197a7b92},
		{5, 0x156112f7c93e5cb3},
		{7, 0x4fef0b39c12aa9a4},
		{8, 0x0c97ecbc1e9d2626},
		{9, 0xe51cf38098a5bfff},
		{12, 0x07e11fa045e761bc},
		{16, 0x7eda0ed8c837a168},
		{17, 0xc9518fe63ebf6127},
		{24, 0x310064a8de2c42d2},
		{31, 0xbd5ca6ee28fc43cb},
		{32, 0xa53f806f23a314e8},
		{33, 0xc24f9d7ce864f0e9},
		{47, 0xbd4bed86e2f1eede},
		{48, 0xa77873935894901f},
		{63, 0x9643c13fc68d469c},
		{64, 0x0566266cb579eca2},
		{65, 0x77e0867714e6b0e4},
		{80, 0x4ad1fb0957da7cc5},
		{127, 0xcaa19a12c8273b7e},
		{128, 0x666823960b3ac271},
		{129, 0x98206b8579bca083},
		{192, 0x3fb42d06dd42f727},
		{200, 0x6d7105b27cbe2fd7},
		{1000, 0xe021806cc1e3dc4c},
	} {
		key := make([]byte, c.n)
		for i := range key {
			key[i] = byte(i*7 + 3)
		}
		if got := Hash(key); got != c.want {
			t.Errorf("of %d bytes %#x, want %#x", c.n, got, c.want)
		}
	}
}
