package aggregator_test

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// withModule is a valid module with one thing changed.
func withModule(base func() aggregator.ModuleConfig, change func(*aggregator.ModuleConfig)) aggregator.ModuleConfig {
	m := base()
	change(&m)
	return m
}

func TestValidateModules_EveryMessage(t *testing.T) {
	from := func(change func(*aggregator.ModuleConfig)) []aggregator.ModuleConfig {
		return []aggregator.ModuleConfig{withModule(eventModule, change)}
	}
	page := func(change func(*aggregator.ModuleConfig)) []aggregator.ModuleConfig {
		return []aggregator.ModuleConfig{withModule(pageModule, change)}
	}
	const e, p = "modules[0] (event)", "modules[0] (event_page)"
	for _, tt := range []struct {
		name string
		in   []aggregator.ModuleConfig
		want string
	}{
		{"no module", nil, "modules is empty: describe at least one module"},
		{"no name", from(func(m *aggregator.ModuleConfig) { m.Name = "" }), `modules[0].name "": want lower-case letters, digits, _ and -, at most 63`},
		{"capital", from(func(m *aggregator.ModuleConfig) { m.Name = "Event" }), `modules[0] (Event).name "Event": want lower-case letters, digits, _ and -, at most 63`},
		{"colon", from(func(m *aggregator.ModuleConfig) { m.Name = "a:b" }), `modules[0] (a:b).name "a:b": want lower-case`},
		{"long name", from(func(m *aggregator.ModuleConfig) { m.Name = strings.Repeat("a", 64) }), "at most 63"},
		{"same name", []aggregator.ModuleConfig{eventModule(), eventModule()}, "modules[1] (event): the name is used twice; two modules cannot share a key space"},
		{"no key", from(func(m *aggregator.ModuleConfig) { m.Key = "" }), e + `.key: is missing: give a template such as "{id}"`},
		{"key without column", from(func(m *aggregator.ModuleConfig) { m.Key = "all" }), e + `.key: template "all" names no column, so all rows would share one key`},
		{"key not closed", from(func(m *aggregator.ModuleConfig) { m.Key = "{id" }), e + `.key: template "{id": want a column's name between { and }`},
		{"key not opened", from(func(m *aggregator.ModuleConfig) { m.Key = "{id}}" }), e + `.key: template "{id}}" has a } without a {`},
		{"key with empty braces", from(func(m *aggregator.ModuleConfig) { m.Key = "{}" }), e + `.key: template "{}": want a column's name`},
		{"key with a space", from(func(m *aggregator.ModuleConfig) { m.Key = "{my id}" }), e + `.key: template "{my id}": want a column's name`},
		{"nested braces", from(func(m *aggregator.ModuleConfig) { m.Key = "{{id}}" }), e + `.key: template "{{id}}": want a column's name`},
		{"negative ttl", from(func(m *aggregator.ModuleConfig) { m.TTL = -1 }), e + ": a duration is negative"},
		{"negative refresh", from(func(m *aggregator.ModuleConfig) { m.Refresh = -1 }), e + ": a duration is negative"},
		{"negative empty ttl", from(func(m *aggregator.ModuleConfig) { m.Empty.TTL = -1 }), e + ": a duration is negative"},
		{"negative empty refresh", from(func(m *aggregator.ModuleConfig) { m.Empty.Refresh = -1 }), e + ": a duration is negative"},
		{"negative max_stale", from(func(m *aggregator.ModuleConfig) { m.MaxStale = -1 }), e + ": a duration is negative"},
		{"on_error", from(func(m *aggregator.ModuleConfig) { m.OnError = "panic" }), e + `.on_error "panic": want keep or optional`},
		{"neither from nor rebuild", from(func(m *aggregator.ModuleConfig) { m.From = nil }), e + ": give exactly one of from and rebuild"},
		{"both from and rebuild", from(func(m *aggregator.ModuleConfig) { m.Rebuild = &aggregator.RebuildConfig{} }), e + ": give exactly one of from and rebuild"},
		{"table without schema", from(func(m *aggregator.ModuleConfig) { m.From.Table = "event" }), e + `.from.table "event": want schema.table`},
		{"from with watch", from(func(m *aggregator.ModuleConfig) { m.Watch = pageModule().Watch }), e + ".watch: a from module watches its own table only; use rebuild for more"},
		{"column twice", from(func(m *aggregator.ModuleConfig) { m.From.Columns = []string{"id", "id"} }), e + `.from.columns: "id" is listed twice`},
		{"rebuild key of two columns", page(func(m *aggregator.ModuleConfig) { m.Key = "{a}:{b}" }), p + `.key "{a}:{b}": a rebuild module's key is one column, such as "{id}"`},
		{"no one", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "" }), p + ".rebuild.one is missing"},
		{"one without keys", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "SELECT 1" }), p + ".rebuild.one must contain :keys once"},
		{"one with keys twice", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "SELECT :keys, :keys" }), p + ".rebuild.one must contain :keys once"},
		{"one with another parameter", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "SELECT :id" }), p + ".rebuild.one must contain :keys once, as in WHERE id IN (:keys), and no other parameter"},
		{"open quote", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "SELECT 'a WHERE id IN (:keys)" }), p + ".rebuild.one has a ' that is not closed"},
		{"open comment", page(func(m *aggregator.ModuleConfig) { m.Rebuild.One = "SELECT /* a WHERE id IN (:keys)" }), p + ".rebuild.one has a comment that is not closed"},
		{"many without a name", page(func(m *aggregator.ModuleConfig) { m.Rebuild.Many[0].Name = "" }), p + `.rebuild.many[0].name "" is missing or used twice`},
		{"many name twice", page(func(m *aggregator.ModuleConfig) {
			m.Rebuild.Many = append(m.Rebuild.Many, m.Rebuild.Many[0])
		}), p + `.rebuild.many[1].name "sessions" is missing or used twice`},
		{"many without a query", page(func(m *aggregator.ModuleConfig) { m.Rebuild.Many[0].Query = "" }), p + ".rebuild.many[0].query is missing"},
		{"no watch", page(func(m *aggregator.ModuleConfig) { m.Watch = nil }), p + ".watch is missing: name the tables whose changes touch this module"},
		{"watch table", page(func(m *aggregator.ModuleConfig) { m.Watch[1].Table = "session." }), p + `.watch[1].table "session.": want schema.table`},
		{"watch without key", page(func(m *aggregator.ModuleConfig) { m.Watch[0].Key = "" }), p + ".watch[0]: give exactly one of key and keys"},
		{"watch with both", page(func(m *aggregator.ModuleConfig) { m.Watch[2].Key = "{id}" }), p + ".watch[2]: give exactly one of key and keys"},
		{"watch key broken", page(func(m *aggregator.ModuleConfig) { m.Watch[0].Key = "{" }), p + `.watch[0].key: template "{": want a column's name`},
		{"watch key of two columns", page(func(m *aggregator.ModuleConfig) { m.Watch[0].Key = "{a}{b}" }), p + `.watch[0].key "{a}{b}": want one column, such as "{id}"`},
		{"watch keys broken", page(func(m *aggregator.ModuleConfig) { m.Watch[2].Keys = "SELECT 'x" }), p + ".watch[2].keys has a ' that is not closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in []aggregator.ModuleConfig
			for _, m := range tt.in {
				in = append(in, m.WithDefaults())
			}
			err := aggregator.ValidateModules(in)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) && !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("err=%v, want %s", err, tt.want)
			}
			if mods, err := aggregator.Compile(tt.in); err == nil || mods != nil {
				t.Errorf("compile: %v, %v; want the same fault", mods, err)
			}
		})
	}
}

