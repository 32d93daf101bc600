// Package nullstore is a server of TiKV's and PD's protocol that stores nothing: it answers
// each request with the shortest success there is, as cheaply as gRPC allows, so that what
// is measured against it is the client. Every key is there, with a value of the configured
// size; every write succeeds; regions never change.
package nullstore

import "time"

// Config is what a server pretends to be.
type Config struct {
	Regions   int           // at equal distances over the key space
	Encoded   bool          // borders of regions are memcomparable: transactional keys
	Keys      int           // the key space: how many keys (harness.Key)
	KeySize   int           // and how long
	ValueSize int           // bytes of every value
	Delay     time.Duration // how long a store holds each frame of answers back
	Stores    int           // served by one process; 0 is 1
}
