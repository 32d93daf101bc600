package check

import "fmt"

// Outcome is what a caller was told about what it wrote.
type Outcome uint8

// The outcomes.
const (
	Done    Outcome = iota + 1
	Failed          // it did not happen, and never will
	Unknown         // it may have happened, may happen later, or never
)

var outcomes = [...]string{"", "done", "failed", "unknown"}

// String is the outcome in a word.
func (o Outcome) String() string {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// MarshalText is String.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (o *Outcome) UnmarshalText(text []byte) error {
	for i, word := range outcomes {
		if i > 0 && word == string(text) {
			*o = Outcome(i)
			return nil
		}
	}
	return fmt.Errorf("check: no outcome is called %q", text)
}
