//go:build !race

package simulation

const (
	usualCopies = 1_000_000
	offCopies   = 100_000 // with a protection switched off
)
