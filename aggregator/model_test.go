package aggregator_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// model is what a table with a primary key and a unique column holds, and what
// a module keyed by the unique column must show of it.
type model struct {
	rows   map[int64][]rowtide.Value // by primary key
	byCode map[int64]int64           // code → primary key
	want   map[string]string         // module's id → payload, "" EMPTY
}

var codeTable = &rowtide.Table{Schema: "shop", Name: "coupon", Columns: []string{"id", "code", "n"}, PrimaryKey: []int{0}}

func (m *model) put(r []rowtide.Value) {
	id, code := r[0].(int64), r[1].(int64)
	m.rows[id], m.byCode[code] = r, id
	m.want[fmt.Sprint(code)] = fmt.Sprintf(`{"id":%d,"code":%d,"n":%d}`, id, code, r[2])
}

func (m *model) drop(r []rowtide.Value) {
	delete(m.rows, r[0].(int64))
	delete(m.byCode, r[1].(int64))
	m.want[fmt.Sprint(r[1])] = ""
}

// change draws one row change that the table's two unique keys allow.
func (m *model) change(t *rapid.T, n int) (rowtide.Change, bool) {
	const space = 6 // few keys, so that changes meet
	id, code := rapid.Int64Range(1, space).Draw(t, "id"), rapid.Int64Range(1, space).Draw(t, "code")
	old, there := m.rows[id]
	_, taken := m.byCode[code]
	switch op := rapid.IntRange(1, 4).Draw(t, "op"); {
	case !there && taken:
		return rowtide.Change{}, false
	case !there:
		r := row(id, code, n)
		m.put(r)
		return ins(codeTable, r...), true
	case op == 1:
		m.drop(old)
		return del(codeTable, old...), true
	case op == 2 && !taken: // the key moves
		r := row(id, code, n)
		m.drop(old)
		m.put(r)
		return upd(codeTable, old, r), true
	default:
		r := row(id, old[1], n)
		m.put(r)
		return upd(codeTable, old, r), true
	}
}

// Whatever the transactions and wherever the boundaries between flushes fall,
// Redis ends as the table is, no key's version ever steps back, and a replay
// from any saved position changes nothing.
func TestAggregator_EndsAsTheTableIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{rows: map[int64][]rowtide.Value{}, byCode: map[int64]int64{}, want: map[string]string{}}
		var txs []*rowtide.Tx
		n := 0
		for i := range rapid.IntRange(1, 25).Draw(rt, "transactions") {
			var changes []rowtide.Change
			for range rapid.IntRange(0, 5).Draw(rt, "changes") {
				n++
				if c, ok := m.change(rt, n); ok {
					changes = append(changes, c)
				}
			}
			txs = append(txs, tx(i+1, changes...))
		}
		w := newWorld()
		pass := rapid.SliceOfN(rapid.Bool(), len(txs), len(txs)).Draw(rt, "flush after")
		play(t, rt, w, txs, pass)
		m.check(rt, w, len(txs))
		// The crash: everything from some transaction on is read again.
		from := rapid.IntRange(0, len(txs)-1).Draw(rt, "replay from")
		w.seen = map[rowtide.Key]rowtide.Version{}
		play(t, rt, w, txs[from:], pass[from:])
		m.check(rt, w, len(txs))
	})
}

// play runs an aggregator over txs and lets a flush through where pass says so.
func play(t *testing.T, rt *rapid.T, w *world, txs []*rowtide.Tx, pass []bool) {
	g := newGate("overwrite")
	w.before = g.before
	mods, err := aggregator.Compile([]aggregator.ModuleConfig{{Name: "coupon", Key: "{code}", From: &aggregator.FromConfig{Table: "shop.coupon"}}})
	if err != nil {
		rt.Fatal(err)
	}
	agg := aggregator.New(aggregator.Config{}.WithDefaults(), mods, aggregator.Outside{Sink: w, Checkpoint: w, DB: nil}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- agg.Run(ctx) }()
	for i, x := range txs {
		if err := agg.HandleTx(ctx, x); err != nil {
			rt.Fatal(err)
		}
		if pass[i] {
			select {
			case g.open <- struct{}{}:
			default: // no flush stands at the gate
			}
		}
	}
	agg.CloseIntake()
	close(g.open)
	if err := <-done; err != nil {
		rt.Fatal(err)
	}
}

func (m *model) check(rt *rapid.T, w *world, txs int) {
	if len(w.went) > 0 {
		rt.Fatalf("versions went back: %v", w.went)
	}
	if len(w.redis) != len(m.want) {
		rt.Fatalf("redis holds %d keys, want %d", len(w.redis), len(m.want))
	}
	for id, want := range m.want {
		e := w.redis[rowtide.Key{Module: "coupon", Version: 1, ID: id}]
		if string(e.Payload) != want || e.Empty() != (want == "") {
			rt.Fatalf("key %s holds %s (flags %b), want %q", id, e.Payload, e.Flags, want)
		}
	}
	saves := w.of("save")
	if len(saves) == 0 || saves[len(saves)-1].last != posOf(txs) {
		rt.Fatalf("last save %+v, want %s", saves, posOf(txs))
	}
}
