package simulation

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// horizons are how long after a commit its copies are looked at.
var horizons = []time.Duration{time.Second, 5 * time.Second}

// audit looks at every copy of every changed key, at each horizon.
type audit struct {
	w *world

	mu      sync.Mutex
	queues  [][]*event // by horizon, oldest first
	wake    chan struct{}
	at      []tally
	reads   tally
	commits int
	stale   []string // the first few, with their stories
	virtual time.Duration
}

// tally counts copies.
type tally struct {
	redis, local           int // looked at
	staleRedis, staleLocal int
	marked                 int // and a read of it would say that it is stale, or go further
	absent                 int
	// Of a node that heard nothing at some time since the commit, which it knows
	// and says only after Options.Silence; not part of the above.
	hushed, staleHushed int
}

func (t *tally) copies() int      { return t.redis + t.local }
func (t *tally) staleCopies() int { return t.staleRedis + t.staleLocal }

func newAudit(w *world) *audit {
	return &audit{w: w, queues: make([][]*event, len(horizons)), at: make([]tally, len(horizons)), wake: make(chan struct{}, 1)}
}

// copies is how many were looked at, at the horizon that has the fewest.
func (a *audit) copies() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.at[0].copies()
	for i := range a.at {
		n = min(n, a.at[i].copies())
	}
	return n
}

func (a *audit) staleCopies() int {
	n := a.reads.staleLocal
	for i := range a.at {
		n += a.at[i].staleCopies()
	}
	return n
}

func (a *audit) expect(e *event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.commits++
	for i := range a.queues {
		a.queues[i] = append(a.queues[i], e)
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run audits what is due, until the world ends.
func (a *audit) run() {
	for {
		next := a.due()
		select {
		case <-time.After(next):
		case <-a.wake:
		case <-a.w.life.Done():
			return
		}
		for i, h := range horizons {
			a.look(i, h)
		}
	}
}

// due is how long until the next audit.
func (a *audit) due() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := time.Hour
	for i, h := range horizons {
		if q := a.queues[i]; len(q) > 0 {
			next = min(next, q[0].visible+h-a.w.now())
		}
	}
	return max(next, 1)
}

func (a *audit) look(i int, horizon time.Duration) {
	for {
		a.mu.Lock()
		q := a.queues[i]
		if len(q) == 0 || q[0].visible+horizon > a.w.now() {
			a.mu.Unlock()
			return
		}
		e := q[0]
		a.queues[i] = q[1:]
		a.mu.Unlock()
		for _, id := range e.ids {
			a.lookRedis(&a.at[i], e, id, horizon)
			for _, n := range a.w.nodes {
				a.lookLocal(&a.at[i], e, id, n, horizon)
			}
		}
	}
}

func (a *audit) lookRedis(t *tally, e *event, id int, horizon time.Duration) {
	c, ok := a.w.redis.entry(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !ok {
		t.absent++
		return
	}
	old := a.old(id, e.seq, seqIn(c.Payload))
	if old && c.Generation < a.w.control.generation() { // whoever reads it asks the loader
		t.marked++
		return
	}
	t.redis++
	if old {
		t.staleRedis++
		a.report(fmt.Sprintf("redis holds value %d version %s flags %d", seqIn(c.Payload), c.Version, c.Flags), e, id, horizon)
	}
}

func (a *audit) lookLocal(t *tally, e *event, id int, n *node, horizon time.Duration) {
	l := n.now.Load()
	c, ok := l.cache.Peek(keyIn(id, l.space))
	stale := ok && a.old(id, e.seq, seqIn(c.Payload))
	if stale {
		// What a reader would be told, which Peek does not say.
		if _, info, err := l.rows.Lookup(a.w.life, int64(id)); errors.Is(err, localsync.ErrClosed) || info.Stale || info.Degraded {
			a.mu.Lock()
			t.marked++
			a.mu.Unlock()
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !ok:
		t.absent++
	case horizon < localsync.DefaultSilence && n.hushed(e.at, a.w.now()):
		t.hushed++
		if stale {
			t.staleHushed++
		}
	default:
		t.local++
		if stale {
			t.staleLocal++
			a.report(fmt.Sprintf("node %d holds value %d version %s flags %d", n.id, seqIn(c.Payload), c.Version, c.Flags), e, id, horizon)
		}
	}
}

// read audits what a reader was given: unmarked, it is at most the first horizon
// old.
func (a *audit) read(n *node, id, seq int, info localsync.Info, since time.Duration) {
	want := a.w.db.newestAt(id, since-horizons[0])
	stale := a.old(id, want, seq)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case info.Stale || info.Degraded:
		a.reads.marked++
	case n.hushed(since-horizons[0], since):
		a.reads.hushed++
		if stale {
			a.reads.staleHushed++
		}
	default:
		a.reads.local++
		if stale {
			a.reads.staleLocal++
			a.report(fmt.Sprintf("node %d was given value %d version %s from %s", n.id, seq, info.Version, info.Level), &event{seq: want, at: since}, id, 0)
		}
	}
}

// old reports whether a copy shows a state from before seq. A copy that says "no
// such row" is right if the row was deleted at any time since.
func (a *audit) old(id, seq, has int) bool {
	if has == 0 {
		return !a.w.db.deletedSince(id, seq)
	}
	return has < seq
}

// report keeps the first few stories; mu is held.
func (a *audit) report(what string, e *event, id int, horizon time.Duration) {
	if len(a.stale) < 5 {
		a.stale = append(a.stale, fmt.Sprintf("seed %d: stale at %.6fs, %v after the commit of value %d, key %d: %s%s",
			a.w.seed, a.w.now().Seconds(), horizon, e.seq, id, what, a.w.trace.story(id, e.at-4*time.Second)))
	}
}

// add makes a the sum of both.
func (a *audit) add(b *audit) {
	a.commits += b.commits
	a.virtual += b.virtual
	for i := range a.at {
		a.at[i].add(&b.at[i])
	}
	a.reads.add(&b.reads)
	a.stale = append(a.stale, b.stale...)
}

func (t *tally) add(b *tally) {
	t.redis += b.redis
	t.local += b.local
	t.staleRedis += b.staleRedis
	t.staleLocal += b.staleLocal
	t.marked += b.marked
	t.absent += b.absent
	t.hushed += b.hushed
	t.staleHushed += b.staleHushed
}

// String is the report.
func (a *audit) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d commits in %v of virtual time (%.0f/s)\n", a.commits, a.virtual.Round(time.Second), float64(a.commits)/a.virtual.Seconds())
	for i, h := range horizons {
		t := &a.at[i]
		fmt.Fprintf(&b, "  commit+%v: %s; redis %d of %d, nodes %d of %d; marked %d, absent %d; while a node heard nothing %d of %d\n", h,
			verdict(t.staleCopies(), t.copies()), t.staleRedis, t.redis, t.staleLocal, t.local, t.marked, t.absent, t.staleHushed, t.hushed)
	}
	t := &a.reads
	fmt.Fprintf(&b, "  reads: %s; marked %d; while a node heard nothing %d of %d", verdict(t.staleLocal, t.local), t.marked, t.staleHushed, t.hushed)
	for _, s := range a.stale {
		fmt.Fprintf(&b, "\n%s", s)
	}
	return b.String()
}

// verdict: with none in n, the true rate is below 3/n with 95% certainty.
func verdict(stale, n int) string {
	if stale > 0 {
		return fmt.Sprintf("%d STALE in %d audited copies", stale, n)
	}
	return fmt.Sprintf("0 stale in %d audited copies, 95%% upper bound %.1e", n, 3/float64(max(n, 1)))
}
