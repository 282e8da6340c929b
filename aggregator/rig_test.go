package aggregator_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is one call of a fake, in the order in which they began.
type call struct {
	what    string // overwrite, broadcast, save
	entries []rowtide.Entry
	version rowtide.Version // broadcast: the watermark
	oldest  time.Time
	last    rowtide.Position
	gtids   []string
	faults  []aggregator.Fault
}

// world is everything outside of the aggregator: Redis, Kafka and the
// checkpoint. It behaves like them (set-if-newer) and can be made to block or
// fail at any point.
type world struct {
	// before is asked at the start of every call, with its name and its number
	// (from 1) among calls of that name; it may block.
	before func(ctx context.Context, what string, n int) error

	mu    sync.Mutex
	redis map[rowtide.Key]rowtide.Entry
	calls []call
	count map[string]int
	// went lists keys whose version stepped back between two flushes.
	went []string
	seen map[rowtide.Key]rowtide.Version
}

func newWorld() *world {
	return &world{redis: map[rowtide.Key]rowtide.Entry{}, count: map[string]int{}, seen: map[rowtide.Key]rowtide.Version{}}
}

func (w *world) enter(ctx context.Context, c call) error {
	w.mu.Lock()
	w.count[c.what]++
	n := w.count[c.what]
	w.mu.Unlock()
	if w.before != nil {
		if err := w.before(ctx, c.what, n); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
	return nil
}

// copyEntries: the aggregator may reuse its memory once a flush is through.
func copyEntries(in []rowtide.Entry) []rowtide.Entry {
	out := append([]rowtide.Entry(nil), in...)
	for i := range out {
		out[i].Payload = append([]byte(nil), out[i].Payload...)
	}
	return out
}

func (w *world) Overwrite(ctx context.Context, entries []rowtide.Entry) error {
	entries = copyEntries(entries)
	if err := w.enter(ctx, call{what: "overwrite", entries: entries}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range entries {
		if e.Version < w.seen[e.Key] {
			w.went = append(w.went, fmt.Sprintf("%s from %s back to %s", e.Key, w.seen[e.Key], e.Version))
		}
		w.seen[e.Key] = e.Version
		if old, ok := w.redis[e.Key]; !ok || e.Version >= old.Version {
			w.redis[e.Key] = e
		}
	}
	return nil
}

func (w *world) Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	return w.enter(ctx, call{what: "broadcast", entries: copyEntries(entries), version: watermark, oldest: oldest})
}

func (w *world) Save(ctx context.Context, last rowtide.Position, gtids []string) error {
	return w.enter(ctx, call{what: "save", last: last, gtids: append([]string(nil), gtids...)})
}

func (w *world) SetAside(ctx context.Context, faults []aggregator.Fault) error {
	return w.enter(ctx, call{what: "set aside", faults: slices.Clone(faults)})
}

func (w *world) Raise(ctx context.Context, module string, since rowtide.Version) (uint32, error) {
	if err := w.enter(ctx, call{what: "raise " + module, version: since}); err != nil {
		return 0, err
	}
	return uint32(len(w.of("raise " + module))), nil
}

// done lists the finished calls.
func (w *world) done() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]call(nil), w.calls...)
}

func (w *world) names() []string {
	out := []string{}
	for _, c := range w.done() {
		out = append(out, c.what)
	}
	return out
}

func (w *world) of(what string) []call {
	var out []call
	for _, c := range w.done() {
		if c.what == what {
			out = append(out, c)
		}
	}
	return out
}

func (w *world) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.redis)
}

func (w *world) entry(t *testing.T, k rowtide.Key) rowtide.Entry {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.redis[k]
	if !ok {
		t.Fatalf("redis has no %s", k)
	}
	return e
}

// gate holds calls of one name back, each until it is let through.
type gate struct {
	what string
	open chan struct{}
}

func newGate(what string) *gate { return &gate{what: what, open: make(chan struct{})} }

