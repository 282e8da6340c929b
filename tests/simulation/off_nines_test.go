package simulation

import (
	"testing"
	"time"
)

// without is a run with a protection switched off.
type without struct {
	name  string
	off   off
	rates func(*rates) // what has to be more frequent to meet within a short run
	least int          // stale copies; 0: none, another protection covers for it
}

// protections are all of them; the fence alone has some 3 stale copies.
var protections = []without{
	// Where there is a fence it covers for the comparison; a cluster has none.
	{"version compare in redis", off{compare: true, fence: true}, func(r *rates) { r.zombies *= 30 }, offCopies / 4000},
	{"the fence of deposed daemons (R6)", off{fence: true}, func(r *rates) { r.zombies, r.evictEvery = r.zombies*100, r.evictEvery/10 }, 1},
	{"floors", off{floors: true}, nil, 1},
	{"aged watermarks", off{watermark: true}, nil, 1},
	{"the watermark before the load (R17)", off{before: true}, hanging, 1},
	// While loads are shorter than ReplicaLag and no replica lags, these two do the same.
	{"the watermark before the load (R17), aged ones cover", off{before: true}, prompt, 0},
	{"aged watermarks, those before the load (R17) cover", off{watermark: true}, prompt, 0},
	{"both of them", off{before: true, watermark: true}, prompt, 1},
	{"gap detection", off{gaps: true}, func(r *rates) { r.lost *= 10 }, 1},
	// Where no replica lags the age of the watermark is not needed.
	{"doing again what a gap overtook (R7)", off{overtaken: true, watermark: true}, cutting, 1},
	{"noticing silence", off{silence: true}, func(r *rates) { r.hushEvery, r.restarts = 10*time.Second, time.Minute }, 1},
	{"noticing a backlog (R7)", off{pace: true}, backlog, 1},
	{"nothing (R7)", off{}, backlog, 0},
	{"remembering that floors were forgotten (R1)", off{forgotten: true}, forgetting, 1},
	{"nothing (R1)", off{}, forgetting, 0},
	{"the pin before the store opens (R11), checking at the first record covers", off{pin: true}, faithful, 0},
	{"checking at the first record (R11), the pin covers", off{first: true}, faithful, 0},
	{"both of these", off{pin: true, first: true}, faithful, 1},
	{"the care in filling missing keys (R6)", off{fills: true}, func(r *rates) { r.evictEvery /= 5 }, 1},
	{"comparing what redis gives (R8, R21)", off{behind: true}, failing, 1},
	// It saves loads: what is behind at the second look as well goes to the loader.
	{"the second look at redis (R8), comparing covers", off{look: true}, failing, 0},
	{"both of those", off{look: true, behind: true}, failing, 1},
	{"epochs", off{epochs: true}, func(r *rates) { r.sourceEvery = 5 * time.Second }, 1},
	{"generations (R25)", off{generation: true}, func(r *rates) { r.massEvery = 3 * time.Second }, 1},
	{"the mark of what the former key space holds (R19)", off{previous: true}, func(r *rates) { r.bumpEvery, r.evictEvery = 5*time.Second, r.evictEvery/10 }, 1},
	{"nothing (R19, R25)", off{}, func(r *rates) { r.massEvery, r.bumpEvery, r.evictEvery = 3*time.Second, 5*time.Second, r.evictEvery/10 }, 0},
	{"redis before kafka", off{order: true}, nil, 1},
	{"repair after a redis failover", off{repair: true}, func(r *rates) { r.failEvery = 5 * time.Second }, 1},
	{"checkpoint after acknowledgement", off{checkpoint: true}, func(r *rates) { r.killEvery = 3 * time.Second }, 1},
}

func hanging(r *rates) {
	r.slowLoads, r.loadTimeout, r.slowLoadTime = 0.3, 10*time.Second, 6*time.Second
}

// backlog has nodes catch up slowly after silences.
func backlog(r *rates) {
	r.hushEvery, r.fetchMost, r.massEvery, r.bumpEvery = 5*time.Second, 2, never, never
}

// forgetting has floors forgotten, by their number, while loads hang.
func forgetting(r *rates) {
	hanging(r)
	r.evictEvery, r.maxFloors = r.evictEvery/50, 250
}

// cutting has records missed while loads are under way.
func cutting(r *rates) {
	prompt(r)
	r.hushEvery, r.hush, r.hushedLost = 3*time.Second, [2]time.Duration{200 * time.Millisecond, 1500 * time.Millisecond}, 1
	r.slowLoads, r.evictEvery = 0.5, r.evictEvery/20
}

// faithful has a bus that loses nothing, so that gaps need not be found.
func faithful(r *rates) { r.lost, r.hushedLost = 0, 0 }

func failing(r *rates) { r.failEvery = 2 * time.Second }

func prompt(r *rates) { r.replicaReads, r.invisible = 0, 0 }

// TestNines_FailsWithoutEachProtection switches one protection off at a time. A
// run that stays clean would mean that the simulation cannot see what the
// protection is for.
func TestNines_FailsWithoutEachProtection(t *testing.T) {
	for _, p := range protections {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for more := range uint64(offSeeds) {
				if n += p.run(t, *seedFlag+more); n >= p.least {
					break
				}
			}
			if p.least == 0 && n > 0 {
				// Two failovers of Redis within a second are more than the first horizon allows
				// for, and come in one world of some dozens.
				n = p.run(t, *seedFlag+offSeeds)
			}
			if n < p.least || p.least == 0 && n > 0 {
				t.Errorf("%d copies were stale, want at least %d, and none if that is 0", n, p.least)
			}
		})
	}
}

// offSeeds are as many worlds as a protection that is missing has to show itself in.
const offSeeds = 4

func (p *without) run(t *testing.T, seed uint64) (stale int) {
	t.Helper()
	r := usual()
	if p.rates != nil {
		p.rates(&r)
	}
	a := simulate(t, seed, r, p.off, offCopies)
	a.stale = a.stale[:min(1, len(a.stale))]
	t.Logf("without %s: %d stale copies at %v, %d at %v, %d stale reads in %v", p.name,
		a.at[0].staleCopies(), horizons[0], a.at[1].staleCopies(), horizons[1], a.reads.staleLocal, a)
	if p.least == 0 && r.failEvery < horizons[1] {
		// What a failover loses within the first second is written again after it.
		return a.at[1].staleCopies()
	}
	return a.staleCopies()
}
