package aggregator_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

var eventTypes = map[string]string{"id": "int", "title": "varchar", "venue_id": "int"}

func expect(t *testing.T, mod aggregator.ModuleConfig) *aggregator.Expectation {
	t.Helper()
	x, err := compile(t, mod)[0].Expect(eventTable.Columns, eventTypes)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// asked is a database that remembers its queries and has the given rows.
type asked struct {
	queries []string
	args    [][]any
	cols    []string
	rows    [][]rowtide.Value
	err     error
}

func (a *asked) ask(query string, args []any, row func([]string, []rowtide.Value) error) error {
	a.queries, a.args = append(a.queries, query), append(a.args, args)
	for _, r := range a.rows {
		if err := row(a.cols, r); err != nil {
			return err
		}
	}
	return a.err
}

func TestExpect_RowsOfAFromModule(t *testing.T) {
	mod := withModule(eventModule, func(c *aggregator.ModuleConfig) {
		c.Key = "e{id}-{venue_id}"
		c.From.Where = "title != 'hidden'"
		c.MaxValue = 40
	})
	x := expect(t, mod)
	if got, want := x.Columns(), []string{"id", "title", "venue_id"}; !slices.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	got, err := x.Rows([][]rowtide.Value{
		row(7, "a", 5), row(8, "hidden", 5), row(nil, "no key", 5), row(9, strings.Repeat("x", 50), 5),
	}, nil)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d keys of 4 rows, one without a key: %v", len(got), err)
	}
	if got[0].ID != "e7-5" || string(got[0].Payload) != `{"title":"a","id":7}` || got[0].Err != nil {
		t.Errorf("row: %+v", got[0])
	}
	if got[1].ID != "e8-5" || got[1].Payload != nil || got[1].Err != nil {
		t.Errorf("row that is filtered out: %+v", got[1])
	}
	if got[2].ID != "e9-5" || got[2].Payload != nil || got[2].Err == nil {
		t.Errorf("row that is too large: %+v", got[2])
	}
}

func TestExpect_AsksForTheRowsBehindKeys(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		ids       []string
		where     string // "" for no query
		args      []any
	}{
		{"one column", "{id}", []string{"7", "8"}, "`id` IN (?,?)", []any{int64(7), int64(8)}},
		{"ids that no row can have are not asked for", "{id}", []string{"07", "x", "", "7.0", " 7"}, "", nil},
		{"literals", "e{id}-{venue_id}", []string{"e7-5", "7-5", "e7"}, "(`id` = ? AND `venue_id` = ?)", []any{int64(7), int64(5)}},
		{"several", "{id}:{venue_id}", []string{"1:2", "3:4"}, "(`id` = ? AND `venue_id` = ?) OR (`id` = ? AND `venue_id` = ?)", []any{int64(1), int64(2), int64(3), int64(4)}},
		{"no literal: all ways", "{id}{venue_id}", []string{"123"}, "(`id` = ? AND `venue_id` = ?) OR (`id` = ? AND `venue_id` = ?)", []any{int64(1), int64(23), int64(12), int64(3)}},
		{"a literal in a value: all ways", "{title}-{id}", []string{"a-1-2"}, "(`title` = ? AND `id` = ?)", []any{"a-1", int64(2)}},
		{"text on both sides", "{title}-{title}", []string{"a-b-c"}, "(`title` = ? AND `title` = ?) OR (`title` = ? AND `title` = ?)", []any{"a", "b-c", "a-b", "c"}},
		{"a suffix", "{title}!", []string{"a!", "a", "!"}, "`title` IN (?,?)", []any{"a", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := expect(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = tt.key }))
			db := &asked{}
			if _, err := x.Of(tt.ids, db.ask); err != nil {
				t.Fatal(err)
			}
			if tt.where == "" {
				if len(db.queries) > 0 {
					t.Errorf("asked %s with %v, want no question", db.queries, db.args)
				}
				return
			}
			want := " FROM `shop`.`event` WHERE " + tt.where
			if len(db.queries) != 1 || !reflect.DeepEqual(db.args[0], tt.args) {
				t.Fatalf("asked %s with %v, want %s with %v", db.queries, db.args, want, tt.args)
			}
			// Which columns are read is not this test's matter.
			if got := db.queries[0]; !strings.HasSuffix(got, want) {
				t.Errorf("asked %s, want %s", got, want)
			}
		})
	}
}

func TestExpect_OfAnswersInTheOrderOfTheKeys(t *testing.T) {
	x := expect(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.From.Columns = nil; c.From.Where = "id != 3" }))
	db := &asked{rows: [][]rowtide.Value{row(3, "out", 1), row(99, "not asked for", 1), row(2, "b", 1)}}
	got, err := x.Of([]string{"1", "2", "3"}, db.ask)
	if err != nil || len(got) != 3 || got[0].Payload != nil || !strings.Contains(string(got[1].Payload), `"b"`) || got[2].Payload != nil || got[2].ID != "3" {
		t.Errorf("%+v, %v", got, err)
	}
	there, err := x.Present([]string{"1", "2", "3"}, db.ask)
	if err != nil || there["1"] || !there["2"] || there["3"] {
		t.Errorf("present: %v, %v", there, err)
	}
}

func TestExpect_ManyKeysAreSeveralQueries(t *testing.T) {
	x := expect(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = "{id}:{venue_id}" }))
	var ids []string
	for i := range 1200 {
		ids = append(ids, fmt.Sprintf("%d:1", i))
	}
	db := &asked{}
	if _, err := x.Of(ids, db.ask); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, args := range db.args {
		n += len(args)
		if len(args) > 1000 {
			t.Errorf("one query has %d values", len(args))
		}
	}
	if n != 2400 || len(db.queries) != 3 {
		t.Errorf("%d values in %d queries, want 2400 in 3", n, len(db.queries))
	}
}

