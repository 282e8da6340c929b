package simulation

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

const (
	histories  = 10_000
	perNode    = 250 // histories on one node, each with two keys of its own
	clients    = 8
	operations = 4 // of each client
)

// step is an operation on one register: a write of seq, or a read that gave it.
type step struct {
	id    int
	write bool
	seq   int
	stale bool
}

// register may give something older only if it says so.
var register = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byID := map[int][]porcupine.Operation{}
		for _, op := range ops {
			id := op.Input.(step).id
			byID[id] = append(byID[id], op)
		}
		var out [][]porcupine.Operation
		for _, one := range byID {
			out = append(out, one)
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		switch s := out.(step); {
		case in.(step).write:
			return true, in.(step).seq
		case s.stale:
			return true, state
		default:
			return s.seq == state.(int), state
		}
	},
	DescribeOperation: func(in, out any) string {
		s := out.(step)
		if in.(step).write {
			return "commit " + itoa(s.seq)
		}
		if s.stale {
			return "read " + itoa(s.seq) + ", marked stale"
		}
		return "read " + itoa(s.seq)
	},
}

// TestLinearizable_OneNodeIsARegister checks random histories of one node: commits,
// reads of all kinds, loads that fail and that take their time, evictions, lost and
// repeated records.
func TestLinearizable_OneNodeIsARegister(t *testing.T) {
	bad := checkHistories(t, *seedFlag, histories, off{})
	t.Logf("%d histories of %d clients, %d not linearizable, seed %d", histories, clients, bad, *seedFlag)
	if bad > 0 {
		t.Errorf("%d of %d histories are not linearizable", bad, histories)
	}
}

func TestLinearizable_FailsWithoutFloors(t *testing.T) {
	bad := checkHistories(t, *seedFlag, histories/10, off{floors: true})
	t.Logf("%d of %d histories are not linearizable", bad, histories/10)
	if bad == 0 {
		t.Error("no history shows that invalidations of absent keys are forgotten")
	}
}

func checkHistories(t *testing.T, seed uint64, n int, o off) (bad int) {
	t.Helper()
	var failed atomic.Int64
	var g sync.WaitGroup
	for from := 0; from < n; from += perNode {
		var all [][]porcupine.Operation
		var stories []string
		synctest.Test(t, func(t *testing.T) {
			r := usual()
			r.keys, r.redisTime, r.partitions = 2*perNode, 200*time.Microsecond, 2
			w := &world{rates: r, seed: seed + uint64(from), off: o, start: time.Now()}
			all = newScene(t, w).play()
			for id := range 2 * perNode {
				stories = append(stories, w.trace.story(id, 0))
			}
		})
		g.Go(func() { // beside the next bubble
			for i, ops := range all {
				if porcupine.CheckOperations(register, ops) {
					continue
				}
				if failed.Add(1) == 1 && o == (off{}) {
					t.Logf("history %d of seed %d:%s", i, seed+uint64(from), describe(ops))
					t.Log(stories[2*i], stories[2*i+1])
				}
			}
		})
	}
	g.Wait()
	return int(failed.Load())
}

func describe(ops []porcupine.Operation) string {
	s := ""
	for _, op := range ops {
		s += "\n  client " + itoa(op.ClientId) + " " + itoa(int(op.Call)) + "-" + itoa(int(op.Return)) + " key " + itoa(op.Input.(step).id) + ": " +
			register.DescribeOperation(op.Input, op.Output)
	}
	return s
}

// scene is one node and the daemon's two steps of a commit.
type scene struct {
	t     *testing.T
	w     *world
	node  *node
	sink  localsync.Sink
	ready chan struct{}
	tick  atomic.Int64
	turn  chan struct{} // the daemon's: a log has one order

	sequence []uint64
	newest   rowtide.Version
	rows     sync.Map // id → seq
	dice     *dice
}

