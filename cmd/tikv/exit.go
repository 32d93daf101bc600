package main

import (
	"context"
	"errors"

	"github.com/tikv-go/tikv"
)

// Exit codes, as the help text lists them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitAbsent      = 2
	exitUsage       = 3
	exitUnavailable = 4
	exitUnknown     = 5
)

// usageError is a command line that cannot be run.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// silentError is a failure that was already told.
type silentError struct{ code int }

func (e *silentError) Error() string { return "" }

// exitCode classifies what a command returned.
func exitCode(err error) int {
	var usage *usageError
	var silent *silentError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return silent.code
	case errors.Is(err, tikv.ErrUndetermined):
		return exitUnknown
	case errors.Is(err, tikv.ErrNotFound):
		return exitAbsent
	case errors.As(err, &usage), errors.Is(err, tikv.ErrInvalid), errors.Is(err, tikv.ErrUnsupported):
		return exitUsage
	case errors.Is(err, tikv.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable
	}
	return exitFailure
}
