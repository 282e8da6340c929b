package aggregator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

var ticketTable = &rowtide.Table{Schema: "shop", Name: "ticket", Columns: []string{"id", "state", "price", "seats", "note"}, PrimaryKey: []int{0}}

// tickets is a module over ticketTable with a change to its config.
func tickets(change func(*aggregator.ModuleConfig)) aggregator.ModuleConfig {
	m := aggregator.ModuleConfig{Name: "ticket", Key: "{id}", From: &aggregator.FromConfig{Table: "shop.ticket", Columns: []string{"id"}}}
	change(&m)
	return m
}

func ticket(id int64, state, price, seats, note rowtide.Value) []rowtide.Value {
	return []rowtide.Value{id, state, price, seats, note}
}

func ticketKey(id int) rowtide.Key {
	return rowtide.Key{Module: "ticket", Version: 1, ID: fmt.Sprint(id)}
}

// A row that a filter lets through is a value; one that leaves it, or was never
// in it, is EMPTY.
func TestWhere_RowLeavingTheFilterIsEmpty(t *testing.T) {
	for _, tt := range []struct {
		where string
		row   []rowtide.Value
		in    bool
	}{
		{`state != "draft"`, ticket(1, "open", "9.50", int32(4), nil), true},
		{`state != "draft"`, ticket(1, "draft", "9.50", int32(4), nil), false},
		{`number(price) > 9`, ticket(1, "open", "9.50", int32(4), nil), true},
		{`number(price) > 9.5`, ticket(1, "open", "9.50", int32(4), nil), false},
		{`seats > 3 && state in ["open", "soon"]`, ticket(1, "soon", "1", uint8(4), nil), true},
		{`seats > 3`, ticket(1, "open", "1", nil, nil), false}, // NULL > 3 is not true
		{`note == nil`, ticket(1, "open", "1", nil, nil), true},
		{`(seats ?? 0) < 3`, ticket(1, "open", "1", nil, nil), true},
		{`note matches "^VIP"`, ticket(1, "open", "1", nil, "VIP row"), true},
	} {
		t.Run(fmt.Sprint(tt.where, tt.row), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) { m.From.Where = tt.where }))
				r.handle(tx(1, upd(ticketTable, ticket(1, "open", "9.50", int32(4), nil), tt.row)))
				r.drain()
				e := w.entry(t, ticketKey(1))
				if e.Empty() == tt.in || e.Version != tx(1).Version {
					t.Errorf("%+v, want a value: %t, at %s", e, tt.in, tx(1).Version)
				}
			})
		})
	}
}

func TestFields_RenamedAndComputed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) {
			m.From.Columns = []string{"id", "state AS status"}
			m.From.Fields = []aggregator.FieldConfig{
				{Name: "total", Expr: "number(price) * seats"},
				{Name: "open", Expr: `state == "open"`},
				{Name: "label", Expr: `upper(state) + "/" + string(id)`},
				{Name: "none", Expr: "note + state"},
			}
		}))
		r.handle(tx(1, ins(ticketTable, ticket(7, "open", "2.50", int32(4), nil)...)))
		r.drain()
		want := `{"id":7,"status":"open","total":10,"open":true,"label":"OPEN/7","none":null}`
		if got := string(w.entry(t, ticketKey(7)).Payload); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestModule_CheckTypesNamesThePlaceAndTheRemedy(t *testing.T) {
	types := map[string]string{"id": "bigint", "state": "enum", "price": "decimal", "seats": "int", "note": "text"}
	for _, tt := range []struct{ where, field, want string }{
		{`number(price) > 3 && seats < 4`, `seats + id`, ""},
		{`price > 3`, `seats`, "module ticket: from.where \"price > 3\" does not type-check: invalid operation: > (mismatched types string and int) (1:7); DECIMAL columns are text, write number(price)"},
		{`seats`, `seats`, "module ticket: from.where \"seats\" does not type-check: expected bool, but got int"},
		{`colour == "red"`, `seats`, "unknown name colour"},
		{`true`, `state - 1`, "from.fields[0].expr \"state - 1\" does not type-check"},
	} {
		m := compile(t, tickets(func(m *aggregator.ModuleConfig) {
			m.From.Where, m.From.Fields = tt.where, []aggregator.FieldConfig{{Name: "x", Expr: tt.field}}
		}))[0]
		err := m.CheckTypes(types)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.where, err, tt.want)
		}
	}
	m := compile(t, tickets(func(m *aggregator.ModuleConfig) { m.From.Where = `let big = seats > 3; big && number(price) > 1` }))[0]
	if got := m.Tables()["shop.ticket"]; !slices.Equal(got, []string{"id", "id", "price", "seats"}) {
		t.Errorf("columns %v, want those that the expression names", got)
	}
}

