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
	}{
		{"version compare in redis", off{compare: true}, func(r *rates) { r.zombies *= 5 }},
		{"floors", off{floors: true}, nil},
		{"aged watermarks", off{watermark: true}, nil},
		{"gap detection", off{gaps: true}, func(r *rates) { r.lost *= 10 }},
		{"noticing silence", off{silence: true}, func(r *rates) { r.hushEvery, r.restarts = 10*time.Second, time.Minute }},
		{"the pin before the store opens (R11)", off{pin: true}, nil},
		{"the care in filling missing keys (R6)", off{fills: true}, func(r *rates) { r.evictEvery /= 5 }},
		{"epochs", off{epochs: true}, func(r *rates) { r.sourceEvery = 5 * time.Second }},
		{"redis before kafka", off{order: true}, nil},
		{"repair after a redis failover", off{repair: true}, func(r *rates) { r.failEvery = 5 * time.Second }},
		{"checkpoint after acknowledgement", off{checkpoint: true}, func(r *rates) { r.killEvery = 3 * time.Second }},
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
			if a.staleCopies() == 0 {
				t.Error("no copy was stale")
			}
		})
	}
}
