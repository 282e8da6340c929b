package aggregator_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

var (
	sessionTable = &rowtide.Table{Schema: "shop", Name: "session", Columns: []string{"id", "event_id", "starts_at"}}
	venueTable   = &rowtide.Table{Schema: "shop", Name: "venue", Columns: []string{"id", "name", "phone"}}
)

const (
	oneQuery  = "SELECT id, title FROM shop.event WHERE id IN (:keys)"
	manyQuery = "SELECT event_id AS `$key`, id, starts_at FROM shop.session WHERE event_id IN (:keys) ORDER BY id"
	keysQuery = "SELECT id FROM shop.event WHERE venue_id = :id"
)

func pageModule() aggregator.ModuleConfig {
	return aggregator.ModuleConfig{
		Name: "event_page", Key: "{id}",
		Rebuild: &aggregator.RebuildConfig{One: oneQuery, Many: []aggregator.ManyConfig{{Name: "sessions", Query: manyQuery}}},
		Watch: []aggregator.WatchConfig{
			{Table: "shop.event", Key: "{id}"},
			{Table: "shop.session", Key: "{event_id}"},
			{Table: "shop.venue", Columns: []string{"name"}, Keys: keysQuery},
		},
	}
}

func pageKey(id any) rowtide.Key {
	return rowtide.Key{Module: "event_page", Version: 1, ID: fmt.Sprint(id)}
}

// database answers the page module's three queries from maps.
type database struct {
	mu       sync.Mutex
	events   map[int64]string          // id → title
	sessions map[int64][]int64         // event → sessions
	venues   map[int64][]rowtide.Value // venue → events
	fail     func(query string) error  // before an answer
	hold     chan struct{}             // queries wait until it is closed
	waited   []string
	asked    []string
	args     [][]any
}

func (d *database) WaitFor(_ context.Context, gtid string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waited = append(d.waited, gtid)
	return false, nil
}

func (d *database) Locking(q string) string { return q + " /*locking*/" }

func (d *database) Query(ctx context.Context, q string, args ...any) ([]string, [][]rowtide.Value, error) {
	if d.hold != nil {
		select {
		case <-d.hold:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked, d.args = append(d.asked, q), append(d.args, args)
	if d.fail != nil {
		if err := d.fail(q); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case strings.Contains(q, "WHERE venue_id"):
		var rows [][]rowtide.Value
		if args[0] != nil {
			for _, id := range d.venues[args[0].(int64)] {
				rows = append(rows, row(id))
			}
		}
		return []string{"id"}, rows, nil
	case strings.Contains(q, "shop.session"):
		var rows [][]rowtide.Value
		for _, a := range args {
			for _, s := range d.sessions[a.(int64)] {
				rows = append(rows, row(a, s, "20:00:00"))
			}
		}
		return []string{"$key", "id", "starts_at"}, rows, nil
	}
	var rows [][]rowtide.Value
	for _, a := range args {
		if title, ok := d.events[a.(int64)]; ok {
			rows = append(rows, row(a, title))
		}
	}
	return []string{"id", "title"}, rows, nil
}

func newDatabase() *database {
	return &database{
		events: map[int64]string{1: "one", 2: "two"}, sessions: map[int64][]int64{1: {10, 11}},
		venues: map[int64][]rowtide.Value{5: row(1, 2, nil), 6: row(2)},
	}
}

func TestRebuild_Documents(t *testing.T) {
	const noSessions = `{"id":2,"title":"two","sessions":[]}`
	const withSessions = `{"id":1,"title":"one","sessions":[{"id":10,"starts_at":"20:00:00"},{"id":11,"starts_at":"20:00:00"}]}`
	for _, tt := range []struct {
		name   string
		change rowtide.Change
		want   map[int]string // "" is EMPTY
	}{
		{"row of one", ins(eventTable, 1, "stale image", 5), map[int]string{1: withSessions}},
		{"empty list", ins(eventTable, 2, "x", 5), map[int]string{2: noSessions}},
		{"no row is EMPTY", del(eventTable, 3, "x", 5), map[int]string{3: ""}},
		{"row of many", ins(sessionTable, 10, 1, "x"), map[int]string{1: withSessions}},
		{"both images of a moved row", upd(sessionTable, row(10, 2, "x"), row(10, 1, "x")), map[int]string{1: withSessions, 2: noSessions}},
		{"NULL reference touches nothing", ins(sessionTable, 10, nil, "x"), map[int]string{}},
		{"reference set from NULL", upd(sessionTable, row(10, nil, "x"), row(10, 1, "x")), map[int]string{1: withSessions}},
		{"keys by query, NULL keys left out", upd(venueTable, row(5, "a", "1"), row(5, "b", "1")), map[int]string{1: withSessions, 2: noSessions}},
		{"keys of both images", upd(venueTable, row(6, "a", "1"), row(5, "a2", "1")), map[int]string{1: withSessions, 2: noSessions}},
		{"query parameter NULL", ins(venueTable, nil, "a", "1"), map[int]string{}},
		{"update outside of columns", upd(venueTable, row(5, "a", "1"), row(5, "a", "2")), map[int]string{}},
		{"insert counts whatever the columns", ins(venueTable, 6, nil, nil), map[int]string{2: noSessions}},
		{"delete counts whatever the columns", del(venueTable, 6, nil, nil), map[int]string{2: noSessions}},
		{"NULL to a value is a change", upd(venueTable, row(6, nil, "1"), row(6, "a", "1")), map[int]string{2: noSessions}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, db := newWorld(), newDatabase()
				r := start(t, w, db, 0, pageModule())
				r.handle(tx(1, tt.change))
				r.drain()
				if len(w.redis) != len(tt.want) {
					t.Errorf("redis holds %v, want %v", w.redis, tt.want)
				}
				for id, want := range tt.want {
					e := w.entry(t, pageKey(id))
					if string(e.Payload) != want || e.Empty() != (want == "") || e.Version != tx(1).Version {
						t.Errorf("key %d: %s %+v, want %s at %s", id, e.Payload, e, want, tx(1).Version)
					}
				}
				checkSaves(t, w, 1)
			})
		})
	}
}

