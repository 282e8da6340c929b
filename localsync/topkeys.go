package localsync

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// One read in sampleEvery is looked at for its key. A look takes half a microsecond
// to one, so that a read pays 2 to 4 ns at most; choosing costs a multiplication.
const (
	sampleBits  = 8
	sampleEvery = 1 << sampleBits
)

// sampled picks one in sampleEvery of the numbers 1, 2, 3 … . Not every 256th,
// which on a node that reads the same 256 keys over and over would see one of
// them only: the multiples of the golden ratio fall evenly whatever the period.
func sampled(n uint64) bool { return n*0x9E3779B97F4A7C15>>(64-sampleBits) == 0 }

const (
	// sketchSize keys are counted at once. Every key with more than 1/128 of the
	// reads is among them.
	sketchSize = 128
	// sketchAge is how long one sketch counts; the last two are told.
	sketchAge = int64(time.Minute)
)

// TopKey is one of the keys of a module that are read most.
type TopKey struct {
	// Key is the id as it is spelled in Redis.
	Key string `json:"key"`
	// PerSecond is how often it was read in the last one to two minutes: an
	// estimate from samples, rather too low than too high.
	PerSecond float64 `json:"per_second"`
}

// TopKeys are the at most n keys of a module that this node read most in the last
// one to two minutes, the first the most. A module that is declared in several
// versions is looked at as one; one that is not declared has none.
func (c *Cache) TopKeys(module string, n int) []TopKey {
	reads := map[string]float64{}
	now := c.now()
	for _, m := range c.named(module) {
		m.stats.top.add(reads, now)
	}
	out := make([]TopKey, 0, len(reads))
	for k, r := range reads {
		out = append(out, TopKey{k, r})
	}
	slices.SortFunc(out, func(a, b TopKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Key, b.Key))
	})
	return slices.Clip(out[:min(max(n, 0), len(out))])
}

// sample notes that k was read, for one read in sampleEvery.
func (m *Module[K, V]) sample(k K) {
	var stack [96]byte
	m.core.stats.top.sample(m.spell.append(stack[:0], k), m.core.c.now())
}

// topKeys counts the sampled reads of a module, in two sketches that take turns
// so that the past fades. A reader that finds it busy leaves its sample out.
type topKeys struct {
	mu         sync.Mutex
	young, old sketch
}

func (t *topKeys) sample(id []byte, now int64) {
	if !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	t.turn(now)
	t.young.count(id)
}

func (t *topKeys) turn(now int64) {
	if t.young.at != nil && now-t.young.began < sketchAge {
		return
	}
	t.old = t.young
	if now-t.old.began > 2*sketchAge {
		t.old = sketch{began: now} // nobody read for a while
	}
	t.young = sketch{began: now, at: make(map[string]int, sketchSize)}
}

// add adds each key's reads per second.
func (t *topKeys) add(reads map[string]float64, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.young.at == nil {
		return
	}
	t.turn(now)
	began := t.old.began
	if t.old.at == nil {
		began = t.young.began
	}
	span := max(time.Duration(now-began).Seconds(), 1)
	for _, s := range []*sketch{&t.old, &t.young} {
		for _, k := range s.keys {
			if sure := k.count - k.taken; sure > 0 {
				reads[k.id] += float64(sure) * sampleEvery / span
			}
		}
	}
}

// sketch is "space saving" of Metwally, Agrawal and El Abbadi (2005): a key that
// is not counted yet takes the place, and the count, of the one counted least.
type sketch struct {
	began int64
	keys  []counted
	at    map[string]int // place in keys
}

type counted struct {
	id           string
	count, taken uint64 // taken over from the key before
}

func (s *sketch) count(id []byte) {
	if i, ok := s.at[string(id)]; ok {
		s.keys[i].count++
		return
	}
	k := counted{id: string(id), count: 1}
	if len(s.keys) < sketchSize {
		s.at[k.id] = len(s.keys)
		s.keys = append(s.keys, k)
		return
	}
	least := 0
	for i := range s.keys {
		if s.keys[i].count < s.keys[least].count {
			least = i
		}
	}
	k.taken = s.keys[least].count
	k.count += k.taken
	delete(s.at, s.keys[least].id)
	s.at[k.id], s.keys[least] = least, k
}
