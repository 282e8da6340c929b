package simulation

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// node is one web node: real caches, one life after the other, and its readers.
type node struct {
	w    *world
	id   int
	dice *dice
	now  atomic.Pointer[life]

	mu     sync.Mutex
	hushes []*span // the latest, in which the node heard nothing or not everything yet

	bumps []time.Duration // when it goes on with a new key space
	lost  lost            // off.overtaken
}

type span struct{ from, to time.Duration }

type life struct {
	rdb   *redis.Client
	cache *localsync.Cache
	rows  *localsync.Module[int64, int64]
	space uint16
}

func (n *node) cache() *localsync.Cache { return n.now.Load().cache }

func newNode(w *world, id int) *node {
	n := &node{w: w, id: id, dice: w.dice(diceNode + uint64(id))}
	n.bumps = n.plan()
	return n
}

// live opens the node and restarts it now and then, until the world ends.
func (n *node) live(t *testing.T) {
	n.open(t)
	for i := range n.w.readers {
		d := n.w.dice(diceNode*uint64(2+n.id) + uint64(i))
		n.w.wg.Go(func() { n.readOn(d) })
	}
	n.w.wg.Go(func() {
		for n.w.life.Err() == nil {
			select {
			case <-time.After(min(n.dice.gap(n.w.restarts), untilNext(n.bumps, n.w.now()))):
				n.close()
				n.open(t)
			case <-n.w.life.Done():
			}
		}
		n.close()
	})
}

// close is a kill: it waits for nothing.
func (n *node) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := n.now.Load()
	ignore(l.cache.Close(ctx))
	ignore(l.rdb.Close())
}

