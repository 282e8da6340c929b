package simulation

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

// scene is one node and the daemon's two steps of a commit.
type scene struct {
	w     *world
	node  *node
	count *counts
	rows  [2]*localsync.Module[int64, int64] // without and with objects
	sink  localsync.Sink
	ready chan struct{}
	tick  atomic.Int64
	turn  chan struct{} // the daemon's: a log has one order

	sequence []uint64
	newest   rowtide.Version
	table    sync.Map // id → seq
	dice     *dice
}

func newScene(t *testing.T, w *world, n *counts) *scene {
	s := &scene{w: w, count: n, ready: make(chan struct{}), turn: make(chan struct{}, 1), sequence: make([]uint64, w.partitions)}
	w.life = t.Context()
	w.trace, w.redis, w.topic = newTrace(w), newMemRedis(w), newTopic(w)
	s.node = newNode(w, 0)
	s.dice = w.dice(diceWriter)
	rdb := w.redis.client(s.node.dice, 0, 0)
	c, err := localsync.Open(t.Context(), localsync.Options{
		Redis: rdb, Bus: s, Logger: quiet, MaxBytes: 1 << 20, Prefix: prefix, ReplicaLag: time.Millisecond, ReportEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, cfg := range []localsync.ModuleConfig[int64]{{Name: module}, {Name: typedModule, Objects: 2}} {
		cfg.Refresh, cfg.TTL = 2*time.Millisecond, time.Second
		if s.rows[i], err = localsync.NewModule(c, cfg, localsync.Codec[int64](codec{}), s.load); err != nil {
			t.Fatal(err)
		}
	}
	s.node.now.Store(&life{rdb, c, s.rows[0], 1})
	<-s.ready
	return s
}

// typedModule is that of every second history.
const typedModule = "typed"

func (s *scene) module(id int) *localsync.Module[int64, int64] { return s.rows[id/2%2] }

func (s *scene) key(id int) rowtide.Key { return s.module(id).Key(int64(id)) }

// Open, Run and Close implement localsync.Bus; the clients deliver by themselves.
func (s *scene) Open(context.Context) (int32, error) { return s.w.partitions, nil }

func (s *scene) Run(ctx context.Context, sink localsync.Sink) error {
	s.sink = sink
	close(s.ready)
	<-ctx.Done()
	return nil
}

func (*scene) Close() error { return nil }

func (s *scene) load(_ context.Context, ids []int64) (map[int64]int64, error) {
	out := map[int64]int64{}
	for _, id := range ids {
		if v, ok := s.table.Load(id); ok && v.(int) > 0 {
			out[id] = int64(v.(int))
		}
	}
	for _, id := range ids {
		s.w.trace.note(int(id), "loads", 0, int(out[id]), 0)
	}
	if s.dice.chance(0.25) {
		pass(s.dice.upTo(4 * time.Millisecond))
	}
	if s.dice.chance(0.1) {
		return nil, errors.New("the database is tired")
	}
	return out, nil
}

// play runs the histories, some at a time.
func (s *scene) play() [][]porcupine.Operation {
	for part := range s.w.partitions { // from here on a missing record shows
		b := rowtide.Batch{Producer: 1 << 40, Watermark: 1, SentAt: time.Now()}
		s.sink.Record(part, b.AppendBatch(nil))
	}
	s.commit(0, 1) // a watermark
	pass(10 * time.Millisecond)
	all := make([][]porcupine.Operation, perNode)
	for h := range all {
		var mu sync.Mutex
		var g sync.WaitGroup
		rounds := operations
		if h%longEvery == 0 {
			rounds = longOperations
		}
		for c := range clients {
			d := s.w.dice(uint64(diceNode + h*clients + c))
			g.Go(func() {
				for range rounds {
					pass(d.upTo(3 * time.Millisecond))
					ops := s.operation(d, 2*h+d.n(2), c)
					mu.Lock()
					all[h] = append(all[h], ops...)
					mu.Unlock()
				}
			})
		}
		g.Wait()
	}
	s.node.close()
	s.w.redis.channels.Close()
	pass(time.Minute)
	return all
}

// operation does one thing, and is what it says about registers.
func (s *scene) operation(d *dice, id, client int) []porcupine.Operation {
	call := s.tick.Add(1)
	done := func(in, out step) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: s.tick.Add(1)}
	}
	ctx := s.w.life
	switch dart := d.n(100); {
	case dart < 25:
		seq := s.commit(id, d.n(100))
		return []porcupine.Operation{done(step{id: id, write: true, seq: seq}, step{seq: seq})}
	case dart < 35:
		return s.page(id, done)
	case dart < 42:
		s.w.redis.mu.Lock()
		delete(s.w.redis.data, s.key(id).Redis(prefix))
		s.w.redis.mu.Unlock()
		return nil
	case dart < 52:
		ctx = localsync.AtLeast(ctx, s.node.cache().Floor(s.key(id)))
	}
	seq, info, err := s.module(id).Lookup(ctx, int64(id))
	if err != nil && !errors.Is(err, localsync.ErrNotFound) {
		s.count.failed.Add(1)
		return nil
	}
	s.w.trace.note(id, "client "+itoa(client)+" is given from "+info.Level.String(), -1, int(seq), info.Version)
	out := step{seq: int(seq), stale: info.Stale || info.Degraded}
	if info.Degraded {
		s.count.degraded.Add(1)
	}
	if out.stale {
		s.count.marked.Add(1)
	} else {
		s.count.plain.Add(1)
		s.count.levels[info.Level].Add(1)
	}
	return []porcupine.Operation{done(step{id: id}, out)}
}

