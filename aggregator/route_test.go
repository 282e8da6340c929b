package aggregator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

func route(t *testing.T, x *rowtide.Tx, configs ...aggregator.ModuleConfig) []rowtide.Routed {
	t.Helper()
	out, err := aggregator.NewRouter(compile(t, configs...)).Route(x)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// show is a routed change in one line.
func show(all []rowtide.Routed) []string {
	var out []string
	for _, r := range all {
		out = append(out, fmt.Sprintf("%s %s %v %v", r.Key, r.Change.Op, r.Change.Before, r.Change.After))
	}
	return out
}

func checkRouted(t *testing.T, got []rowtide.Routed, want ...string) {
	t.Helper()
	if s := show(got); !slices.Equal(s, want) {
		t.Errorf("routed as\n%s\nwant\n%s", strings.Join(s, "\n"), strings.Join(want, "\n"))
	}
	for _, r := range got {
		if r.Change.Module != r.Key.Module {
			t.Errorf("%s: the change is for module %q", r.Key, r.Change.Module)
		}
	}
}

func TestRouter_ChangeGoesToTheKeyOfEachModule(t *testing.T) {
	got := route(t, tx(1, upd(eventTable, row(1, "old", 9), row(1, "new", 9)), ins(otherTable, 5), ins(sessionTable, 7, 1, "20:00")), eventModule(), pageModule())
	checkRouted(t, got,
		"event/1/1 update [] [1 new 9]", // the key is the same, so the image before says nothing
		"event_page/1/1 insert [] [7 1 20:00]",
	)
}

func TestRouter_RowThatMovesIsTwoChanges(t *testing.T) {
	got := route(t, tx(1, upd(eventTable, row(1, "a", 9), row(2, "a", 9))), eventModule())
	checkRouted(t, got, "event/1/1 delete [1 a 9] []", "event/1/2 insert [] [2 a 9]")
}

func TestRouter_LastChangeOfAKeyInATransactionIsTheOnlyOne(t *testing.T) {
	got := route(t, tx(1,
		ins(eventTable, 1, "a", 9), upd(eventTable, row(1, "a", 9), row(2, "b", 9)), upd(eventTable, row(3, "c", 9), row(1, "c", 9)), del(eventTable, 2, "b", 9),
	), eventModule())
	checkRouted(t, got, "event/1/3 delete [3 c 9] []", "event/1/1 insert [] [1 c 9]", "event/1/2 delete [2 b 9] []")
}

func TestRouter_WatchIgnoresColumnsAndReferencesThatAreNotSet(t *testing.T) {
	got := route(t, tx(1,
		upd(venueTable, row(5, "v", "1"), row(5, "v", "2")), // not a watched column
		ins(sessionTable, 7, nil, "20:00"),
		upd(sessionTable, row(8, nil, "20:00"), row(8, 3, "20:00")),
	), pageModule())
	checkRouted(t, got, "event_page/1/3 update [8 <nil> 20:00] [8 3 20:00]")
}

func TestRouter_LookUpGoesToItsQuestion(t *testing.T) {
	same := func(a, b []rowtide.Routed) bool { return len(a) == 1 && len(b) == 1 && a[0].Key == b[0].Key }
	one := route(t, tx(1, upd(venueTable, row(5, "old", "1"), row(5, "new", "1"))), pageModule())
	if again := route(t, tx(2, upd(venueTable, row(5, "new", "1"), row(5, "newer", "1"))), pageModule()); !same(one, again) {
		t.Errorf("the same question goes to %v and %v", show(one), show(again))
	}
	if other := route(t, tx(3, upd(venueTable, row(6, "old", "1"), row(6, "new", "1"))), pageModule()); same(one, other) {
		t.Errorf("two questions go to %v", show(one))
	}
	// Two look-ups of one table with the same arguments are two questions, either of
	// which may be the only one that a change asks.
	two := pageModule()
	two.Watch = append(two.Watch, aggregator.WatchConfig{Table: "shop.venue", Columns: []string{"phone"}, Keys: "SELECT id FROM shop.event WHERE hotline = :id"})
	got := route(t, tx(4, upd(venueTable, row(5, "old", "1"), row(5, "new", "1")), upd(venueTable, row(5, "new", "1"), row(5, "new", "2"))), two)
	if len(got) != 2 {
		t.Errorf("routed as %v, want both questions", show(got))
	}
}

func TestRouter_TruncateGoesToEachModuleOnce(t *testing.T) {
	got := route(t, tx(1, rowtide.Change{Table: &rowtide.Table{Schema: "shop", Name: "event"}, Op: rowtide.OpTruncate}), eventModule(), pageModule())
	checkRouted(t, got, "event/1/ truncate [] []", "event_page/1/ truncate [] []")
}

func TestRouter_RefusesWhatTheAggregatorRefuses(t *testing.T) {
	r := aggregator.NewRouter(compile(t, eventModule()))
	for name, c := range map[string]rowtide.Change{
		"NULL":  ins(eventTable, nil, "a", 1),
		"empty": ins(eventTable, "", "a", 1),
		"long":  ins(eventTable, strings.Repeat("x", 2000), "a", 1),
		"shape": ins(&rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id"}}, 1),
	} {
		if _, err := r.Route(tx(1, c)); err == nil || !strings.Contains(err.Error(), "binlog.000001:100") {
			t.Errorf("%s: %v, want an error that names the place", name, err)
		}
	}
}

// What is to be set aside reaches an applier whole, which sets it aside.
func TestRouter_FaultToBeSetAsideIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := eventModule()
		m.OnFault = aggregator.OnFaultSetAside
		got := route(t, tx(1, upd(eventTable, row(1, "a", 9), row(nil, "a", 9)), ins(eventTable, 2, "b", 9), ins(eventTable, nil, "c", 9)), m)
		if len(got) != 3 {
			t.Fatalf("routed as %v, want all three", show(got))
		}
		w := newWorld()
		r := start(t, w, nil, 0, m)
		for i, one := range got {
			r.handle(tx(i+1, one.Change))
		}
		r.drain()
		faults := 0
		for _, c := range w.of("set aside") {
			faults += len(c.faults)
		}
		if faults != 2 {
			t.Errorf("%d faults set aside, want 2", faults)
		}
	})
}