func TestCodec_MsgpackIsTheSameDocument(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) {
			m.Codec, m.From.Columns = aggregator.CodecMsgpack, nil
		}))
		r.handle(tx(1, ins(ticketTable, ticket(1, "é", "2.50", uint64(1<<64-1), rowtide.JSON(`{"a":[1,-2.5,null,true,{"b":{}}]}`))...)))
		r.drain()
		var got any
		if err := msgpack.Unmarshal(w.entry(t, ticketKey(1)).Payload, &got); err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(got)
		if want := `{"id":1,"note":{"a":[1,-2.5,null,true,{"b":{}}]},"price":"2.50","seats":18446744073709551615,"state":"é"}`; string(text) != want {
			t.Errorf("%s, want %s", text, want)
		}
	})
}

func TestCodec_RawIsTheColumnsBytes(t *testing.T) {
	for _, tt := range []struct {
		note  rowtide.Value
		want  string
		empty bool
	}{{"text", "text", false}, {[]byte{0, 1, 0xff}, "\x00\x01\xff", false}, {rowtide.JSON(`{"a": 1}`), `{"a":1}`, false}, {"", "", false}, {nil, "", true}} {
		bubble(t, func(t *testing.T) {
			w := newWorld()
			r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) {
				m.Codec, m.From.Columns = aggregator.CodecRaw, []string{"note"}
			}))
			r.handle(tx(1, ins(ticketTable, ticket(1, "x", "1", nil, tt.note)...)))
			r.drain()
			if e := w.entry(t, ticketKey(1)); string(e.Payload) != tt.want || e.Empty() != tt.empty {
				t.Errorf("%v: %q empty %t, want %q", tt.note, e.Payload, e.Empty(), tt.want)
			}
		})
	}
}

// Entries written together must not end together, and none before its ttl.
func TestTTL_JitterSpreadsAndNeverShortens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) { m.TTL, m.TTLJitter = time.Hour, 0.2 }))
		for i := range 200 {
			r.handle(tx(i+1, ins(ticketTable, ticket(int64(i), "x", "1", nil, nil)...)))
		}
		r.drain()
		seen := map[time.Duration]bool{}
		for _, e := range w.redis {
			if e.TTL < time.Hour || e.TTL > time.Hour+12*time.Minute {
				t.Errorf("%s lives %s", e.Key, e.TTL)
			}
			seen[e.TTL] = true
		}
		if len(seen) < 100 {
			t.Errorf("%d different lives of 200", len(seen))
		}
	})
}

func TestWindow_GathersWithoutHoldingOthersBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		slow := tickets(func(m *aggregator.ModuleConfig) { m.Window = time.Minute })
		r := start(t, w, nil, 0, slow, eventModule())
		for i := range 100 {
			r.handle(tx(i+1, ins(ticketTable, ticket(1, "x", "1", nil, nil)...), ins(eventTable, 1, "a", i)))
			pass(100 * time.Millisecond)
		}
		if n := w.size(); n != 1 || w.entry(t, eventKey(1)).Version != tx(100).Version {
			t.Errorf("redis has %d entries after 10 s, want the event only, up to date", n)
		}
		if n := len(w.of("save")); n > 0 {
			t.Errorf("%d checkpoints while the first transaction is not in Redis", n)
		}
		pass(time.Minute)
		if w.entry(t, ticketKey(1)).Version != tx(100).Version {
			t.Error("the ticket is not up to date after its window")
		}
		var writes int
		for _, c := range w.of("overwrite") {
			for _, e := range c.entries {
				if e.Key.Module == "ticket" {
					writes++
				}
			}
		}
		if writes != 1 {
			t.Errorf("%d writes of the ticket, want 1", writes)
		}
		r.drain()
		checkSaves(t, w, 100)
	})
}

