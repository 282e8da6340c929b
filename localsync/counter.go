package localsync

import (
	"sync/atomic"
	"unsafe"
)

// counter counts what every read counts, in stripes that lie on cache lines of
// their own, so that processors do not pass one line to and fro.
type counter [16]struct {
	n atomic.Uint64
	_ [56]byte
}

// add counts one and returns the count of the stripe that it went to. Goroutines
// that run at the same time have different stacks, which chooses the stripe;
// nothing follows the pointer.
func (c *counter) add() uint64 {
	var here byte
	page := uintptr(unsafe.Pointer(&here)) >> 11 // a stack is 2 KiB at least
	return c[page%uintptr(len(c))].n.Add(1)
}

func (c *counter) load() (sum uint64) {
	for i := range c {
		sum += c[i].n.Load()
	}
	return sum
}
