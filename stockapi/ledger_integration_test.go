//go:build integration

package stockapi_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// history is a log made by the real scripts: 3 SKUs, holds with two items, every
// way to end.
func history(t *testing.T, s *shop) []stockapi.Event {
	t.Helper()
	s.load(t, "E", map[string]int64{"A": 50, "B": 50, "C": 0})
	for i := range 30 {
		req := want(fmt.Sprintf("u%d", i%4), fmt.Sprint(i), item("A", 1))
		if i%2 == 0 {
			req.Items = append(req.Items, item("B", 1))
		}
		h := s.mustHold(t, req)
		var err error
		switch i % 5 {
		case 0, 1:
			_, err = s.Confirm(t.Context(), h.ID, fmt.Sprint("p", i))
		case 2:
			_, err = s.Cancel(t.Context(), h.ID, "mind")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.outbox(t, "E")
}

// records cuts a log into records of n events, offsets from first.
func records(events []stockapi.Event, n int, first int64) []stockapi.Record {
	var out []stockapi.Record
	for len(events) > 0 {
		k := min(n, len(events))
		out = append(out, stockapi.Record{Offset: first + int64(len(out)), Batch: stockapi.Batch{
			Version: 1, Event: "E", Epoch: 1, Events: events[:k],
		}})
		events = events[k:]
	}
	return out
}

func newLedger(t testing.TB, cfg stockapi.Config, db *sql.DB, obs stockapi.Observer) *stockapi.Ledger {
	t.Helper()
	l, err := stockapi.NewLedger(cfg, db, stockapi.Deps{Observer: obs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newChecker(t testing.TB, s *shop, db *sql.DB) *stockapi.Checker {
	t.Helper()
	c, err := stockapi.NewChecker(s.Service, db)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func apply(t testing.TB, l *stockapi.Ledger, recs ...stockapi.Record) stockapi.Applied {
	t.Helper()
	a, err := l.Apply(t.Context(), 0, recs)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// equalsRedis fails unless MySQL has what Redis has, at the same event.
func equalsRedis(t *testing.T, s *shop, db *sql.DB) {
	t.Helper()
	rep := sound(t, newChecker(t, s, db))
	for _, c := range rep.Cells {
		if c.LedgerSeq != c.RedisSeq {
			t.Errorf("ledger at %d, redis at %d", c.LedgerSeq, c.RedisSeq)
		}
	}
	if len(rep.Cells) != 1 {
		t.Errorf("%d cells were compared, want 1", len(rep.Cells))
	}
}

func TestLedger_AppliesEachEventOnce(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, stockapi.Config{})
		events := history(t, s)
		for _, size := range []int{1, 7, len(events)} {
			t.Run(fmt.Sprint("records of ", size), func(t *testing.T) {
				for _, table := range []string{"stock_event", "stock_sku", "stock_cell", "stock_detail", "stock_flow", "cell_pos"} {
					exec(t, db, "DELETE FROM "+table)
				}
				l := newLedger(t, s.cfg, db, nil)
				recs := records(events, size, 0)
				for i, r := range recs {
					if a := apply(t, l, r); a.New != a.Events {
						t.Fatalf("record %d: %+v, want all new", i, a)
					}
					// Once more, with everything before it: as after a crash of the relay.
					if a := apply(t, l, recs[max(0, i-1):i+1]...); a.New != 0 {
						t.Fatalf("record %d again: %+v, want nothing new", i, a)
					}
					sound(t, newChecker(t, s, db))
				}
				equalsRedis(t, s, db)
				flows := int64(0)
				for _, e := range events {
					flows += int64(len(e.Items))
				}
				if got := count(t, db, "SELECT COUNT(*) FROM stock_flow"); got != flows {
					t.Errorf("%d flow rows, want %d", got, flows)
				}
				if got := count(t, db, "SELECT SUM(qty) FROM stock_detail WHERE state='confirmed' AND sku='A' AND pay_id<>''"); got != 12 {
					t.Errorf("%d units of A confirmed, want 12", got)
				}
			})
		}
	})
}

func TestLedger_GapAppliesNothing(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, stockapi.Config{})
		events := history(t, s)
		l := newLedger(t, s.cfg, db, nil)
		apply(t, l, records(events[:10], 10, 0)...)
		before := state(t, db)
		good := records(events[10:15], 5, 1)[0]
		late := records(events[16:], len(events), 2)[0]
		if _, err := l.Apply(t.Context(), 0, []stockapi.Record{good, late}); !errors.Is(err, stockapi.ErrGap) {
			t.Fatalf("apply with a missing event: %v, want ErrGap", err)
		}
		if got := state(t, db); got != before {
			t.Fatalf("a batch with a gap changed the tables:\n%s\nwant\n%s", got, before)
		}
		if _, err := l.Apply(t.Context(), 0, records(events[15:], 100, 1)); !errors.Is(err, stockapi.ErrGap) {
			t.Fatalf("apply after a gap: %v, want ErrGap", err)
		}
		apply(t, l, good)
		apply(t, l, records(events[15:], 100, 2)...)
		equalsRedis(t, s, db)
	})
}

// state is every stock table as text.
func state(t testing.TB, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{"stock_cell ORDER BY sku", "cell_pos ORDER BY event"} {
		rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
		if err != nil {
			t.Fatal(err)
		}
		names, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			vals := make([]any, len(names))
			for i := range vals {
				vals[i] = new(sql.RawBytes)
			}
			if err := rows.Scan(vals...); err != nil {
				t.Fatal(err)
			}
			for _, v := range vals {
				b.WriteString(string(*v.(*sql.RawBytes)) + " ")
			}
			b.WriteByte('\n')
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"stock_flow", "stock_detail"} {
		fmt.Fprintln(&b, table, count(t, db, "SELECT COUNT(*) FROM "+table))
	}
	return b.String()
}

func TestLedger_DivergenceAppliesNothing(t *testing.T) {
	for _, tc := range []struct{ name, stmt string }{
		{"stock row changed by hand", "UPDATE stock_cell SET avail=avail+1 WHERE sku='A'"},
		{"stock row gone", "DELETE FROM stock_cell WHERE sku='A'"},
		{"open hold ended by hand", "UPDATE stock_detail SET state='cancelled' WHERE state='held'"},
		{"open hold gone", "DELETE FROM stock_detail WHERE state='held'"},
		{"held would be negative", "UPDATE stock_cell SET held=0 WHERE sku='A'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachDB(t, func(t *testing.T, db *sql.DB) {
				s := newShop(t, stockapi.Config{})
				s.load(t, "E", map[string]int64{"A": 9})
				h := s.mustHold(t, want("u", "k", item("A", 3)))
				l := newLedger(t, s.cfg, db, nil)
				apply(t, l, records(s.outbox(t, "E"), 9, 0)...)
				if _, err := s.Confirm(t.Context(), h.ID, "p"); err != nil {
					t.Fatal(err)
				}
				exec(t, db, tc.stmt)
				before := state(t, db)
				if _, err := l.Apply(t.Context(), 0, records(s.outbox(t, "E")[2:], 9, 1)); !errors.Is(err, stockapi.ErrDivergence) {
					t.Fatalf("apply: %v, want ErrDivergence", err)
				}
				if got := state(t, db); got != before {
					t.Fatalf("tables changed:\n%s\nwant\n%s", got, before)
				}
			})
		})
	}
}

