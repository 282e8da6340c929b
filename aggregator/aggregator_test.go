package aggregator_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

var errDown = errors.New("it is down")

func TestAggregator_NewestChangePerKeyWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 9, "first", 1)))
		synctest.Wait() // the first flush is under way; the rest gathers
		r.handle(
			tx(2, ins(eventTable, 1, "old", 1)),
			tx(3, upd(eventTable, row(1, "old", 1), row(1, "newer", 1))),
			tx(4, upd(eventTable, row(1, "newer", 1), row(1, "newest", 1)), ins(eventTable, 2, "two", 1)),
		)
		close(g.open)
		r.drain()
		flushes := w.of("overwrite")
		if len(flushes) != 2 || len(flushes[1].entries) != 2 {
			t.Fatalf("flushes %+v, want 2, the second with 2 entries", flushes)
		}
		got := w.entry(t, eventKey(1))
		if want := `{"title":"newest","id":1}`; string(got.Payload) != want || got.Version != tx(4).Version || got.Flags != 0 || got.TTL != time.Hour {
			t.Errorf("entry %+v with %s, want %s at %s", got, got.Payload, want, tx(4).Version)
		}
	})
}

func TestAggregator_KeyChangeEmptiesTheOldKeyInTheSameFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		synctest.Wait()
		r.handle(tx(2, upd(eventTable, row(1, "a", 1), row(7, "a", 1))))
		r.drain()
		last := w.of("overwrite")[1].entries
		if len(last) != 2 {
			t.Fatalf("flush %+v, want both keys in it", last)
		}
		old, moved := w.entry(t, eventKey(1)), w.entry(t, eventKey(7))
		if old.Flags != rowtide.FlagEmpty|rowtide.FlagDeleted || len(old.Payload) > 0 || old.Version != tx(2).Version {
			t.Errorf("old key holds %+v, want EMPTY at %s", old, tx(2).Version)
		}
		if string(moved.Payload) != `{"title":"a","id":7}` || moved.Flags != 0 || moved.Version != tx(2).Version {
			t.Errorf("new key holds %+v, want the value at %s", moved, tx(2).Version)
		}
	})
}

func TestAggregator_DeleteIsAnOverwriteWithItsOwnVersion(t *testing.T) {
	for _, tt := range []struct {
		name     string
		emptyTTL time.Duration
		want     time.Duration
	}{
		{"short empty ttl is stretched over late writers", time.Second, 10 * time.Minute},
		{"long empty ttl is kept", time.Hour, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, m := newWorld(), eventModule()
				m.Empty.TTL = tt.emptyTTL
				r := start(t, w, nil, 0, m)
				r.handle(tx(1, ins(eventTable, 1, "a", 1)), tx(2, del(eventTable, 1, "a", 1)))
				r.drain()
				got := w.entry(t, eventKey(1))
				if got.Flags != rowtide.FlagEmpty|rowtide.FlagDeleted || got.Version != tx(2).Version || len(got.Payload) != 0 || got.TTL != tt.want {
					t.Errorf("entry %+v, want EMPTY and DELETED at %s for %s", got, tx(2).Version, tt.want)
				}
			})
		})
	}
}

