package mvcc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tikv-go/tikv/playground/internal/storage"
)

// transcript is a script of testdata: "-- name", comments that tell what it shows,
// "tikv: file function", and the commands.
type transcript struct {
	name, shows, source, body string
	lines                     int // with an answer other than ok
}

// isTest tells whether the source is a unit test of TiKV, by its name.
func (s transcript) isTest() bool {
	_, function, _ := strings.Cut(s.source, " ")
	return strings.HasPrefix(function[strings.LastIndex(function, ":")+1:], "test_")
}

func transcripts(t *testing.T) (all []transcript) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		topic := strings.TrimSuffix(filepath.Base(file), ".txt")
		head, rest, _ := strings.Cut("\n"+string(text), "\n-- ")
		if strings.TrimSpace(head) != "" {
			t.Errorf("%s: text before the first script", file)
		}
		for part := range strings.SplitSeq(rest, "\n-- ") {
			all = append(all, parseTranscript(topic, part))
		}
	}
	return all
}

func parseTranscript(topic, text string) transcript {
	name, text, _ := strings.Cut(text, "\n")
	s := transcript{name: topic + "/" + strings.TrimSpace(name)}
	var body strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		source, named := strings.CutPrefix(line, "tikv: ")
		switch {
		case line == "":
		case named && s.source == "":
			s.source = source
		case strings.HasPrefix(line, "#") && s.source == "":
			s.shows += line
		case !strings.HasPrefix(line, "#"):
			body.WriteString(line + "\n")
			if _, answer, ok := strings.Cut(line, "=>"); ok && strings.TrimSpace(answer) != "ok" {
				s.lines++
			}
		}
	}
	s.body = body.String()
	return s
}

// The scripts restate cases of TiKV's own tests, and rules of its functions. They run on
// both kinds of storage.
func TestTranscripts(t *testing.T) {
	all := transcripts(t)
	onDisk := func(t *testing.T) storage.Engine {
		store, err := storage.OpenDir(t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			inBubble(t, func(*testing.T) storage.Engine { return storage.NewMemory() }, func(run *script) { run.run(s.body) })
			if !t.Failed() {
				inBubble(t, onDisk, func(run *script) { run.run(s.body) })
			}
		})
	}
}

// How many scripts there are at least, and how many tests of TiKV they restate.
const (
	minTranscripts = 450
	minTiKVTests   = 240
)

func TestTranscriptsAreDistinct(t *testing.T) {
	names, bodies, tests := map[string]bool{}, map[string]string{}, map[string]bool{}
	all := transcripts(t)
	for _, s := range all {
		if path, function, ok := strings.Cut(s.source, " "); !ok || !strings.HasSuffix(path, ".rs") || strings.Contains(function, " ") {
			t.Errorf("%s: no source: %q", s.name, s.source)
		}
		if s.shows == "" || s.lines == 0 {
			t.Errorf("%s: it tells nothing (%q) or shows nothing", s.name, s.shows)
		}
		if names[s.name] {
			t.Errorf("%s: there are two", s.name)
		}
		if other, ok := bodies[s.body]; ok {
			t.Errorf("%s: the same as %s", s.name, other)
		}
		names[s.name], bodies[s.body] = true, s.name
		if s.isTest() {
			tests[s.source] = true
		}
	}
	t.Logf("%d scripts, of %d tests of TiKV", len(all), len(tests))
	if len(all) < minTranscripts || len(tests) < minTiKVTests {
		t.Errorf("%d scripts of %d tests of TiKV: there were more", len(all), len(tests))
	}
}
