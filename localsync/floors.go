package localsync

import (
	"maps"

	"github.com/rowtide/rowtide"
)

// floors holds, per key, the newest version that this node has heard of, whether
// or not the key is resident: a value below its floor is never kept as proven (races
// R1, R9, R14). Two generations stand in for a ring: a floor lives between one and
// two times the configured age, forgetting a generation costs nothing per key,
// and nothing here has pointers. The owner's lock guards it.
type floors struct {
	young, old generation
	turnedAt   int64
}

type generation struct {
	byHash map[uint64]rowtide.Version
	// top is the highest floor per partition: what forgetting must remember.
	top map[uint16]rowtide.Version
}

func newGeneration() generation {
	return generation{byHash: map[uint64]rowtide.Version{}, top: map[uint16]rowtide.Version{}}
}

func newFloors() floors { return floors{young: newGeneration(), old: newGeneration()} }

func (f *floors) of(hash uint64) rowtide.Version {
	return max(f.young.byHash[hash], f.old.byHash[hash])
}

// raise merges by maximum, so that neither the order nor the number of messages
// matters (race R10). What is told again lives as long as what is told now.
func (f *floors) raise(hash uint64, part uint16, v rowtide.Version) {
	if v >= f.of(hash) {
		f.young.byHash[hash] = v
	}
	if v > f.young.top[part] {
		f.young.top[part] = v
	}
}

// due says whether the older generation is to be forgotten: by age, or early
// when the younger holds limit keys, so that a mass update cannot grow the table
// without end.
func (f *floors) due(now, age int64, limit int) bool {
	return now-f.turnedAt >= age || len(f.young.byHash) >= limit
}

// turn forgets the older generation and returns its highest floor per partition,
// which the caller must go on honouring.
func (f *floors) turn(now int64) map[uint16]rowtide.Version {
	top := maps.Clone(f.old.top)
	f.old, f.young = f.young, newGeneration()
	f.turnedAt = now
	return top
}

func (f *floors) len() int { return len(f.young.byHash) + len(f.old.byHash) }