// A full memory ends a window early: waiting longer would hold the source back.
func TestWindow_EndsWhenMemoryIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 3000, tickets(func(m *aggregator.ModuleConfig) { m.Window = time.Hour }))
		began := time.Now()
		for i := range 100 {
			r.handle(tx(i+1, ins(ticketTable, ticket(int64(i), "x", "1", nil, nil)...)))
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("100 transactions took %s", d)
		}
		r.drain()
		checkSaves(t, w, 100)
	})
}

// Rows that need no query reach Redis and Kafka while a rebuild's query hangs;
// watermark and checkpoint wait for it.
func TestLanes_PlainRowsDoNotWaitForRebuilds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		release := make(chan struct{})
		db.hold = release
		r := start(t, w, db, 0, pageModule(), eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 5)))
		pass(time.Minute)
		r.handle(tx(2, ins(otherTable, 1)))
		pass(time.Minute)
		told := w.of("broadcast")
		if len(told) != 1 || told[0].entries[0].Key != eventKey(1) || told[0].version != 0 {
			t.Fatalf("broadcasts %+v, want the row, with no watermark yet", told)
		}
		if n := len(w.of("save")); n > 0 {
			t.Errorf("%d checkpoints before the document is there", n)
		}
		close(release)
		r.drain()
		w.entry(t, pageKey(1))
		last := w.of("broadcast")
		if got := last[len(last)-1].version; got != tx(2).Version {
			t.Errorf("watermark %s at the end, want %s", got, tx(2).Version)
		}
		checkSaves(t, w, 2)
	})
}

// A row that changes all the time: the last value always lands, and Redis is
// written at most 2,000 times a second.
func TestHotRow_CostsAtMostTwoThousandWritesASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		const n = 50_000
		for i := 1; i <= n; i++ {
			r.handle(tx(i, ins(eventTable, 1, "a", i)))
			pass(time.Second / n)
		}
		if writes := len(w.of("overwrite")); writes > 2001 || writes < 1000 {
			t.Errorf("%d writes for %d changes in a second, want at most 2,000", writes, n)
		}
		r.drain()
		if got := w.entry(t, eventKey(1)); got.Version != tx(n).Version {
			t.Errorf("last value is of %s, want %s", got.Version, tx(n).Version)
		}
	})
}

func TestFaults_HaltOrSetAside(t *testing.T) {
	long := strings.Repeat("k", 1025)
	for _, tt := range []struct {
		name   string
		key    string
		change func(*aggregator.ModuleConfig)
		row    []rowtide.Value
		want   string
	}{
		{"NULL key", "{note}", nil, ticket(1, "x", "1", nil, nil), "key column is NULL"},
		{"empty key", "{note}", nil, ticket(1, "x", "1", nil, ""), "the template yields an empty key"},
		{"long key", "{note}", nil, ticket(1, "x", "1", nil, long), "a key of 1025 bytes, more than 1024"},
		{"large value", "{id}", func(m *aggregator.ModuleConfig) { m.MaxValue = 30; m.From.Columns = nil }, ticket(1, "x", "1", nil, "x"), "is larger than max_value 30"},
		{"filter fails", "{id}", func(m *aggregator.ModuleConfig) { m.From.Where = "state > 3" }, ticket(1, "x", "1", nil, "x"), `expression "state > 3"`},
		{"filter is no boolean", "{id}", func(m *aggregator.ModuleConfig) { m.From.Where = "state" }, ticket(1, "x", "1", nil, "x"), "want true or false"},
		{"field fails", "{id}", func(m *aggregator.ModuleConfig) {
			m.From.Fields = []aggregator.FieldConfig{{Name: "f", Expr: "number(state)"}}
		}, ticket(1, "x", "1", nil, "x"), `field "f"`},
		{"broken JSON", "{id}", func(m *aggregator.ModuleConfig) { m.From.Columns = nil }, ticket(1, "x", "1", nil, rowtide.JSON("{")), "render JSON column"},
	} {
		module := func(onFault string) aggregator.ModuleConfig {
			return tickets(func(m *aggregator.ModuleConfig) {
				m.Key, m.OnFault = tt.key, onFault
				if tt.change != nil {
					tt.change(m)
				}
			})
		}
		t.Run(tt.name+" halts", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, nil, 0, module("halt"))
				herr := r.agg.HandleTx(t.Context(), tx(1, ins(ticketTable, tt.row...)))
				r.agg.CloseIntake()
				err := r.end()
				if text := fmt.Sprint(herr, err); !strings.Contains(text, tt.want) || !strings.Contains(text, "module ticket") || !strings.Contains(text, "binlog.000001:100") {
					t.Errorf("%s, want the module, the position and %q", text, tt.want)
				}
				if len(w.of("save")) > 0 || len(w.redis) > 0 {
					t.Error("something went past the fault")
				}
			})
		})
		t.Run(tt.name+" is set aside", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, nil, 0, module("set_aside"))
				r.handle(tx(1, ins(ticketTable, tt.row...)), tx(2, ins(otherTable, 1)))
				r.drain()
				aside := w.of("set aside")
				if len(aside) != 1 || len(aside[0].faults) != 1 {
					t.Fatalf("set aside %+v, want one fault", aside)
				}
				f := aside[0].faults[0]
				if f.Module != "ticket" || f.Version != tx(1).Version || f.Position != posOf(1) || f.Table != ticketTable ||
					len(f.Row) != 5 || !strings.Contains(f.Err.Error(), tt.want) {
					t.Errorf("%+v, want %q", f, tt.want)
				}
				if names := w.names(); names[0] != "set aside" {
					t.Errorf("calls %v, want the dead letter before anything that acknowledges", names)
				}
				checkSaves(t, w, 2)
			})
		})
	}
}

