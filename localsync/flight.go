package localsync

import (
	"context"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// flight is one read of one key through Redis and the loader, shared by all
// readers that miss meanwhile. Its context is its own: no reader's giving up
// fails the others (race R26).
type flight struct {
	job
	want    rowtide.Version
	refresh bool // nobody waits; a resident value is being served

	done chan struct{}
	res  result // valid once done is closed

	// Of the present attempt, by the flight's goroutine only.
	floor    rowtide.Version // when the attempt began
	resident rowtide.Version // when the attempt began
	reread   bool            // Redis was behind once already
	behind   *rowtide.Entry  // Redis's value that was too old, as a last resort
	unread   bool            // Redis did not answer
	seen     []byte          // the envelope's header in Redis, if any

	// Of the lease, see leases.
	token   string    // of the one held
	waiters string    // who is to be told of its end
	shared  bool      // Redis has been given the result
	alone   bool      // waited long enough
	giveUp  time.Time // when to load alone
}

// need is the oldest version that this read may bring.
func (f *flight) need() rowtide.Version { return max(f.floor, f.resident, f.want) }

// attempt is one pass of a flight through Redis and the loader.
type attempt struct {
	began int64
	// watermark is what loaded values may claim at most, see claim. It is taken before
	// anything is read: a version read after the value would claim too much (race R17).
	watermark rowtide.Version
	// generation, like watermark, is as of before the reading.
	generation uint32
	last       bool
}

// claim is the version that a value loaded for f may bear. It is none while a replica
// that lags may not have what this node was told of no key by key: what a gap hid, or
// a mass change, or what changed while the daemon wrote another key space (races R3,
// R7, R19, R25).
func (m *core) claim(a *attempt, f *flight) rowtide.Version {
	if m.blind(a, f) {
		return 0
	}
	return a.watermark
}

func (m *core) blind(a *attempt, f *flight) bool {
	p := &m.c.parts[f.part]
	at := max(p.suspectBefore.Load(), m.live.turnedAt.Load(), m.live.announcedAt)
	if a.watermark > 0 { // of another partition: this one's first record came late
		at = max(at, p.firstBefore.Load())
	}
	return at != never && a.began <= at+int64(m.c.opt.ReplicaLag)
}

// doubt is the instant up to which all that was verified may have missed a change.
func (m *core) doubt(part uint16) int64 {
	return max(m.c.parts[part].doubt(), m.live.turnedAt.Load())
}

// dubious reports whether some node loaded what Redis holds at about the time that records
// were missed here. Redis may have evicted the very change that they told of, and a node
// that had not heard of it either, this one perhaps, filled the empty place with what was
// before (races R6, R7). No such load is from longer before the loss than a loss goes
// unnoticed and a write to Redis takes. Its date is another node's clock's: nodes whose
// clocks differ by seconds have that much less of this protection.
func (m *core) dubious(part uint16, e *rowtide.Entry) bool {
	lost := m.c.parts[part].suspectBefore.Load()
	if lost == never || e.Flags&rowtide.FlagFill == 0 {
		return false
	}
	built, opt := int64(e.BuiltAt.Sub(m.c.clock.start)), &m.c.opt
	return built > lost-int64(opt.Silence+opt.RedisTimeout) && built <= lost+int64(opt.ReplicaLag)
}

// maxAttempts bounds how often a flight starts over because a change came in
// between. Each start over needs another change of the same key within one load.
const maxAttempts = 3

// join joins the flights that are under way for the jobs at idx and starts one
// goroutine for all the others. wants and the results are aligned with idx; mine says
// which were started here.
func (m *core) join(ctx context.Context, jobs []job, idx []int, wants []rowtide.Version) (fs []*flight, mine []bool) {
	fs, mine = make([]*flight, len(idx)), make([]bool, len(idx))
	var started []*flight
	m.mu.Lock()
	for i, at := range idx {
		j := &jobs[at]
		if f, ok := m.flights[j.name]; ok && (f.force || !j.force) {
			fs[i] = f
			continue
		}
		f := &flight{job: *j, want: wants[i], done: make(chan struct{})}
		m.flights[j.name] = f
		fs[i], mine[i] = f, true
		started = append(started, f)
	}
	m.mu.Unlock()
	if len(started) > 0 {
		m.launch(ctx, started)
	}
	return fs, mine
}

// renew refreshes resident entries behind their readers; keys that are in flight
// already are left to those flights.
func (m *core) renew(ctx context.Context, jobs []job) {
	var started []*flight
	m.mu.Lock()
	for i := range jobs {
		if _, ok := m.flights[jobs[i].name]; ok {
			continue
		}
		f := &flight{job: jobs[i], refresh: true, done: make(chan struct{})}
		m.flights[f.name] = f
		started = append(started, f)
	}
	m.mu.Unlock()
	if len(started) > 0 {
		m.stats.refreshes.Add(uint64(len(started)))
		m.launch(ctx, started)
	}
}

func (m *core) launch(ctx context.Context, fs []*flight) {
	// The reader's values (a trace, say) come along, its end does not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.policy.timeout)
	stop := context.AfterFunc(m.c.life, cancel)
	started := m.c.spawn(func() {
		defer cancel()
		defer stop()
		m.fly(ctx, fs, 1)
	})
	if !started {
		stop()
		cancel()
		for _, f := range fs {
			m.land(f, result{err: ErrClosed})
		}
	}
}

// fly runs flights to their ends, starting with attempt n. Keys that are settled
// early do not wait for the rest.
func (m *core) fly(ctx context.Context, fs []*flight, n int) {
	for ; len(fs) > 0; n++ {
		a := &attempt{began: m.c.now(), last: n >= maxAttempts}
		a.watermark = m.c.marks.at(a.began)
		a.generation = m.live.generation.Load()
		for _, f := range fs {
			f.floor, f.resident = m.c.store.standing(f.hash, a.began)
			f.unread, f.seen, f.shared = false, nil, false
		}
		rest, again := m.readRedis(ctx, a, fs)
		rest, moved, held := m.lease(ctx, a, rest)
		var aside sync.WaitGroup
		defer aside.Wait()                       // ctx ends with the caller
		again, now := append(again, moved...), n // n goes on while others look at it
		if held != nil {
			aside.Go(func() { m.standBy(ctx, a, held, now) })
		}
		if len(rest) > 0 && len(again) > 0 {
			// Another look at Redis is quick: it does not wait for the loader.
			over := again
			aside.Go(func() { m.fly(ctx, over, now+1) })
			again = nil
		}
		again = append(again, m.readLoader(ctx, a, rest)...)
		fs = again
	}
}

// land ends a flight. It leaves the table first: a reader that comes later reads
// what was kept, or starts anew.
func (m *core) land(f *flight, r result) {
	m.mu.Lock()
	if m.flights[f.name] == f {
		delete(m.flights, f.name)
	}
	m.mu.Unlock()
	f.res = r
	close(f.done)
}

// settle keeps an entry and lands its flight. It returns false when the store
// refused it because of something newer and the flight should start over.
func (m *core) settle(a *attempt, f *flight, level Level, e rowtide.Entry) bool {
	overtaken := m.overtaken(a, f)
	if overtaken && !a.last {
		return false
	}
	w := m.rules().window(e.Empty())
	if e.Version == 0 {
		// No watermark yet: a second look as soon as there can be one (race R3).
		w.Refresh = min(w.Refresh, m.c.opt.ReplicaLag)
	}
	refusal := m.c.store.keep(&candidate{
		slot: f.slot, entry: e, began: a.began, soft: w.Refresh, hard: w.TTL, loaded: level == LevelLoader,
		turnedAt: m.live.turnedAt.Load(), mends: f.force,
	}, m.c.now())
	r := result{
		payload: e.Payload, version: e.Version, verified: a.began, level: level, empty: e.Empty(),
		stale: overtaken || e.Version == 0, degraded: m.silent(f.part, m.c.now()),
	}
	switch refusal {
	case RefusedFloor, RefusedOlder, RefusedForgotten:
		m.refused(refusal)
		if !a.last {
			return false
		}
		r.stale = true
	case RefusedSize:
		m.refused(refusal)
	}
	m.land(f, r)
	return true
}

func (m *core) refused(r Refusal) {
	m.stats.refused.Add(1)
	m.c.opt.Observer.Refused(m.policy.name, r)
}