func TestValidateModules_AllFaultsAtOnce(t *testing.T) {
	err := aggregator.ValidateModules([]aggregator.ModuleConfig{
		{Name: "A", Key: "x", OnError: "keep"},
		withModule(pageModule, func(m *aggregator.ModuleConfig) {
			m.OnError, m.Rebuild.One, m.Watch = "?", "", nil
		}),
	})
	want := []string{
		`modules[0] (A).name`, `modules[0] (A).key`, `modules[0] (A): give exactly one`,
		`modules[1] (event_page).on_error`, `modules[1] (event_page).rebuild.one`, `modules[1] (event_page).watch`,
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("faults:\n%s\nwant %d", err, len(want))
	}
	for i, w := range want {
		if !strings.HasPrefix(lines[i], w) {
			t.Errorf("fault %d: %s, want %s…", i, lines[i], w)
		}
	}
}

func TestModuleConfig_Defaults(t *testing.T) {
	got := (aggregator.ModuleConfig{}).WithDefaults()
	want := aggregator.ModuleConfig{
		Version: 1, TTL: 24 * time.Hour, Refresh: time.Minute, OnError: "keep", MaxStale: 5 * time.Second,
		Empty:     aggregator.EmptyConfig{TTL: 30 * time.Second, Refresh: 10 * time.Second},
		TTLJitter: 0.1, Codec: "json", Layout: "envelope", OnFault: "halt", MaxValue: 1 << 20,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	given := withModule(eventModule, func(m *aggregator.ModuleConfig) {
		m.Version, m.OnError, m.Refresh, m.MaxStale, m.Empty = 4, "optional", 1, 2, aggregator.EmptyConfig{TTL: 3, Refresh: 4}
		m.TTLJitter, m.Codec, m.Layout, m.OnFault, m.MaxValue, m.Window, m.Push = 0.5, "msgpack", "plain", "set_aside", 5, 6, true
	})
	if got := given.WithDefaults(); !reflect.DeepEqual(got, given) {
		t.Errorf("%+v, want what was given: %+v", got, given)
	}
}

// The parameters of a query, seen through the form that the server prepares.
func TestStatement_Parameters(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"one", "SELECT * FROM a.b WHERE id IN (:keys)", "SELECT * FROM a.b WHERE id IN (?)"},
		{"at the end", "SELECT * FROM a.b WHERE id = :keys", "SELECT * FROM a.b WHERE id = ?"},
		{"single quotes", "SELECT ':no', 'it''s :no' WHERE x IN (:keys)", "SELECT ':no', 'it''s :no' WHERE x IN (?)"},
		{"double quotes", `SELECT ":no" WHERE x IN (:keys)`, `SELECT ":no" WHERE x IN (?)`},
		{"back-quotes", "SELECT `:no` WHERE x IN (:keys)", "SELECT `:no` WHERE x IN (?)"},
		{"a time in quotes", "SELECT '20:15:00' WHERE x IN (:keys)", "SELECT '20:15:00' WHERE x IN (?)"},
		{"escaped quote", `SELECT 'it\'s :no' WHERE x IN (:keys)`, `SELECT 'it\'s :no' WHERE x IN (?)`},
		{"escaped backslash", `SELECT 'a\\' WHERE x IN (:keys)`, `SELECT 'a\\' WHERE x IN (?)`},
		{"backslash in back-quotes", "SELECT `a\\` WHERE x IN (:keys)", "SELECT `a\\` WHERE x IN (?)"},
		{"block comment", "SELECT /* isn't :no */ x WHERE x IN (:keys)", "SELECT /* isn't :no */ x WHERE x IN (?)"},
		{"dash comment", "SELECT x -- isn't :no\nWHERE x IN (:keys)", "SELECT x -- isn't :no\nWHERE x IN (?)"},
		{"hash comment", "SELECT x # isn't :no\nWHERE x IN (:keys)", "SELECT x # isn't :no\nWHERE x IN (?)"},
		{"comment at the end", "SELECT x WHERE x IN (:keys) -- isn't :no", "SELECT x WHERE x IN (?) -- isn't :no"},
		{"minus minus is no comment", "SELECT 1--1 WHERE x IN (:keys)", "SELECT 1--1 WHERE x IN (?)"},
		{"assignment", "SELECT @a := 1 WHERE x IN (:keys)", "SELECT @a := 1 WHERE x IN (?)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mods, err := aggregator.Compile([]aggregator.ModuleConfig{withModule(pageModule, func(m *aggregator.ModuleConfig) {
				m.Rebuild.One, m.Rebuild.Many = tt.in, nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			if got := mods[0].Queries()["rebuild.one"]; got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestModule_QueriesAreNamedByTheirPlace(t *testing.T) {
	got := compile(t, pageModule())[0].Queries()
	want := map[string]string{
		"rebuild.one":                "SELECT id, title FROM shop.event WHERE id IN (?)",
		"rebuild.many[0] (sessions)": "SELECT event_id AS `$key`, id, starts_at FROM shop.session WHERE event_id IN (?) ORDER BY id",
		"watch[2].keys":              "SELECT id FROM shop.event WHERE venue_id = ?",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if got := compile(t, eventModule())[0].Queries(); len(got) != 0 {
		t.Errorf("a from module has queries %v", got)
	}
}

func TestModule_TablesNameTheColumnsNeeded(t *testing.T) {
	for _, tt := range []struct {
		m    aggregator.ModuleConfig
		want map[string][]string
	}{
		{eventModule(), map[string][]string{"shop.event": {"id", "title"}}},
		{pageModule(), map[string][]string{"shop.event": {"id"}, "shop.session": {"event_id"}, "shop.venue": {"id", "name"}}},
	} {
		got := compile(t, tt.m)[0].Tables()
		for k := range got {
			slices.Sort(got[k])
			got[k] = slices.Compact(got[k])
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.m.Name, got, tt.want)
		}
	}
}

func TestTemplate_RendersEveryKindOfKey(t *testing.T) {
	table := &rowtide.Table{Schema: "shop", Name: "t", Columns: []string{"a", "b"}}
	for _, tt := range []struct {
		tmpl string
		a, b rowtide.Value
		want string
	}{
		{"{a}", int32(-5), nil, "-5"},
		{"{a}:{b}", uint64(1<<64 - 1), "x", "18446744073709551615:x"},
		{"{b}{a}", "1", "2", "21"},
		{"film/{a}/stock", "é {b}", nil, "film/é {b}/stock"},
		{"{a}", time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), nil, "2026-11-21T08:00:00Z"},
		{"{a}", []byte("ab\x00\x00"), nil, "YWIAAA=="},
	} {
		t.Run(tt.tmpl+" "+tt.want, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, nil, 0, aggregator.ModuleConfig{Name: "m", Key: tt.tmpl, From: &aggregator.FromConfig{Table: "shop.t"}})
				r.handle(tx(1, ins(table, tt.a, tt.b)))
				r.drain()
				w.entry(t, rowtide.Key{Module: "m", Version: 1, ID: tt.want})
			})
		})
	}
}

