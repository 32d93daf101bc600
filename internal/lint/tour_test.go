package lint

import (
	"go/doc/comment"
	"os"
	"strings"
	"testing"
)

// Every piece of code on the page of the root package stands in tour_test.go, so that it
// compiles and, but for what needs a cluster elsewhere, runs.
func TestTour(t *testing.T) {
	source, err := os.ReadFile("../../tour_test.go")
	if err != nil {
		t.Fatal(err)
	}
	runs := unindented(string(source))
	pieces := 0
	for _, p := range packages(t) {
		for _, f := range p.files {
			if f.name != "doc.go" {
				continue
			}
			for _, block := range new(comment.Parser).Parse(f.ast.Doc.Text()).Content {
				if code, ok := block.(*comment.Code); ok {
					if pieces++; !strings.Contains(runs, unindented(code.Text)) {
						t.Errorf("tour_test.go does not run this piece of doc.go:\n%s", code.Text)
					}
				}
			}
		}
	}
	if pieces < 8 {
		t.Errorf("doc.go has %d pieces of code", pieces)
	}
}

// unindented is a text without what its lines begin and end with.
func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}
