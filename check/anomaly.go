package check

import "strings"

// The anomalies, the plainest first. Names with a G are those of Adya's thesis and of the
// paper on Elle; where real time is needed to see one it is named so. None of them is
// possible under snapshot isolation with timestamps in real-time order. Write skew is:
// cycles in which two anti-dependencies follow each other are not looked for.
const (
	Internal       = "internal"               // a transaction reads other than it has read or appended
	UnknownElement = "unknown element"        // a read shows what nobody appended
	Duplicate      = "duplicate element"      // an append took effect twice
	G1a            = "G1a: aborted read"      // a read shows what failed
	G1b            = "G1b: intermediate read" // a read ends in the middle of a transaction
	LostUpdate     = "lost update"            // two transactions append to the same list as they read it
	Incompatible   = "incompatible order"     // two reads show different orders of a key's elements
	Timestamps     = "timestamps"             // the reported timestamps do not explain a read
	G0             = "G0: write cycle"        // a cycle of appends
	G1c            = "G1c: circular reads"    // a cycle of appends and reads of them
	GSingle        = "G-single: read skew"    // a cycle with one anti-dependency
	GNonadjacent   = "G-nonadjacent"          // with several, none next to another
	realTime       = ", in real time"         // a cycle that the order in real time closes
)

// Anomaly is something that cannot have happened.
type Anomaly struct {
	Name  string   `json:"name"`
	Words []string `json:"words"`          // what contradicts what
	Txns  []int    `json:"txns,omitempty"` // the transactions, or calls, that it is about
}

// String is all of it.
func (a Anomaly) String() string { return a.Name + "\n\t" + strings.Join(a.Words, "\n\t") }
