package storage

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// The crash-point suite. A child process writes numbered batches and prints a batch's
// number once Apply returned; the parent kills it after a random number of
// acknowledgements, so at a random point of the batches that follow, opens what is
// left, and starts the next child on it. Batch n consists of 1 + n%7 entries in two
// families, of which entry i names n, and removes those of batch n-10: what is in the
// file tells which batches are whole.

const crashEnv = "TIKV_GO_STORAGE_CRASH_DIR"

func crashParts(n uint64) int { return int(1 + n%7) }

func crashKey(n uint64, part int) []byte {
	return fmt.Appendf(binary.BigEndian.AppendUint64(nil, n), "/%d", part)
}

func crashBatch(n uint64) *Batch {
	b := new(Batch)
	b.Put(Meta, []byte("last"), binary.BigEndian.AppendUint64(nil, n))
	for i := range crashParts(n) {
		b.Put(CF(i%2), crashKey(n, i), make([]byte, 100+int(n*131)%5000))
	}
	if n > 10 {
		for cf := range CF(2) {
			b.DeleteRange(cf, keys.Range{Start: crashKey(n-10, 0), End: crashKey(n-9, 0)})
		}
	}
	return b
}

// crashChild is the child; false in any other process.
func crashChild() bool {
	path := os.Getenv(crashEnv)
	if path == "" {
		return false
	}
	e, err := OpenDir(path, false)
	if err != nil {
		fmt.Println("error", err)
		return true
	}
	for n := crashLast(e) + 1; ; n++ {
		if err := e.Apply(crashBatch(n)); err != nil {
			fmt.Println("error", err)
			return true
		}
		if _, err := fmt.Println("ok", n); err != nil {
			return true
		}
	}
}

func crashLast(e Engine) uint64 {
	s := e.Snapshot()
	defer s.Close()
	v, ok := s.Get(Meta, []byte("last"))
	if !ok {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// runCrashChild lets a child run until it has acknowledged count batches, kills it, and
// returns the last batch that it acknowledged (0: none).
func runCrashChild(t *testing.T, path string, count int) (acked uint64) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for count > 0 && lines.Scan() {
		count--
		acked = crashAck(t, lines.Text())
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what it had acknowledged before it died
		acked = crashAck(t, lines.Text())
	}
	_ = child.Wait() // "signal: killed"
	return acked
}

func crashAck(t *testing.T, line string) uint64 {
	word, rest, _ := strings.Cut(line, " ")
	n, err := strconv.ParseUint(rest, 10, 64)
	if word != "ok" || err != nil {
		t.Fatalf("the child says %q", line)
	}
	return n
}

func TestKilledAtAnyPoint(t *testing.T) {
	path := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	rounds, total := 40, uint64(0)
	for round := range rounds {
		count := r.IntN(60)
		if round < 5 {
			count = round // also while the file is being made
		}
		acked := runCrashChild(t, path, count)
		e, err := OpenDir(path, round%2 == 0)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		last := crashLast(e)
		if last < acked || last < total {
			t.Fatalf("round %d: batch %d was acknowledged, the file ends with %d", round, max(acked, total), last)
		}
		checkCrashBatches(t, e, last)
		total = last
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < 100 {
		t.Fatalf("only %d batches in %d rounds", total, rounds)
	}
}

// checkCrashBatches checks that batches up to last are there whole, those they removed
// are gone, and nothing else is there.
func checkCrashBatches(t *testing.T, e Engine, last uint64) {
	s := e.Snapshot()
	defer s.Close()
	want := 0
	for n := last; n > 0 && n+10 > last; n-- {
		for i := range crashParts(n) {
			want++
			v, ok := s.Get(CF(i%2), crashKey(n, i))
			if !ok || len(v) != 100+int(n*131)%5000 {
				t.Fatalf("of batch %d part %d is missing, the last batch is %d", n, i, last)
			}
		}
	}
	if got := len(scan(s, Default, keys.Range{}, false)) + len(scan(s, Lock, keys.Range{}, true)); got != want {
		t.Fatalf("%d entries, %d expected", got, want)
	}
}
