package lint

import (
	"os"
	"strings"
	"testing"
)

// README.md's program is the one that the tests run.
func TestReadmeProgram(t *testing.T) {
	source, err := os.ReadFile("../../readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(source), "\t// README {\n")
	body, _, ok2 := strings.Cut(body, "\t// README }\n")
	if !ok || !ok2 {
		t.Fatal("readme_test.go has lost its markers")
	}
	body = strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n\t", "\n"), "\n")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+body+"```\n") {
		t.Errorf("README.md does not show the program of readme_test.go:\n%s", body)
	}
}
