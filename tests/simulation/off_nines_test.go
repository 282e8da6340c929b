package simulation

import (
	"testing"
	"time"
)

// TestNines_FailsWithoutEachProtection switches one protection off at a time. A
// run that stays clean would mean that the simulation cannot see what the
// protection is for.
func TestNines_FailsWithoutEachProtection(t *testing.T) {
	for _, one := range []struct {
		name  string
		off   off
		rates func(*rates) // what has to be more frequent to meet within a short run
		least int          // stale copies; without the fence alone, the first case has some 3
	}{
		// Where there is a fence it covers for the comparison; a cluster has none.
		{"version compare in redis", off{compare: true, fence: true}, func(r *rates) { r.zombies *= 20 }, offCopies / 2000},
		{"the fence of deposed daemons (R6)", off{fence: true}, func(r *rates) { r.zombies, r.evictEvery = r.zombies*100, r.evictEvery/10 }, 1},
		{"floors", off{floors: true}, nil, 1},
		{"aged watermarks", off{watermark: true}, nil, 1},
		{"gap detection", off{gaps: true}, func(r *rates) { r.lost *= 10 }, 1},
		{"noticing silence", off{silence: true}, func(r *rates) { r.hushEvery, r.restarts = 10*time.Second, time.Minute }, 1},
		{"the pin before the store opens (R11)", off{pin: true}, nil, 1},
		{"the care in filling missing keys (R6)", off{fills: true}, func(r *rates) { r.evictEvery /= 5 }, 1},
		{"epochs", off{epochs: true}, func(r *rates) { r.sourceEvery = 5 * time.Second }, 1},
		{"redis before kafka", off{order: true}, nil, 1},
		{"repair after a redis failover", off{repair: true}, func(r *rates) { r.failEvery = 5 * time.Second }, 1},
		{"checkpoint after acknowledgement", off{checkpoint: true}, func(r *rates) { r.killEvery = 3 * time.Second }, 1},
	} {
		t.Run(one.name, func(t *testing.T) {
			r := usual()
			if one.rates != nil {
				one.rates(&r)
			}
			t.Parallel()
			a := simulate(t, *seedFlag, r, one.off, offCopies)
			a.stale = a.stale[:min(1, len(a.stale))]
			t.Logf("without %s: %d stale copies at %v, %d at %v, %d stale reads in %v", one.name,
				a.at[0].staleCopies(), horizons[0], a.at[1].staleCopies(), horizons[1], a.reads.staleLocal, a)
			if n := a.staleCopies(); n < one.least {
				t.Errorf("%d copies were stale, want at least %d", n, one.least)
			}
		})
	}
}