func TestExpect_KeyWithTooManyWaysIsAnError(t *testing.T) {
	x := expect(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = "{title}{title}{title}" }))
	_, err := x.Of([]string{strings.Repeat("x", 200)}, (&asked{}).ask)
	if err == nil || !strings.Contains(err.Error(), "put a separator") {
		t.Errorf("err=%v", err)
	}
}

// A key's text must find its row again, whatever the column's type.
func TestExpect_KeysOfEveryType(t *testing.T) {
	at := time.Date(2024, 2, 29, 13, 0, 0, 500_000_000, time.UTC)
	for _, tt := range []struct {
		typ  string
		v    rowtide.Value
		want any // nil: not asked for
	}{
		{"bigint", uint64(1<<64 - 1), uint64(1<<64 - 1)},
		{"int", int32(-3), int64(-3)},
		{"bit", uint64(5), int64(5)},
		{"year", int16(2024), int64(2024)},
		{"varchar", "007", "007"},
		{"decimal", "1.50", "1.50"},
		{"decimal", "x", nil},
		{"float", float32(0.1), float64(float32(0.1))},
		{"double", 0.1, 0.1},
		{"double", "x", nil},
		{"datetime", at, "2024-02-29 13:00:00.5"},
		{"datetime", "0000-00-00 00:00:00", "0000-00-00 00:00:00"},
		{"datetime", "soon", nil},
		{"date", "2024-02-29", "2024-02-29"},
		{"time", "'", nil},
		{"varbinary", []byte{0, 255}, []byte{0, 255}},
		{"varbinary", "%%", nil},
		{"enum", "red", "red"},
	} {
		m := compile(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = "{title}" }))[0]
		x, err := m.Expect(eventTable.Columns, map[string]string{"title": tt.typ})
		if err != nil {
			t.Fatal(err)
		}
		id, err := rowtide.AppendText(nil, tt.v)
		if err != nil {
			t.Fatal(err)
		}
		db := &asked{}
		if _, err := x.Of([]string{string(id)}, db.ask); err != nil {
			t.Fatal(err)
		}
		var got any
		if len(db.args) > 0 {
			got = db.args[0][0]
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s %v, as key %q: asked for %#v, want %#v", tt.typ, tt.v, id, got, tt.want)
		}
	}
}

func TestExpect_RebuildModule(t *testing.T) {
	mod := withModule(pageModule, func(c *aggregator.ModuleConfig) { c.Watch = []aggregator.WatchConfig{c.Watch[2], c.Watch[1]} })
	m := compile(t, mod)[0]
	x, err := m.Expect([]string{"id", "event_id"}, map[string]string{"event_id": "int"})
	if err != nil {
		t.Fatal(err)
	}
	if m.Table() != "shop.session" || !slices.Equal(x.Columns(), []string{"event_id"}) {
		t.Errorf("table %s, columns %v", m.Table(), x.Columns())
	}
	db := &asked{cols: []string{"id", "title"}, rows: [][]rowtide.Value{{int64(7), "a"}}}
	got, err := x.Rows([][]rowtide.Value{{int64(7)}, {nil}, {int64(8)}, {int64(7)}}, db.ask)
	if err != nil || len(got) != 2 || got[0].ID != "7" || !strings.HasPrefix(string(got[0].Payload), `{"id":7,"title":"a"`) || got[1].ID != "8" || got[1].Payload != nil {
		t.Fatalf("documents %+v, %v", got, err)
	}
	again, err := x.Of([]string{"8", "x", "7"}, db.ask)
	if err != nil || string(again[2].Payload) != string(got[0].Payload) || again[0].Payload != nil || again[1].Payload != nil {
		t.Errorf("by keys: %+v, %v", again, err)
	}
	before := len(db.queries)
	there, err := x.Present([]string{"8", "x", "7"}, db.ask)
	if err != nil || len(there) != 1 || !there["7"] || len(db.queries) != before+1 {
		t.Errorf("present: %v with %d queries, %v", there, len(db.queries)-before, err)
	}
	m = compile(t, withModule(pageModule, func(c *aggregator.ModuleConfig) { c.Watch = c.Watch[2:] }))[0]
	if _, err := m.Expect(nil, nil); err == nil || !strings.Contains(err.Error(), "no watch has a key") || m.Table() != "" {
		t.Errorf("err=%v, table %q; want the keys not to be listable", err, m.Table())
	}
}

// A key that is streamed and one that is selected must meet: same code, same
// bytes.
func TestExpect_AgreesWithTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		image := row(int64(7), "a\"b", nil)
		r.handle(tx(1, ins(eventTable, image...)))
		r.drain()
		x := expect(t, eventModule())
		wants, err := x.Rows([][]rowtide.Value{image}, nil)
		if err != nil || len(wants) != 1 {
			t.Fatal(wants, err)
		}
		want := wants[0]
		got := w.entry(t, rowtide.Key{Module: "event", Version: 1, ID: want.ID})
		if string(got.Payload) != string(want.Payload) {
			t.Errorf("streamed %s, selected %s", got.Payload, want.Payload)
		}
		if e := x.Entry(want, got.Version, got.BuiltAt); !reflect.DeepEqual(e, got) {
			t.Errorf("streamed %+v, repaired %+v", got, e)
		}
		want.Payload = nil
		if e := x.Entry(want, 9, got.BuiltAt); !e.Empty() || e.Flags&rowtide.FlagDeleted == 0 || e.Version != 9 {
			t.Errorf("repaired with no row: %+v", e)
		}
	})
}