func TestLedger_NumberGivenTwiceIsADivergence(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	s := newShop(t, stockapi.Config{})
	events := history(t, s)
	l := newLedger(t, s.cfg, db, nil)
	apply(t, l, records(events, 100, 0)...)
	for _, change := range []func(*stockapi.Event){
		func(e *stockapi.Event) { e.Hold = "aaaaaaaaaaaaaaaaaaaaaaaaaa" },
		func(e *stockapi.Event) { e.RedisMS++ },
		func(e *stockapi.Event) { e.Items = []stockapi.EventItem{{SKU: "A", Qty: 1, AvailAfter: 48}} },
	} {
		other := events[1]
		change(&other)
		if _, err := l.Apply(t.Context(), 0, records([]stockapi.Event{other}, 1, 1)); !errors.Is(err, stockapi.ErrDivergence) {
			t.Errorf("seq 2 again as %+v: %v, want ErrDivergence", other, err)
		}
	}
	equalsRedis(t, s, db)
}

func TestLedger_CrashBeforeCommitRepeatsNothing(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, stockapi.Config{})
		recs := records(history(t, s), 4, 0)
		crash := errors.New("crash")
		for i := range recs {
			l := newLedger(t, s.cfg, db, nil) // a new process each time
			l.SetBeforeCommit(func() error { return crash })
			if _, err := l.Apply(t.Context(), 0, recs[i:i+1]); !errors.Is(err, crash) {
				t.Fatalf("apply: %v, want the crash", err)
			}
			l.SetBeforeCommit(func() error { return nil })
			apply(t, l, recs[:i+1]...)
		}
		equalsRedis(t, s, db)
	})
}

func TestLedger_TwoLedgersApplyOnce(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, stockapi.Config{})
		recs := records(history(t, s), 2, 0)
		var wg sync.WaitGroup
		var mu sync.Mutex
		total := 0
		for range 3 {
			l := newLedger(t, s.cfg, db, nil)
			wg.Go(func() {
				for i := range recs {
					for {
						a, err := l.Apply(t.Context(), 0, recs[i:i+1])
						if errors.Is(err, stockapi.ErrGap) || errors.Is(err, stockapi.ErrDivergence) {
							t.Errorf("record %d: %v", i, err)
							return
						}
						if err == nil {
							mu.Lock()
							total += a.New
							mu.Unlock()
							break
						}
						// Two ledgers that make the first row meet in a deadlock; Run repeats.
					}
				}
			})
		}
		wg.Wait()
		if want := len(s.outbox(t, "E")); total != want {
			t.Errorf("%d events applied, want %d", total, want)
		}
		equalsRedis(t, s, db)
	})
}

