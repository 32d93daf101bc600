//go:build !unix && !windows

package harness

func usage() Usage { return Usage{} }