// page reads both keys of a history at once, which is a read of each. What they are
// worth GetMany does not tell; but if nobody's read was counted as stale meanwhile,
// then neither of these was.
func (s *scene) page(id int, done func(in, out step) porcupine.Operation) (ops []porcupine.Operation) {
	before := s.stale()
	values, err := s.module(id).GetMany(s.w.life, []int64{int64(id), int64(id ^ 1)})
	marked := s.stale() > before
	var failed map[int64]error
	if partial, ok := errors.AsType[*localsync.PartialError[int64]](err); ok {
		failed = partial.Failed
	} else if err != nil {
		s.count.failed.Add(2)
		return nil
	}
	for _, id := range []int{id, id ^ 1} {
		if failed[int64(id)] != nil {
			s.count.failed.Add(1)
			continue
		}
		if marked {
			s.count.marked.Add(1)
		} else {
			s.count.plain.Add(1)
			s.count.pages.Add(1)
		}
		s.w.trace.note(id, "a page is given", -1, int(values[int64(id)]), 0)
		ops = append(ops, done(step{id: id}, step{seq: int(values[int64(id)]), stale: marked}))
	}
	return ops
}

// stale is how many reads were marked so far: none is Degraded only, see counts.
func (s *scene) stale() (n uint64) {
	for _, m := range s.node.cache().Stats().Modules {
		n += m.Stale
	}
	return n
}

// commit is a transaction from the database to the node. The record is lost now and
// then, and a heartbeat shows it.
func (s *scene) commit(id, dart int) (seq int) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.newest++
	v, key := s.newest, s.key(id)
	seq = int(v)
	e := rowtide.Entry{Key: key, Version: v, BuiltAt: time.Now(), TTL: time.Hour}
	if dart < 15 {
		seq, e.Flags = 0, rowtide.FlagEmpty|rowtide.FlagDeleted
	} else {
		e.Payload = payloadOf(int64(id), int64(seq))
	}
	s.table.Store(int64(id), seq)
	s.w.trace.note(id, "commit", -1, seq, v)
	pass(s.dice.upTo(300 * time.Microsecond))
	s.w.redis.mu.Lock()
	s.w.redis.overwrite(overwrite.CDC, key.Redis(prefix), string(e.AppendEnvelope(nil)), e.TTL)
	s.w.redis.mu.Unlock()
	pass(s.dice.upTo(300 * time.Microsecond))

	part := key.Partition(s.w.partitions)
	s.sequence[part]++
	b := rowtide.Batch{Producer: 1 << 40, Sequence: s.sequence[part], Watermark: v, SentAt: time.Now(), Items: []rowtide.Invalidation{{Key: key, Version: v, Empty: e.Empty()}}}
	if s.w.off.floors {
		(&nodeBus{n: s.node}).strip(&b)
	}
	record := b.AppendBatch(nil)
	s.w.trace.note(id, "hears", 0, dart, v)
	switch {
	case dart > 95: // lost
		b.Items = nil
		record = b.AppendBatch(nil)
	case dart > 90:
		s.sink.Record(part, record)
	}
	s.sink.Record(part, record)
	return seq
}
