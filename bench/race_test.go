//go:build race

package main

// raced is whether the race detector is on, under which counts mean nothing.
const raced = true
