//go:build race

package simulation

// The race detector is ten times slower, and looks for something else.
const (
	usualCopies = 100_000
	offCopies   = 40_000
)
