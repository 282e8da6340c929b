package simulation

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide"
)

// module is the only one there is: rows of one table under their id.
const (
	module = "row"
	prefix = "rowtide"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// world is one simulation: everything in it lives in one synctest bubble, whose
// clock moves only when all wait.
type world struct {
	rates
	seed  uint64
	off   off
	start time.Time

	db     *database
	redis  *memRedis
	topic  *topic
	nodes  []*node
	zombie *zombie
	audit  *audit
	trace  *trace

	control control
	bumps   []time.Duration // when the daemon goes on with a new key space
	space   atomic.Uint32   // the daemon's

	remembered int           // the daemon's newest checkpoint, whatever Redis lost
	deposed    atomic.Uint64 // the term before that of the daemon at work

	life context.Context
	wg   sync.WaitGroup
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	if d > 0 {
		time.Sleep(d) //nolint:forbidigo // a bubble's clock is virtual
	}
}

func (w *world) now() time.Duration { return time.Since(w.start) }

// dice is one actor's own stream of the seed: what one actor draws does not shift
// what the others do.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (w *world) dice(actor uint64) *dice { return &dice{r: rand.New(rand.NewPCG(w.seed, actor))} }

func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Float64() < p
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// upTo never gives zero, so that no two things happen at one instant; unless that
// is the most.
func (d *dice) upTo(most time.Duration) time.Duration {
	if most == 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return 1 + time.Duration(d.r.Int64N(int64(most)))
}

func (d *dice) between(span [2]time.Duration) time.Duration {
	return span[0] + d.upTo(span[1]-span[0])
}

func (d *dice) gap(mean time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return 1 + time.Duration(d.r.ExpFloat64()*float64(mean))
}

// The actors with a stream of their own; nodes follow.
const (
	diceWriter = iota + 1
	diceDaemon
	diceZombie
	diceRedis
	diceKafka
	diceBumps
	diceNode = 1000
)

// simulate runs a world until so many copies were audited.
func simulate(t *testing.T, seed uint64, r rates, o off, copies int) *audit {
	t.Helper()
	var a *audit
	synctest.Test(t, func(t *testing.T) {
		w := &world{rates: r, seed: seed, off: o, start: time.Now()}
		a = w.run(t, copies)
	})
	return a
}

func (w *world) run(t *testing.T, copies int) *audit {
	var stop context.CancelFunc
	w.life, stop = context.WithCancel(t.Context())
	w.trace = newTrace(w)
	w.plan()
	w.db = newDatabase(w)
	w.redis = newMemRedis(w)
	w.deposed.Store(1) // there is one from the first moment on
	w.redis.data[termKey] = cell{value: "1"}
	w.topic = newTopic(w)
	w.audit = newAudit(w)
	w.zombie = newZombie(w)
	w.db.fill()
	w.wg.Go(w.runDaemon)
	for i := range w.fleet {
		n := newNode(w, i)
		w.nodes = append(w.nodes, n)
		n.live(t)
	}
	w.wg.Go(w.redis.run)
	w.wg.Go(w.audit.run)

	d := w.dice(diceWriter)
	mass := d.gap(w.massEvery)
	for w.audit.copies() < copies {
		pass(d.gap(w.commitEvery))
		w.commit(d)
		if w.now() > mass {
			mass = w.now() + d.gap(w.massEvery)
			w.audit.expect(w.db.massCommit(d))
		}
	}
	pass(horizons[len(horizons)-1] + time.Second) // the last commits' audits
	w.audit.virtual = w.now()
	stop()
	w.wg.Wait()
	w.redis.channels.Close()
	pass(time.Minute) // loads and sends that nobody waited for
	return w.audit
}

func (w *world) commit(d *dice) {
	n := 1
	if d.chance(w.severalKeys) {
		n += 1 + d.n(2)
	}
	ids := make([]int, 0, n)
	for range n {
		among := w.keys
		if d.chance(w.hotKeys) {
			among = 10
		}
		ids = append(ids, d.n(among))
	}
	e := w.db.commit(ids, d)
	w.audit.expect(e)
	if d.chance(w.zombies) {
		w.zombie.later(e, d.between(w.zombieBy))
	}
}

func keyOf(id int) rowtide.Key { return keys[id] }

// keyIn is a row's key in a key space.
func keyIn(id int, space uint16) rowtide.Key {
	k := keys[id]
	k.Version = space
	return k
}

// key is a row's key in the daemon's key space.
func (w *world) key(id int) rowtide.Key { return keyIn(id, uint16(w.space.Load())) }

var keys = func() []rowtide.Key {
	out := make([]rowtide.Key, 10_000)
	for i := range out {
		out[i] = rowtide.Key{Module: module, Version: 1, ID: itoa(i)}
	}
	return out
}()
