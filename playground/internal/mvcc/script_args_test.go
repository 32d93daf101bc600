package mvcc

import (
	"fmt"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"strconv"
	"strings"
	"testing"
)

type args struct {
	*testing.T
	words []string
}

func (a *args) next() string {
	if len(a.words) == 0 {
		a.Fatal("an argument is missing")
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *args) ts() uint64 { return parseTS(a.T, a.next()) }

func (a *args) key() []byte { return []byte(a.next()) }

// rest returns the remaining words as keys.
func (a *args) rest() (ks [][]byte) {
	for len(a.words) > 0 {
		for _, k := range expand(a.next()) {
			ks = append(ks, []byte(k))
		}
	}
	return ks
}

// expand returns a word, or, of one with "#3" in it, three with 0000, 0001 and 0002 there.
func expand(word string) (all []string) {
	before, rest, many := strings.Cut(word, "#")
	if !many {
		return []string{word}
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	if err != nil {
		return []string{word}
	}
	for i := range n {
		all = append(all, fmt.Sprintf("%s%04d%s", before, i, rest[digits:]))
	}
	return all
}

// has takes an option without a value.
func (a *args) has(name string) bool {
	for i, w := range a.words {
		if w == name {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return true
		}
	}
	return false
}

// opt takes the value of an option.
func (a *args) opt(name string) string {
	for i, w := range a.words {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return v
		}
	}
	return ""
}

func (a *args) num(name string) uint64 {
	if v := a.opt(name); v != "" {
		return parseTS(a.T, v)
	}
	return 0
}

func (a *args) list(name string) (list []uint64) {
	if v := a.opt(name); v != "" {
		for _, w := range strings.Split(v, ",") {
			list = append(list, parseTS(a.T, w))
		}
	}
	return list
}

func parseTS(t *testing.T, w string) uint64 {
	t.Helper()
	if w == "max" {
		return maxTS
	}
	number, logical, _ := strings.Cut(w, "+")
	shift, unit := 0, uint64(1)
	if ms, ok := strings.CutSuffix(number, "ms"); ok {
		number, shift = ms, 18
	} else if sec, ok := strings.CutSuffix(number, "s"); ok {
		number, shift, unit = sec, 18, 1000
	}
	n, err := strconv.ParseUint(number, 10, 64)
	n = n * unit << shift
	if err == nil && logical != "" {
		var l uint64
		l, err = strconv.ParseUint(logical, 10, 64)
		n += l
	}
	if err != nil {
		t.Fatalf("%q is no timestamp: %v", w, err)
	}
	return n
}

// value is what the script writes for one: "x*400" is 400 times x.
func value(text string) []byte {
	if letter, count, ok := strings.Cut(text, "*"); ok {
		if n, err := strconv.Atoi(count); err == nil {
			return []byte(strings.Repeat(letter, n))
		}
	}
	return []byte(text)
}

// context takes the options of Context.
func (a *args) context() *kvrpcpb.Context {
	c := &kvrpcpb.Context{ResolvedLocks: a.list("bypass"), CommittedLocks: a.list("access"),
		IsRetryRequest: a.has("retry"), StaleRead: a.has("stale"), ReplicaRead: a.has("replica")}
	if a.has("rc") {
		c.IsolationLevel = kvrpcpb.IsolationLevel_RC
	}
	if a.has("rccheck") {
		c.IsolationLevel = kvrpcpb.IsolationLevel_RCCheckTS
	}
	return c
}
