package publisher

import (
	"sync"
	"sync/atomic"
	"testing"
)

// However many lanes wait, an outage is told once and ends once.
func TestOutage_IsToldOnceAndEndsOnce(t *testing.T) {
	var o outage
	var firsts, lasts atomic.Int32
	var entered, done sync.WaitGroup
	const lanes = 8
	entered.Add(lanes)
	for range lanes {
		done.Go(func() {
			o.enter()
			o.news("", func(bool) { firsts.Add(1) })
			entered.Done()
			entered.Wait()
			o.leave(func() { lasts.Add(1) })
		})
	}
	done.Wait()
	if firsts.Load() != 1 || lasts.Load() != 1 {
		t.Errorf("told %d times, ended %d times, want once each", firsts.Load(), lasts.Load())
	}
}