func TestRebuild_WaitsForTheNewestTransactionAndReadsLocked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		g := newGate("overwrite")
		w.before = g.before
		r := start(t, w, db, 0, pageModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 5)))
		synctest.Wait()
		r.handle(tx(2, ins(eventTable, 2, "a", 5)), tx(3, ins(otherTable, 1)))
		close(g.open)
		r.drain()
		if want := []string{"0-1-1", "0-1-2"}; !slices.Equal(db.waited, want) {
			t.Errorf("waited for %v, want %v", db.waited, want)
		}
		for _, q := range db.asked {
			if !strings.HasSuffix(q, "/*locking*/") {
				t.Errorf("query %q does not lock", q)
			}
		}
	})
}

func TestRebuild_AsksOncePerFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db, g := newWorld(), newDatabase(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, db, 0, pageModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 5)))
		synctest.Wait()
		db.asked = nil
		for n := 2; n <= 20; n++ {
			r.handle(tx(n, upd(venueTable, row(5, fmt.Sprint(n-1), "1"), row(5, fmt.Sprint(n), "1")), ins(eventTable, 1, "a", 5)))
		}
		close(g.open)
		r.drain()
		if len(db.asked) != 3 {
			t.Errorf("%d queries for 19 transactions, want a look-up, one and many: %q", len(db.asked), db.asked)
		}
		if got, want := w.entry(t, pageKey(2)).Version, tx(20).Version; got != want {
			t.Errorf("version %s, want the newest that asked: %s", got, want)
		}
	})
}

// A key that a look-up found and that a newer change touched keeps the newer
// version.
func TestRebuild_LookUpDoesNotTurnAVersionBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db, g := newWorld(), newDatabase(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, db, 0, pageModule())
		r.handle(tx(1, ins(eventTable, 9, "a", 5)))
		synctest.Wait()
		r.handle(tx(2, upd(venueTable, row(6, "a", "1"), row(6, "b", "1"))), tx(3, ins(eventTable, 2, "a", 6)))
		close(g.open)
		r.drain()
		if got, want := w.entry(t, pageKey(2)).Version, tx(3).Version; got != want {
			t.Errorf("version %s, want %s", got, want)
		}
	})
}

func TestRebuild_ManyKeysGoInBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		r := start(t, w, db, 0, pageModule())
		var changes []rowtide.Change
		for i := range 450 {
			changes = append(changes, ins(eventTable, i+1000, "a", 5))
		}
		r.handle(tx(1, changes...))
		r.drain()
		var sizes []int
		for _, a := range db.args {
			sizes = append(sizes, len(a))
		}
		if want := []int{200, 200, 200, 200, 50, 50}; !slices.Equal(sizes, want) {
			t.Errorf("keys per query %v, want %v", sizes, want)
		}
		if len(w.redis) != 450 {
			t.Errorf("%d entries, want 450", len(w.redis))
		}
	})
}