func newScene(t *testing.T, w *world) *scene {
	s := &scene{t: t, w: w, ready: make(chan struct{}), turn: make(chan struct{}, 1), sequence: make([]uint64, w.partitions)}
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
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: module, Refresh: 2 * time.Millisecond, TTL: time.Second}, localsync.Codec[int64](codec{}), s.load)
	if err != nil {
		t.Fatal(err)
	}
	s.node.now.Store(&life{rdb, c, m, 1})
	<-s.ready
	return s
}

// Open, Run and Close implement localsync.Bus; the clients deliver by themselves.
func (s *scene) Open(context.Context) (int32, error) { return int32(s.w.partitions), nil } //nolint:gosec // two

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
		if v, ok := s.rows.Load(id); ok && v.(int) > 0 {
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
	for part := range s.sequence { // from here on a missing record shows
		b := rowtide.Batch{Producer: 1 << 40, Watermark: 1, SentAt: time.Now()}
		s.sink.Record(int32(part), b.AppendBatch(nil)) //nolint:gosec // two
	}
	s.commit(0, 1) // a watermark
	pass(10 * time.Millisecond)
	all := make([][]porcupine.Operation, perNode)
	for h := range all {
		var mu sync.Mutex
		var g sync.WaitGroup
		for c := range clients {
			d := s.w.dice(uint64(diceNode + h*clients + c))
			g.Go(func() {
				for range operations {
					pass(d.upTo(3 * time.Millisecond))
					if op, ok := s.operation(d, 2*h+d.n(2), c); ok {
						mu.Lock()
						all[h] = append(all[h], op)
						mu.Unlock()
					}
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

// operation does one thing; false when it says nothing about a register.
func (s *scene) operation(d *dice, id, client int) (porcupine.Operation, bool) {
	op := porcupine.Operation{ClientId: client, Call: s.tick.Add(1)}
	done := func(in, out step) (porcupine.Operation, bool) {
		op.Input, op.Output, op.Return = in, out, s.tick.Add(1)
		return op, true
	}
	ctx := s.w.life
	switch dart := d.n(100); {
	case dart < 25:
		seq := s.commit(id, d.n(100))
		return done(step{id: id, write: true, seq: seq}, step{seq: seq})
	case dart < 35:
		_, err := s.node.now.Load().rows.GetMany(ctx, []int64{int64(id), int64(id ^ 1)})
		ignore(err)
		return op, false
	case dart < 42:
		s.w.redis.mu.Lock()
		delete(s.w.redis.data, keyOf(id).Redis(prefix))
		s.w.redis.mu.Unlock()
		return op, false
	case dart < 52:
		ctx = localsync.AtLeast(ctx, s.node.cache().Floor(keyOf(id)))
	}
	seq, info, err := s.node.now.Load().rows.Lookup(ctx, int64(id))
	if err != nil && !errors.Is(err, localsync.ErrNotFound) {
		return op, false
	}
	s.w.trace.note(id, "client "+itoa(client)+" is given from "+info.Level.String(), -1, int(seq), info.Version)
	return done(step{id: id}, step{seq: int(seq), stale: info.Stale || info.Degraded})
}

// commit is a transaction from the database to the node. The record is lost now and
// then, and a heartbeat shows it.
func (s *scene) commit(id, dart int) (seq int) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.newest++
	v, key := s.newest, keyOf(id)
	seq = int(v)
	e := rowtide.Entry{Key: key, Version: v, BuiltAt: time.Now(), TTL: time.Hour}
	if dart < 15 {
		seq, e.Flags = 0, rowtide.FlagEmpty|rowtide.FlagDeleted
	} else {
		e.Payload = payloadOf(int64(id), int64(seq))
	}
	s.rows.Store(int64(id), seq)
	s.w.trace.note(id, "commit", -1, seq, v)
	pass(s.dice.upTo(300 * time.Microsecond))
	s.w.redis.mu.Lock()
	s.w.redis.overwrite(overwrite.CDC, key.Redis(prefix), string(e.AppendEnvelope(nil)), e.TTL)
	s.w.redis.mu.Unlock()
	pass(s.dice.upTo(300 * time.Microsecond))

	part := key.Partition(int32(s.w.partitions)) //nolint:gosec // two
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