func (g *gate) before(ctx context.Context, what string, _ int) error {
	if what != g.what {
		return nil
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rig is an aggregator that runs inside a synctest bubble.
type rig struct {
	t     *testing.T
	world *world
	agg   *aggregator.Aggregator
	done  chan error
}

func compile(t testing.TB, configs ...aggregator.ModuleConfig) []*aggregator.Module {
	t.Helper()
	mods, err := aggregator.Compile(configs)
	if err != nil {
		t.Fatal(err)
	}
	return mods
}

func start(t *testing.T, w *world, db aggregator.Querier, maxPending int, configs ...aggregator.ModuleConfig) *rig {
	t.Helper()
	r := newRig(t, w, db, maxPending, configs...)
	r.run()
	return r
}

func newRig(t *testing.T, w *world, db aggregator.Querier, maxPending int, configs ...aggregator.ModuleConfig) *rig {
	t.Helper()
	cfg := aggregator.Config{MaxPending: maxPending}.WithDefaults()
	return &rig{
		t: t, world: w, done: make(chan error, 1),
		agg: aggregator.New(cfg, compile(t, configs...), aggregator.Outside{Sink: w, Checkpoint: w, DB: db, DeadLetters: w, Generations: w}, slog.New(slog.DiscardHandler), aggregator.NopObserver{}),
	}
}

func (r *rig) run() { go func() { r.done <- r.agg.Run(r.t.Context()) }() }

func (r *rig) handle(txs ...*rowtide.Tx) {
	r.t.Helper()
	for _, tx := range txs {
		if err := r.agg.HandleTx(r.t.Context(), tx); err != nil {
			r.t.Fatal(err)
		}
	}
}

// drain closes the intake and waits for Run's end.
func (r *rig) drain() {
	r.t.Helper()
	r.agg.CloseIntake()
	if err := r.end(); err != nil {
		r.t.Fatalf("run: %v", err)
	}
}

// end is what Run ended with. The hour is the bubble's and passes in no time.
func (r *rig) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Hour):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// bubble runs fn where time moves only when everybody waits.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

// The tables of the tests.
var (
	eventTable = &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id", "title", "venue_id"}, PrimaryKey: []int{0}}
	otherTable = &rowtide.Table{Schema: "shop", Name: "unwatched", Columns: []string{"id"}, PrimaryKey: []int{0}}
)

func eventModule() aggregator.ModuleConfig {
	return aggregator.ModuleConfig{
		Name: "event", Key: "{id}", TTL: time.Hour, TTLJitter: -1,
		From: &aggregator.FromConfig{Table: "shop.event", Columns: []string{"title", "id"}},
	}
}

func eventKey(id any) rowtide.Key {
	return rowtide.Key{Module: "event", Version: 1, ID: fmt.Sprint(id)}
}

func ins(t *rowtide.Table, row ...rowtide.Value) rowtide.Change {
	return rowtide.Change{Table: t, Op: rowtide.OpInsert, After: values(row)}
}

func del(t *rowtide.Table, row ...rowtide.Value) rowtide.Change {
	return rowtide.Change{Table: t, Op: rowtide.OpDelete, Before: values(row)}
}

func upd(t *rowtide.Table, before, after []rowtide.Value) rowtide.Change {
	return rowtide.Change{Table: t, Op: rowtide.OpUpdate, Before: values(before), After: values(after)}
}

func row(vals ...rowtide.Value) []rowtide.Value { return values(vals) }

// values turns Go's plain integers, which no column has, into int64.
func values(vals []rowtide.Value) []rowtide.Value {
	out := slices.Clone(vals)
	for i, v := range out {
		if n, ok := v.(int); ok {
			out[i] = int64(n)
		}
	}
	return out
}

var firstCommit = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// tx is the n-th transaction of the log.
func tx(n int, changes ...rowtide.Change) *rowtide.Tx {
	pos := uint64(n) * 100
	v, err := rowtide.NewVersion(1, 1, pos)
	if err != nil {
		panic(err) // only a test with more than 40 million transactions
	}
	return &rowtide.Tx{
		Position: rowtide.Position{File: "binlog.000001", Pos: pos, GTID: fmt.Sprintf("0-1-%d", n)},
		Version:  v, CommittedAt: firstCommit.Add(time.Duration(n) * time.Second), Changes: changes, Bytes: 100,
	}
}

func posOf(n int) rowtide.Position { return tx(n).Position }

// pass lets time go by, and with it everything that waits for it.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // a bubble's clock is virtual
