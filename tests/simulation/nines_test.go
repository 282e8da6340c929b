package simulation

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "seed of the first world")
	copiesFlag = flag.Int("copies", usualCopies, "copies to audit")
)

// worldCopies is how many copies one world is good for: small enough that all cores
// have one, large enough that its start does not count.
const worldCopies = usualCopies / 2

// TestNines_NoCopyIsStale is `make nines`.
func TestNines_NoCopyIsStale(t *testing.T) {
	var mu sync.Mutex
	var sum *audit
	began := time.Now()
	t.Run("worlds", func(t *testing.T) {
		for n := range (*copiesFlag + worldCopies - 1) / worldCopies {
			seed := *seedFlag + uint64(n) //nolint:gosec // counts up
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				a := simulate(t, seed, usual(), off{}, min(worldCopies, *copiesFlag-n*worldCopies))
				if a.staleCopies() > 0 {
					t.Errorf("stale copies, with seed %d: %v", seed, a)
				}
				mu.Lock()
				defer mu.Unlock()
				if a.stale = nil; sum == nil {
					sum = a
				} else {
					sum.add(a)
				}
			})
		}
	})
	took := time.Since(began).Seconds()
	t.Logf("seeds from %d: %v\n  %.0f s of real time: %.0f commits/s, %.0f copies/s", *seedFlag, sum, took, float64(sum.commits)/took, float64(sum.copies())/took)
}
