// Package lint holds the project's house rules as tests: which package may import
// which, where goroutines start, what may stand at package level, what is documented.
// They read the source with go/parser and go list, so they need nothing but Go.
package lint