func TestAggregator_TableWithoutAConfiguredColumn(t *testing.T) {
	shape := func(name string, cols ...string) *rowtide.Table {
		return &rowtide.Table{Schema: "shop", Name: name, Columns: cols}
	}
	for _, tt := range []struct {
		name  string
		m     aggregator.ModuleConfig
		table *rowtide.Table
		want  string
	}{
		{"value", eventModule(), shape("event", "id", "venue_id"), `module event: table shop.event has no column "title", it has id, venue_id`},
		{"key", eventModule(), shape("event", "title", "Id"), `module event: table shop.event has no column "id", it has title, Id`},
		{"watch key", pageModule(), shape("session", "id"), `module event_page: table shop.session has no column "event_id", it has id`},
		{"watch columns", pageModule(), shape("venue", "id"), `module event_page: table shop.venue has no column "name", it has id`},
		{"query parameter", pageModule(), shape("venue", "name"), `module event_page: table shop.venue has no column "id", it has name`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, newDatabase(), 0, tt.m)
				row := make([]rowtide.Value, len(tt.table.Columns))
				err := r.agg.HandleTx(t.Context(), tx(1, rowtide.Change{Table: tt.table, Op: rowtide.OpInsert, After: row}))
				if !errors.Is(err, rowtide.ErrSchemaChanged) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("err=%v, want %s", err, tt.want)
				}
				r.drain()
			})
		})
	}
}