// A set-aside letter that cannot be written stops the flush: a fault must never
// be lost.
func TestFaults_NothingIsAcknowledgedBeforeTheDeadLetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.before = func(_ context.Context, what string, _ int) error {
			if what == "set aside" {
				return errDown
			}
			return nil
		}
		r := start(t, w, nil, 0, tickets(func(m *aggregator.ModuleConfig) { m.Key, m.OnFault = "{note}", "set_aside" }))
		r.handle(tx(1, ins(ticketTable, ticket(1, "x", "1", nil, nil)...)))
		synctest.Wait()
		if err := r.end(); err == nil || !strings.Contains(err.Error(), "set 1 changes aside: it is down") {
			t.Errorf("run: %v", err)
		}
		if len(w.of("save")) > 0 {
			t.Error("a checkpoint went past the fault")
		}
	})
}

// A change that touches more keys than the cap raises the generation, which the
// module's later entries carry.
func TestR25_PastTheCapTheGenerationIsRaised(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		m := pageModule()
		for i := range m.Watch {
			m.Watch[i].MaxKeys = 1
		}
		r := start(t, w, db, 0, m)
		r.handle(tx(1, upd(venueTable, row(5, "a", "1"), row(5, "b", "1")))) // venue 5 has two pages
		pass(time.Second)
		if names := w.names(); len(names) == 0 || names[0] != "raise event_page" || w.size() != 0 {
			t.Fatalf("calls %v and %d entries, want the generation raised and nothing rebuilt", names, w.size())
		}
		r.handle(tx(2, ins(eventTable, 1, "a", 5)))
		r.drain()
		if e := w.entry(t, pageKey(1)); e.Generation != 1 {
			t.Errorf("%+v, want generation 1", e)
		}
		checkSaves(t, w, 2)
	})
}

// TRUNCATE: the generation is raised, and a row from before it that is still
// pending does not come back under the new one.
func TestTruncate_RaisesTheGenerationAndForgetsPendingRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		synctest.Wait()
		gone := rowtide.Change{Table: &rowtide.Table{Schema: "shop", Name: "event"}, Op: rowtide.OpTruncate}
		r.handle(tx(2, ins(eventTable, 2, "b", 1)), tx(3, gone), tx(4, ins(eventTable, 3, "c", 1)))
		close(g.open)
		r.drain()
		if got := w.of("raise event"); len(got) != 1 || got[0].version != tx(3).Version {
			t.Fatalf("raised %+v, want once, since %s", got, tx(3).Version)
		}
		first, second, third := w.entry(t, eventKey(1)), w.entry(t, eventKey(2)), w.entry(t, eventKey(3))
		if first.Generation != 0 || !second.Empty() || second.Version != tx(3).Version || third.Empty() || third.Generation != 1 {
			t.Errorf("%+v\n%+v\n%+v", first, second, third)
		}
		checkSaves(t, w, 4)
	})
}
