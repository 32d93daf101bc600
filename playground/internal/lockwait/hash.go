package lockwait

import (
	"encoding/binary"
	"math/bits"
)

// The odd multipliers of the FarmHash family.
const (
	mulA uint64 = 0xc3a5c85c97cb3127
	mulB uint64 = 0xb492b66fbe98f273
	mulC uint64 = 0x9ae16a3b2f90404f
)

// Hash is the number by which locks of a key are named in waits and deadlocks: FarmHash's
// 64-bit fingerprint of the key as requests have it, the same on every machine (TiKV
// components/txn_types/src/types.rs, Key::gen_hash). Clients compare it with hashes of
// their own.
func Hash(key []byte) uint64 {
	switch n := len(key); {
	case n > 64:
		return hashLong(key)
	case n > 32:
		return hash64(key)
	case n > 16:
		return hash32(key)
	case n >= 8:
		mul := mulC + 2*uint64(n)
		a, b := word(key, 0)+mulC, word(key, n-8)
		return fold(bits.RotateLeft64(b, 27)*mul+a, (bits.RotateLeft64(a, 39)+b)*mul, mul)
	case n >= 4:
		a, b := uint64(binary.LittleEndian.Uint32(key)), uint64(binary.LittleEndian.Uint32(key[n-4:]))
		return fold(uint64(n)+a<<3, b, mulC+2*uint64(n))
	case n > 0:
		a, b, c := uint32(key[0]), uint32(key[n/2]), uint32(key[n-1])
		y, z := uint64(a+b<<8), uint64(uint32(n)+c<<2)
		return mix(y*mulC^z*mulA) * mulC
	}
	return mulC
}

func word(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

func mix(v uint64) uint64 { return v ^ v>>47 }

// fold makes one word of two.
func fold(u, v, mul uint64) uint64 {
	a := mix((u ^ v) * mul)
	return mix((v^a)*mul) * mul
}

// hash32 is of 17 to 32 bytes: their two first and two last words.
func hash32(b []byte) uint64 {
	mul := mulC + 2*uint64(len(b))
	a, c := word(b, 0)*mulB, word(b, 8)
	x, y := word(b, len(b)-8)*mul, word(b, len(b)-16)*mulC
	return fold(bits.RotateLeft64(a+c, 21)+bits.RotateLeft64(x, 34)+y, a+bits.RotateLeft64(c+mulC, 46)+x, mul)
}

// hash64 is of 33 to 64 bytes.
func hash64(b []byte) uint64 {
	n := len(b)
	mul := mulC + 2*uint64(n)
	a, c := word(b, 0)*mulC, word(b, 8)
	x, y := word(b, n-8)*mul, word(b, n-16)*mulC
	u := bits.RotateLeft64(a+c, 21) + bits.RotateLeft64(x, 34) + y
	v := fold(u, a+bits.RotateLeft64(c+mulC, 46)+x, mul)
	e, f := word(b, 16)*mul, word(b, 24)
	g, h := (u+word(b, n-32))*mul, (v+word(b, n-24))*mul
	return fold(bits.RotateLeft64(e+f, 21)+bits.RotateLeft64(g, 34)+h, e+bits.RotateLeft64(f+a, 46)+g, mul)
}

// state is what hashLong keeps between blocks of 64 bytes.
type state struct {
	x, y, z        uint64
	v0, v1, w0, w1 uint64
}

func hashLong(b []byte) uint64 {
	seed := uint64(81)
	s := state{y: seed*mulB + 113}
	s.x = seed*mulC + word(b, 0)
	s.z = mix(s.y*mulC+113) * mulC
	at := 0
	for ; len(b)-at > 64; at += 64 {
		s.block(b[at:], mulB, 1)
		s.x, s.z = s.z, s.x
	}
	mul := mulB + s.z&0xff<<1
	s.w0 += uint64(len(b)-1) & 63
	s.v0 += s.w0
	s.w0 += s.v0
	s.block(b[len(b)-64:], mul, 9)
	s.x, s.z = s.z, s.x
	return fold(fold(s.v0, s.w0, mul)+mix(s.y)*mulA+s.z, fold(s.v1, s.w1, mul)+s.x, mul)
}

// block takes 64 bytes in; times is 1, of the last block 9.
func (s *state) block(b []byte, mul, times uint64) {
	s.x = bits.RotateLeft64(s.x+s.y+s.v0+word(b, 8), 27) * mul
	s.y = bits.RotateLeft64(s.y+s.v1+word(b, 48), 22) * mul
	s.x ^= s.w1 * times
	s.y += s.v0*times + word(b, 40)
	s.z = bits.RotateLeft64(s.z+s.w0, 31) * mul
	s.v0, s.v1 = half(b, s.v1*mul, s.x+s.w0)
	s.w0, s.w1 = half(b[32:], s.z+s.w1, s.y+word(b, 16))
}

// half takes 32 bytes into two words.
func half(b []byte, a, c uint64) (uint64, uint64) {
	a += word(b, 0)
	c = bits.RotateLeft64(c+a+word(b, 24), 43)
	first := a
	a += word(b, 8) + word(b, 16)
	c += bits.RotateLeft64(a, 20)
	return a + word(b, 24), c + first
}