func TestAggregator_LastOperationOfATransactionDecides(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []rowtide.Change
		want    string // "" is EMPTY
	}{
		{"delete, insert", []rowtide.Change{del(eventTable, 1, "a", 1), ins(eventTable, 1, "b", 1)}, `{"title":"b","id":1}`},
		{"insert, delete", []rowtide.Change{ins(eventTable, 1, "a", 1), del(eventTable, 1, "a", 1)}, ""},
		{"away and back", []rowtide.Change{upd(eventTable, row(1, "a", 1), row(5, "a", 1)), upd(eventTable, row(5, "a", 1), row(1, "c", 1))}, `{"title":"c","id":1}`},
		{"another row takes the key", []rowtide.Change{upd(eventTable, row(1, "a", 1), row(5, "a", 1)), upd(eventTable, row(2, "b", 1), row(1, "b", 1))}, `{"title":"b","id":1}`},
		{"NULL title", []rowtide.Change{ins(eventTable, 1, nil, 1)}, `{"title":null,"id":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				r := start(t, w, nil, 0, eventModule())
				r.handle(tx(1, tt.changes...))
				r.drain()
				got := w.entry(t, eventKey(1))
				if string(got.Payload) != tt.want || got.Empty() != (tt.want == "") {
					t.Errorf("entry %+v with %s, want %q", got, got.Payload, tt.want)
				}
			})
		})
	}
}

func TestAggregator_OneChangeFeedsEveryModule(t *testing.T) {
	bubble(t, func(t *testing.T) {
		byVenue := aggregator.ModuleConfig{Name: "by-venue", Version: 3, Key: "v{venue_id}:{id}", From: &aggregator.FromConfig{Table: "shop.event"}}
		w := newWorld()
		r := start(t, w, nil, 0, eventModule(), byVenue)
		r.handle(tx(1, ins(eventTable, 1, "a", 8)))
		r.drain()
		w.entry(t, eventKey(1))
		got := w.entry(t, rowtide.Key{Module: "by-venue", Version: 3, ID: "v8:1"})
		if want := `{"id":1,"title":"a","venue_id":8}`; string(got.Payload) != want {
			t.Errorf("%s, want all columns: %s", got.Payload, want)
		}
	})
}

func TestAggregator_RedisThenKafkaThenCheckpoint(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		for n := 1; n <= 3; n++ {
			r.handle(tx(n, ins(eventTable, n, "a", 1)))
			pass(time.Second)
		}
		r.drain()
		want := []string{"overwrite", "broadcast", "save", "overwrite", "broadcast", "save", "overwrite", "broadcast", "save"}
		if got := w.names(); !slices.Equal(got, want) {
			t.Errorf("calls %v, want %v", got, want)
		}
		for i, c := range w.of("broadcast") {
			if want := tx(i + 1); c.version != want.Version || !c.oldest.Equal(want.CommittedAt) {
				t.Errorf("broadcast %d: watermark %s oldest %s, want %s %s", i, c.version, c.oldest, want.Version, want.CommittedAt)
			}
		}
	})
}

func TestAggregator_BroadcastsWhatOverwriteFoundSuperseded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.redis[eventKey(1)] = rowtide.Entry{Key: eventKey(1), Version: tx(50).Version}
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		r.drain()
		if got := w.of("broadcast"); len(got) != 1 || len(got[0].entries) != 1 {
			t.Errorf("broadcasts %+v, want the one entry", got)
		}
		if got := w.entry(t, eventKey(1)).Version; got != tx(50).Version {
			t.Errorf("version %s, want the newer one kept", got)
		}
	})
}

// While one call hangs, nothing that must come after it happens, and what may
// happen beside it (the next flush's way to Redis) does.
func TestAggregator_SaveNeverRunsAhead(t *testing.T) {
	for _, tt := range []struct {
		hang string
		want []string
	}{
		{"overwrite", []string{}},
		{"broadcast", []string{"overwrite", "overwrite", "overwrite", "overwrite"}},
		{"save", []string{"overwrite", "broadcast", "overwrite", "broadcast", "overwrite", "broadcast", "overwrite", "broadcast"}},
	} {
		t.Run(tt.hang+" hangs", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, g := newWorld(), newGate(tt.hang)
				w.before = g.before
				r := start(t, w, nil, 0, eventModule())
				for n := 1; n <= 4; n++ {
					r.handle(tx(n, ins(eventTable, n, "a", 1)))
					pass(time.Second)
				}
				if got := w.names(); !slices.Equal(got, tt.want) {
					t.Errorf("calls while %s hangs: %v, want %v", tt.hang, got, tt.want)
				}
				close(g.open)
				r.drain()
				checkSaves(t, w, 4)
			})
		})
	}
}

// checkSaves demands that every Save came after the Broadcast of all it covers,
// and the last one covers everything.
func checkSaves(t *testing.T, w *world, txs int) {
	t.Helper()
	var told rowtide.Version
	var saved uint64
	var gtids []string
	for _, c := range w.done() {
		switch c.what {
		case "broadcast":
			told = c.version
		case "save":
			if c.last.Pos > uint64(told.Pos()) {
				t.Errorf("saved %s, but only %s is broadcast", c.last, told)
			}
			if c.last.Pos < saved {
				t.Errorf("saved %s after position %d", c.last, saved)
			}
			saved = c.last.Pos
			gtids = append(gtids, c.gtids...)
		}
	}
	if want := posOf(txs).Pos; saved != want {
		t.Errorf("saved up to %d, want %d", saved, want)
	}
	for i, g := range gtids {
		if want := posOf(i + 1).GTID; g != want {
			t.Errorf("gtid %d is %s, want %s", i, g, want)
		}
	}
	if len(gtids) != txs {
		t.Errorf("%d gtids saved, want %d", len(gtids), txs)
	}
}

func TestAggregator_FailureAtEachPointEndsRunAndHandleTx(t *testing.T) {
	for _, tt := range []struct {
		what string
		nth  int
		want string
		save int // position that may be saved
	}{
		{"overwrite", 1, "flush 1 transactions up to binlog.000001:100 (0-1-1): it is down", 0},
		{"overwrite", 2, "flush 1 transactions up to binlog.000001:200 (0-1-2): it is down", 100},
		{"broadcast", 1, "broadcast 1 entries up to binlog.000001:100 (0-1-1): it is down", 0},
		{"broadcast", 2, "broadcast 1 entries up to binlog.000001:200 (0-1-2): it is down", 100},
		{"save", 1, "save checkpoint binlog.000001:100 (0-1-1): it is down", 0},
		{"save", 2, "save checkpoint binlog.000001:200 (0-1-2): it is down", 100},
	} {
		t.Run(fmt.Sprint(tt.what, " ", tt.nth), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld()
				w.before = func(_ context.Context, what string, n int) error {
					if what == tt.what && n == tt.nth {
						return errDown
					}
					return nil
				}
				r := start(t, w, nil, 0, eventModule())
				for n := 1; n <= tt.nth; n++ {
					r.handle(tx(n, ins(eventTable, n, "a", 1)))
					pass(time.Second)
				}
				err := r.end()
				if !errors.Is(err, errDown) || err.Error() != tt.want {
					t.Errorf("run: %v, want %q", err, tt.want)
				}
				for range 2 {
					if err := r.agg.HandleTx(t.Context(), tx(9, ins(eventTable, 9, "a", 1))); !errors.Is(err, errDown) {
						t.Errorf("handle after the end: %v, want %v", err, errDown)
					}
				}
				for _, c := range w.of("save") {
					if c.last.Pos > uint64(tt.save) {
						t.Errorf("saved %s, want at most %d", c.last, tt.save)
					}
				}
			})
		})
	}
}

func TestAggregator_FailureWakesABlockedHandleTx(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		fail := make(chan struct{})
		w.before = func(_ context.Context, what string, _ int) error {
			if what == "overwrite" {
				<-fail
				return errDown
			}
			return nil
		}
		r := start(t, w, nil, 1, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		synctest.Wait()
		blocked := make(chan error, 1)
		go func() { blocked <- r.agg.HandleTx(t.Context(), tx(2, ins(eventTable, 2, "a", 1))) }()
		synctest.Wait()
		close(fail)
		if err := <-blocked; !errors.Is(err, errDown) {
			t.Errorf("blocked HandleTx: %v, want %v", err, errDown)
		}
		if err := r.end(); !errors.Is(err, errDown) {
			t.Errorf("run: %v, want %v", err, errDown)
		}
	})
}

func TestAggregator_GroupCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		synctest.Wait()
		for n := 2; n <= 101; n++ {
			r.handle(tx(n, ins(eventTable, n, "a", 1)))
		}
		g.open <- struct{}{}
		synctest.Wait()
		close(g.open)
		r.drain()
		flushes := w.of("overwrite")
		if len(flushes) != 2 || len(flushes[0].entries) != 1 || len(flushes[1].entries) != 100 {
			t.Errorf("%d flushes, want one of 1 and one of 100 entries", len(flushes))
		}
		saves := w.of("save")
		if len(saves) != 2 || saves[1].last != posOf(101) || len(saves[1].gtids) != 100 {
			t.Errorf("saves %+v, want the second to cover 100 transactions up to %s", saves, posOf(101))
		}
		if got, want := w.of("broadcast")[1].oldest, tx(2).CommittedAt; !got.Equal(want) {
			t.Errorf("oldest commit %s, want %s", got, want)
		}
	})
}

// A flush that comes up during a broadcast waits for that one's rest only: all
// that wait go together in the next.
func TestAggregator_WaitingFlushesAreBroadcastTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("broadcast")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		for n := 1; n <= 5; n++ {
			r.handle(tx(n, ins(eventTable, n, "a", 1)))
			synctest.Wait()
		}
		close(g.open)
		r.drain()
		told := w.of("broadcast")
		if len(told) != 2 || len(told[1].entries) != 4 || told[1].version != tx(5).Version || !told[1].oldest.Equal(tx(2).CommittedAt) {
			t.Fatalf("broadcasts %+v, want one of 1 and one of 4 entries up to %s", told, tx(5).Version)
		}
		for i, e := range told[1].entries {
			if want := tx(i + 2).Version; e.Version != want {
				t.Errorf("entry %d has version %s, want %s: the order of commits", i, e.Version, want)
			}
		}
		checkSaves(t, w, 5)
	})
}

// Small flushes do not each cost a record and a checkpoint; what was saved last
// covers all.
func TestAggregator_BroadcastsAndCheckpointsAreSpacedOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		for n := 1; n <= 200; n++ {
			r.handle(tx(n, ins(eventTable, n, "a", 1)))
			pass(time.Millisecond)
		}
		r.drain()
		if n := len(w.of("broadcast")); n < 50 || n > 101 {
			t.Errorf("%d broadcasts in 200 ms, want about 100", n)
		}
		if n := len(w.of("save")); n < 10 || n > 25 {
			t.Errorf("%d checkpoints in 200 ms, want about 20", n)
		}
		checkSaves(t, w, 200)
	})
}

func TestAggregator_NoDelayWhenIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		began := time.Now()
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		synctest.Wait()
		if got := w.names(); len(got) != 3 || !time.Now().Equal(began) {
			t.Errorf("calls %v after %s, want a whole flush at once", got, time.Since(began))
		}
		r.drain()
	})
}

func TestAggregator_BackPressure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 1, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1))) // goes in, however large
		synctest.Wait()

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.agg.HandleTx(short, tx(2, ins(eventTable, 2, "a", 1))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("HandleTx at the bound: %v, want to block until its context ends", err)
		}
		blocked := make(chan error, 1)
		go func() { blocked <- r.agg.HandleTx(t.Context(), tx(2, ins(eventTable, 2, "a", 1))) }()
		synctest.Wait()
		select {
		case err := <-blocked:
			t.Errorf("HandleTx returned %v at the bound", err)
		default:
		}
		g.open <- struct{}{} // one flush leaves
		if err := <-blocked; err != nil {
			t.Errorf("HandleTx after a flush left: %v", err)
		}
		close(g.open)
		r.drain()
		checkSaves(t, w, 2)
	})
}

func TestAggregator_CloseIntakeDrainsEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("broadcast")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		for n := 1; n <= 50; n++ {
			r.handle(tx(n, ins(eventTable, n, "a", 1)))
		}
		r.handle(tx(51, ins(otherTable, 1))) // its checkpoint must not wait for the idle second
		r.agg.CloseIntake()
		synctest.Wait()
		select {
		case err := <-r.done:
			t.Fatalf("run ended (%v) before the drain", err)
		default:
		}
		began := time.Now()
		close(g.open)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("the drain waited %s", d)
		}
		checkSaves(t, w, 51)
		if err := r.agg.HandleTx(t.Context(), tx(52)); err == nil {
			t.Error("HandleTx after the end: no error")
		}
	})
}

func TestAggregator_ContextEndsRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		ctx, cancel := context.WithCancel(t.Context())
		agg := aggregator.New(aggregator.Config{}.WithDefaults(), compile(t, eventModule()), aggregator.Outside{Sink: w, Checkpoint: w, DB: nil}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
		done := make(chan error, 1)
		go func() { done <- agg.Run(ctx) }()
		if err := agg.HandleTx(ctx, tx(1, ins(eventTable, 1, "a", 1))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v, want %v", err, context.Canceled)
		}
		if got := w.of("save"); len(got) != 0 {
			t.Errorf("saved %+v", got)
		}
	})
}

func TestAggregator_UnwatchedTransactionsMoveTheCheckpointOnceASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		for n := 1; n <= 25; n++ { // 2.5 s of traffic
			r.handle(tx(n, ins(otherTable, n)))
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(2 * time.Second)
		saves := w.of("save")
		if len(saves) != 3 || saves[len(saves)-1].last != posOf(25) {
			t.Errorf("saves %+v, want one per second of traffic, the last at %s", saves, posOf(25))
		}
		if got := w.of("overwrite"); len(got) != 0 {
			t.Errorf("overwrote %+v for tables that nobody watches", got)
		}
		<-time.After(time.Hour)
		if got := len(w.of("save")); got != 3 {
			t.Errorf("%d saves after an idle hour, want 3", got)
		}
		r.drain()
		checkSaves(t, w, 25)
	})
}

// A busy server with few watched tables must be followed at its full speed: the
// bound on pending bytes is for changes that wait, and these do not.
func TestAggregator_UnwatchedTrafficDoesNotHoldTheSourceBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 1000, eventModule())
		began := time.Now()
		for n := 1; n <= 100; n++ { // ten times the bound
			r.handle(tx(n, ins(otherTable, n)))
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("unwatched transactions were held back for %s", d)
		}
		r.drain()
		checkSaves(t, w, 100)
	})
}

func TestAggregator_RefusedTransactionLeavesNoTrace(t *testing.T) {
	narrow := &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id", "venue_id"}}
	for _, tt := range []struct {
		name string
		bad  rowtide.Change
		is   error
		want string
	}{
		{"NULL key", ins(eventTable, nil, "b", 1), nil, "transaction at binlog.000001:200 (0-1-2): module event: table shop.event: key after the change: key column is NULL"},
		{
			"column gone", ins(narrow, 3, 1), rowtide.ErrSchemaChanged,
			`transaction at binlog.000001:200 (0-1-2): module event: table shop.event has no column "title", it has id, venue_id: table shape does not match the event`,
		},
	} {
		for _, earlier := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, earlier pending %t", tt.name, earlier), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					w, g := newWorld(), newGate("overwrite")
					w.before = g.before
					r := start(t, w, nil, 0, eventModule())
					synctest.Wait()
					want := 0
					if earlier {
						r.handle(tx(1, ins(eventTable, 1, "a", 1)))
						want = 1
					}
					err := r.agg.HandleTx(t.Context(), tx(2, ins(eventTable, 2, "half", 1), upd(eventTable, row(1, "a", 1), row(1, "half", 1)), tt.bad))
					if err == nil || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
						t.Errorf("err=%v, want %q", err, tt.want)
					}
					close(g.open)
					r.drain() // as the daemon does when its source ends with an error
					var keys []string
					for k, e := range w.redis {
						keys = append(keys, k.ID+"="+string(e.Payload))
					}
					if earlier != slices.Contains(keys, `1={"title":"a","id":1}`) || len(keys) != want {
						t.Errorf("redis holds %v, want only what came before", keys)
					}
					saves := w.of("save")
					if len(saves) != want || want == 1 && saves[0].last != posOf(1) {
						t.Errorf("saves %+v, want only the position before", saves)
					}
				})
			})
		}
	}
}

// No flush may hold a part of a transaction, whatever the boundaries.
func TestAggregator_TransactionIsNeverSplit(t *testing.T) {
	const txs, width = 300, 7
	w := newWorld()
	agg := aggregator.New(aggregator.Config{MaxPending: 4000}, compile(t, eventModule()), aggregator.Outside{Sink: w, Checkpoint: w, DB: nil}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
	done := make(chan error, 1)
	go func() { done <- agg.Run(t.Context()) }()
	for n := 1; n <= txs; n++ {
		var changes []rowtide.Change
		for i := range width {
			changes = append(changes, ins(eventTable, n*width+i, "a", 1))
		}
		if err := agg.HandleTx(t.Context(), tx(n, changes...)); err != nil {
			t.Fatal(err)
		}
	}
	agg.CloseIntake()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, f := range w.of("overwrite") {
		parts := map[rowtide.Version]int{}
		for _, e := range f.entries {
			parts[e.Version]++
		}
		for v, n := range parts {
			if n != width {
				t.Errorf("flush %d holds %d of %d changes of transaction %s", i, n, width, v)
			}
		}
	}
	checkSaves(t, w, txs)
}

func TestTables_ListsEachOnce(t *testing.T) {
	got := aggregator.Tables(compile(t, eventModule(), pageModule()))
	slices.Sort(got)
	if want := []string{"shop.event", "shop.session", "shop.venue"}; !reflect.DeepEqual(got, want) {
		t.Errorf("tables %v, want %v", got, want)
	}
}

func TestConfig_Validate(t *testing.T) {
	if err := (aggregator.Config{}).WithDefaults().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	if err := (aggregator.Config{MaxPending: -1}).Validate(); err == nil || !strings.Contains(err.Error(), "aggregator.max_pending -1") {
		t.Errorf("err=%v, want it to name aggregator.max_pending", err)
	}
}