// temporary is an error that repeating may mend.
type temporary struct{ yes bool }

func (e temporary) Error() string   { return "lock wait" }
func (e temporary) Temporary() bool { return e.yes }

func TestRebuild_TemporaryErrorIsRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		failures := 5
		db.fail = func(string) error {
			if failures--; failures >= 0 {
				return fmt.Errorf("wrapped: %w", temporary{true})
			}
			return nil
		}
		r := start(t, w, db, 0, pageModule())
		began := time.Now()
		r.handle(tx(1, ins(eventTable, 2, "a", 5)))
		r.drain()
		w.entry(t, pageKey(2))
		if d := time.Since(began); d < 300*time.Millisecond || d > time.Second {
			t.Errorf("five repeats took %s, want them spaced out from 20ms up", d)
		}
		if len(db.asked) != 7 {
			t.Errorf("%d queries, want 5 failures and 2 answers", len(db.asked))
		}
	})
}

func TestRebuild_TemporaryErrorEndsWithTheContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, db := newWorld(), newDatabase()
		db.fail = func(string) error { return temporary{true} }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		agg := aggregator.New(aggregator.Config{}.WithDefaults(), compile(t, pageModule()), aggregator.Outside{Sink: w, Checkpoint: w, DB: db}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
		done := make(chan error, 1)
		go func() { done <- agg.Run(ctx) }()
		if err := agg.HandleTx(ctx, tx(1, ins(eventTable, 2, "a", 5))); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run: %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestRebuild_PermanentErrorNamesModuleAndQuery(t *testing.T) {
	errSyntax := errors.New("no such column")
	for _, tt := range []struct {
		name, query, want string
		err               error
		change            rowtide.Change
	}{
		{"one", "FROM shop.event WHERE id", "module event_page: rebuild.one: no such column", errSyntax, ins(eventTable, 2, "a", 5)},
		{"many", "FROM shop.session", `module event_page: rebuild.many "sessions": no such column`, errSyntax, ins(eventTable, 2, "a", 5)},
		{"keys", "WHERE venue_id", "module event_page: look up the keys that a change of shop.venue touches: no such column", errSyntax, ins(venueTable, 5, "a", "1")},
		{"refused", "FROM shop.event WHERE id", "module event_page: rebuild.one: lock wait", temporary{false}, ins(eventTable, 2, "a", 5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, db := newWorld(), newDatabase()
				db.fail = func(q string) error {
					if strings.Contains(q, tt.query) {
						return tt.err
					}
					return nil
				}
				r := start(t, w, db, 0, pageModule())
				r.handle(tx(1, tt.change))
				err := r.end()
				if !errors.Is(err, tt.err) || !strings.HasSuffix(err.Error(), tt.want) {
					t.Errorf("run: %v, want … %s", err, tt.want)
				}
				if got := w.names(); len(got) != 0 {
					t.Errorf("calls %v, want none", got)
				}
			})
		})
	}
}

func TestModule_DocumentsRefusesTwoRowsForAKey(t *testing.T) {
	m := compile(t, pageModule())[0]
	_, err := m.Documents([]any{1}, func(string, []any) ([]string, [][]rowtide.Value, error) {
		return []string{"id", "title"}, [][]rowtide.Value{row(1, "a"), row(1, "b")}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "module event_page: rebuild.one yields more than one row for key 1") {
		t.Errorf("err=%v, want it to name module and key", err)
	}
}

func TestModule_DocumentsKeyColumn(t *testing.T) {
	cfg := pageModule()
	cfg.Rebuild.Many = nil
	m := compile(t, cfg)[0]
	for _, tt := range []struct {
		name string
		cols []string
		row  []rowtide.Value
		want string
	}{
		{"first column is key and field", []string{"id", "t"}, row(7, "x"), `{"id":7,"t":"x"}`},
		{"$key is no field", []string{"t", "$key"}, row("x", 7), `{"t":"x"}`},
		{"$key alone", []string{"$key"}, row(7), `{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := m.Documents([]any{7}, func(string, []any) ([]string, [][]rowtide.Value, error) {
				return tt.cols, [][]rowtide.Value{tt.row}, nil
			})
			if err != nil || string(docs["7"]) != tt.want {
				t.Errorf("%s, %v; want %s", docs["7"], err, tt.want)
			}
		})
	}
}
