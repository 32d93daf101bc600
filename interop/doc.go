// Package interop runs the official Go client of TiKV against the embedded cluster, and
// both clients on the same keys. It imports neither the client nor the cluster of this
// project (the official client does not compile with the protocol that they use): it
// starts them as processes.
package interop