func (n *node) open(t *testing.T) {
	rdb := n.w.redis.client(n.dice, n.w.redisPauses, n.id)
	opt := localsync.Options{
		Redis: rdb, Bus: newNodeBus(n), Logger: quiet, MaxBytes: 1 << 20, Prefix: prefix,
		FloorAge: 10 * time.Second, MaxFloors: n.w.maxFloors, ReportEvery: -1, Observer: &watcher{n: n},
		// Most nodes have the bus alone, or hints would hide what it fails to tell.
		NoHints: n.id%4 != 0,
	}
	if n.w.off.watermark {
		opt.ReplicaLag = 1
	}
	if n.w.off.silence {
		opt.Silence = time.Hour
	}
	for {
		c, err := localsync.Open(context.Background(), opt)
		if errors.Is(err, errDown) {
			pass(50 * time.Millisecond)
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		space := spaceAt(n.bumps, n.w.now())
		cfg := localsync.ModuleConfig[int64]{
			Name: module, Version: space, Previous: space - 1, LoadTimeout: n.w.loadTimeout, TTL: time.Minute, Refresh: 5 * time.Second, MaxStale: time.Second,
			Empty: localsync.Window{TTL: 10 * time.Second, Refresh: 3 * time.Second},
		}
		if n.id%2 == 1 {
			cfg.Objects = 100
		}
		if n.id%8 == 6 {
			cfg.OnError = localsync.Optional
		}
		m, err := localsync.NewModule(c, cfg, localsync.Codec[int64](codec{}), n.load)
		if err != nil {
			t.Error(err)
			return
		}
		n.now.Store(&life{rdb, c, m, space})
		n.w.trace.note(everyKey, "opens key space "+itoa(int(space)), n.id, 0, 0)
		return
	}
}

// load is the application's own way to the database.
func (n *node) load(_ context.Context, ids []int64) (map[int64]int64, error) {
	lag := time.Duration(0)
	if n.dice.chance(n.w.replicaReads) {
		lag = n.dice.upTo(n.w.replicaLag)
	}
	began := n.w.now()
	if n.w.off.before {
		return n.foreknown(ids, lag), nil
	}
	rows := n.w.db.read(ids, lag)
	for _, id := range ids {
		n.w.trace.note(int(id), "reads the database", n.id, int(rows[id]), 0)
	}
	pass(n.loadTime())
	if n.dice.chance(n.w.loadErrors) {
		return nil, errors.New("the database is tired")
	}
	if n.w.off.overtaken {
		n.lost.keep(n, began, ids, rows)
	}
	if n.w.off.fills {
		n.fillAnyway(ids, rows)
	}
	return rows, nil
}

// loadTime is how long a load takes.
func (n *node) loadTime() time.Duration {
	took := n.dice.upTo(n.w.loadTime)
	if n.dice.chance(n.w.slowLoads) {
		took += n.dice.upTo(n.w.slowLoadTime)
	}
	return took
}

// fillAnyway is what a loader must not do: it brings back keys that were evicted.
func (n *node) fillAnyway(ids []int64, rows map[int64]int64) {
	n.w.redis.mu.Lock()
	defer n.w.redis.mu.Unlock()
	for _, id := range ids {
		key := n.w.key(int(id))
		if _, there := n.w.redis.get(key.Redis(prefix)); there || rows[id] == 0 {
			continue
		}
		e := rowtide.Entry{Key: key, Version: 1, Flags: rowtide.FlagFill, BuiltAt: time.Now(), TTL: time.Minute, Payload: payloadOf(id, rows[id])}
		n.w.redis.set(key.Redis(prefix), string(e.AppendEnvelope(nil)), e.TTL)
	}
}

// readOn is a reader: pages of several keys, and single ones whose answers are
// checked.
func (n *node) readOn(d *dice) {
	for n.w.life.Err() == nil {
		pass(d.gap(n.w.readEvery))
		l := n.now.Load()
		ids := make([]int64, n.w.readKeys)
		for i := range ids {
			ids[i] = int64(d.n(n.w.keys))
		}
		if d.chance(0.9) {
			_, err := l.rows.GetMany(n.w.life, ids)
			ignore(err)
			continue
		}
		for _, id := range ids[:3] {
			since := n.w.now()
			seq, info, err := l.rows.Lookup(n.w.life, id)
			if err == nil || errors.Is(err, localsync.ErrNotFound) {
				n.w.audit.read(n, int(id), int(seq), info, since)
			}
		}
	}
}

// hushed reports whether the node heard nothing at some time in [from, to].
func (n *node) hushed(from, to time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hushes {
		if h.from <= to && from <= h.to {
			return true
		}
	}
	return false
}

// watcher writes what the node hears into the trace.
type watcher struct {
	localsync.NopObserver
	n         *node
	forgotten []*atomic.Uint64 // off.forgotten
}

// Opened implements localsync.Observer.
func (o *watcher) Opened(c *localsync.Cache) {
	if o.n.w.off.forgotten {
		o.forgotten = forgetful(c)
	}
}

func (o *watcher) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) {
	for _, f := range o.forgotten {
		f.Store(0)
	}
	if id, err := strconv.Atoi(inv.Key.ID); err == nil {
		o.n.w.trace.note(id, "hears", o.n.id, 0, inv.Version)
	}
}

// Hinted implements localsync.Observer.
func (o *watcher) Hinted(inv rowtide.Invalidation) {
	if id, err := strconv.Atoi(inv.Key.ID); err == nil {
		o.n.w.trace.note(id, "has a hint", o.n.id, 0, inv.Version)
	}
}

// Suspect implements localsync.Observer.
func (o *watcher) Suspect(part int32, _ error) { o.n.lost.at(o.n, part) }

// codec is that of the daemon's documents, by hand for speed.
type codec struct{}

func payloadOf(id, seq int64) []byte {
	b := strconv.AppendInt([]byte(`{"id":`), id, 10)
	b = strconv.AppendInt(append(b, `,"seq":`...), seq, 10)
	return append(b, '}')
}

// Append implements localsync.Codec. The id is not needed.
func (codec) Append(dst []byte, seq int64) ([]byte, error) {
	return append(dst, payloadOf(0, seq)...), nil
}

// Decode implements localsync.Codec.
func (codec) Decode(b []byte) (int64, error) {
	_, tail, ok := bytes.Cut(b, []byte(`"seq":`))
	if !ok {
		return 0, errors.New("not a row")
	}
	return strconv.ParseInt(string(bytes.TrimSuffix(tail, []byte("}"))), 10, 64)
}

// seqIn is the value in a payload, 0 when there is none.
func seqIn[T string | []byte](payload T) int {
	seq, err := codec{}.Decode([]byte(payload))
	if err != nil {
		return 0
	}
	return int(seq)
}