func TestLedger_NewEpochAndLateEvents(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 5})
	h := s.mustHold(t, want("u", "k", item("A", 2)))
	if _, err := s.Confirm(t.Context(), h.ID, "p"); err != nil {
		t.Fatal(err)
	}
	first := records(s.outbox(t, "E"), 9, 0)
	if err := s.rdb.HSet(t.Context(), stockapi.MetaKey(s.cfg.Prefix, "E"), "pub", "1-3").Err(); err != nil {
		t.Fatal(err)
	}
	sale := stockapi.Sale{Event: "E", Epoch: 2, SKUs: []stockapi.SaleSKU{{SKU: "A", Stock: 10, Sold: 2}, {SKU: "B", Stock: 1}}}
	if err := s.Load(t.Context(), sale); err != nil {
		t.Fatal(err)
	}
	s.mustHold(t, want("u", "k2", item("A", 1), item("B", 1)))
	second := records(s.outbox(t, "E")[3:], 9, 1)
	second[0].Batch.Epoch = 2

	l := newLedger(t, s.cfg, db, nil)
	apply(t, l, append(first, second...)...)
	equalsRedis(t, s, db)
	apply(t, l, first...) // a late repetition of the old epoch is dropped
	equalsRedis(t, s, db)

	lost := first[0]
	lost.Batch.Events = []stockapi.Event{lost.Batch.Events[2]}
	lost.Batch.Events[0].Seq = 4 // an event of the old epoch that nobody has applied
	if _, err := l.Apply(t.Context(), 0, []stockapi.Record{lost}); !errors.Is(err, stockapi.ErrFenced) {
		t.Fatalf("late event of an old epoch: %v, want ErrFenced", err)
	}
}

func TestChecker_FindsOneUnitOfCorruption(t *testing.T) {
	for _, tc := range []struct{ rule, stmt string }{
		{"I2", "UPDATE stock_cell SET loaded=loaded+1 WHERE sku='A'"},
		{"I3", "UPDATE stock_cell SET avail=avail+1, loaded=loaded+1 WHERE sku='A'"},
		{"I7", "UPDATE stock_detail SET qty=qty+1 WHERE sku='A' AND state='held' LIMIT 1"},
		{"I7", "UPDATE stock_detail SET qty=qty+1 WHERE sku='A' AND state='confirmed' LIMIT 1"},
		{"I6", "UPDATE stock_detail SET qty=qty+1000 WHERE sku='A' AND state='confirmed' LIMIT 1"},
		{"REDIS=DB", "UPDATE stock_cell SET sold=sold+1, loaded=loaded+1 WHERE sku='A'"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			db := newDB(t, testenv.MariaDB(t))
			s := newShop(t, stockapi.Config{})
			apply(t, newLedger(t, s.cfg, db, nil), records(history(t, s), 50, 0)...)
			equalsRedis(t, s, db)
			exec(t, db, tc.stmt)
			rep, err := newChecker(t, s, db).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range rep.Violations {
				if v.Rule == tc.rule {
					return
				}
			}
			t.Fatalf("violations %v, want %s", rep.Violations, tc.rule)
		})
	}
}

func TestChecker_FindsThatRedisLostACell(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	s := newShop(t, stockapi.Config{})
	apply(t, newLedger(t, s.cfg, db, nil), records(history(t, s), 50, 0)...)
	for key := range s.dump(t) {
		if err := s.rdb.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c := newChecker(t, s, db)
	rep, err := c.Check(t.Context())
	if err != nil || rep.OK() {
		t.Fatalf("check: %+v %v, want a violation", rep, err)
	}
	if d, err := c.Drained(t.Context()); err != nil || d.OK() {
		t.Fatalf("drained: %+v %v, want no", d, err)
	}
}

func TestPreflight_NamesWhatIsMissing(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		rdb := newRedis(t)
		if warnings, err := stockapi.Preflight(t.Context(), rdb, db); err != nil || len(warnings) != 0 {
			t.Fatalf("preflight: %v %v, want nothing", warnings, err)
		}
		exec(t, db, "DROP TABLE stock_flow")
		if _, err := stockapi.Preflight(t.Context(), rdb, db); !errors.Is(err, stockapi.ErrSchemaMissing) {
			t.Fatalf("preflight: %v, want ErrSchemaMissing", err)
		}
		if err := stockapi.EnsureSchema(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		if _, err := stockapi.Preflight(t.Context(), rdb, db); err != nil {
			t.Fatalf("preflight after EnsureSchema: %v", err)
		}
	})
}