// Partitions have no order among each other: a row from before a TRUNCATE that
// comes after it is not of the new generation, which would bring it back.
func TestRouter_RowFromBeforeATruncateIsOfTheOldGeneration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		gone := rowtide.Change{Table: &rowtide.Table{Schema: "shop", Name: "event"}, Op: rowtide.OpTruncate, Module: "event"}
		r.handle(tx(5, gone))
		synctest.Wait()
		r.handle(tx(3, ins(eventTable, 1, "old", 1)), tx(7, ins(eventTable, 2, "new", 1)))
		r.drain()
		if old, next := w.entry(t, eventKey(1)).Generation, w.entry(t, eventKey(2)).Generation; next != old+1 {
			t.Errorf("generation %d before and %d after, want them to differ", old, next)
		}
	})
}

// However the records of two readers mix in the partitions, whatever an applier
// repeats, and wherever flushes end: Redis ends as the table is.
func TestRouter_TwoReadersAndSharedKeysEndAsTheTableIs(t *testing.T) {
	const partitions = 3
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{rows: map[int64][]rowtide.Value{}, byCode: map[int64]int64{}, want: map[string]string{}}
		router := aggregator.NewRouter(compile(t, aggregator.ModuleConfig{Name: "coupon", Key: "{code}", From: &aggregator.FromConfig{Table: "shop.coupon"}}))
		parts := make([][]*rowtide.Tx, partitions)
		n := 0
		for i := range rapid.IntRange(1, 25).Draw(rt, "transactions") {
			var changes []rowtide.Change
			for range rapid.IntRange(0, 5).Draw(rt, "changes") {
				n++
				if c, ok := m.change(rt, n); ok {
					changes = append(changes, c)
				}
			}
			routed, err := router.Route(tx(i+1, changes...))
			if err != nil {
				rt.Fatal(err)
			}
			split := make([][]rowtide.Change, partitions)
			for _, r := range routed {
				p := r.Key.Partition(partitions)
				split[p] = append(split[p], r.Change)
			}
			for p := range split {
				parts[p] = append(parts[p], tx(i+1, split[p]...))
			}
		}
		w := newWorld()
		for _, p := range rapid.Permutation([]int{0, 1, 2}).Draw(rt, "order of partitions") {
			mixed := mix(rt, parts[p], parts[p][rapid.IntRange(0, len(parts[p])-1).Draw(rt, "second from"):])
			play(t, rt, w, mixed, rapid.SliceOfN(rapid.Bool(), len(mixed), len(mixed)).Draw(rt, "flush after"))
		}
		for id, want := range m.want {
			e := w.redis[rowtide.Key{Module: "coupon", Version: 1, ID: id}]
			if string(e.Payload) != want || e.Empty() != (want == "") {
				rt.Fatalf("key %s holds %s (flags %b), want %q", id, e.Payload, e.Flags, want)
			}
		}
	})
}

// mix is both, each in its own order.
func mix(rt *rapid.T, a, b []*rowtide.Tx) []*rowtide.Tx {
	var out []*rowtide.Tx
	for len(a) > 0 && len(b) > 0 {
		if rapid.Bool().Draw(rt, "first reader") {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
