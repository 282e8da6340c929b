//go:build integration

package binlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

var errKilled = errors.New("killed")

// The process dies in the middle: what the checkpoint did not cover is read again,
// what it did is not.
func TestBackfill_GoesOnAfterAKill(t *testing.T) {
	onEveryFlavorAndMode(t, func(t *testing.T, target testenv.SQLTarget, mode string) {
		const rows, per, saved, killed = 600, 10, 20, 30
		d := openDatabase(t, target)
		table, store, cfg := d.eventTable(), &memory{}, d.fillConfig(mode)
		d.fillRows(rows)
		s := newSink(t, table, "id")
		s.hook = func(chunks int) (bool, error) {
			if chunks == killed {
				return false, errKilled
			}
			return chunks < saved, nil
		}
		f := startFill(t, d, cfg, store, s, binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(per) })
		if err := f.failure(); !errors.Is(err, errKilled) {
			t.Fatalf("the source ended with %v", err)
		}
		f.cancel()
		if err := <-f.out; err != nil {
			t.Error(err)
		}
		f.quit = f.cancel
		if got := f.requests()[0]; got.Status != binlog.BackfillRunning || got.Rows == 0 || got.Rows >= saved*per {
			t.Errorf("after the kill: %+v, want less than %d rows to count", got, saved*per)
		}

		// The same sink goes on: it is Redis, which did not die.
		s.hook, s.halted = nil, false
		first := len(s.reads)
		f = startFill(t, d, cfg, store, s, binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(per) })
		got := f.untilDone()
		f.equals("")
		if got.Rows != rows || len(f.requests()) != 1 {
			t.Errorf("%d rows read for %d requests, want %d for 1", got.Rows, len(f.requests()), rows)
		}
		again := 0
		for _, n := range s.reads {
			again += n - 1
		}
		t.Logf("%d rows at the kill, %d read again", first, again)
		if again < (killed-saved+1)*per || again > (killed-saved+3)*per {
			t.Errorf("%d rows were read again, want those that no checkpoint covered", again)
		}
	})
}

// What was read up to a checkpoint goes on from there: the row is written down
// once a second and whenever a request stops.
func TestBackfill_PausesAndContinuesWhereItWas(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		const rows = 500
		d := openDatabase(t, target)
		table, store, cfg := d.eventTable(), &memory{}, d.fillConfig(binlog.ModeAuto)
		d.fillRows(rows)
		s := newSink(t, table, "id")
		reachedTen, go10 := make(chan struct{}), make(chan struct{})
		s.hook = func(chunks int) (bool, error) {
			if chunks == 10 {
				close(reachedTen)
				<-go10
			}
			return true, nil
		}
		f := startFill(t, d, cfg, store, s, binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(5) })
		<-reachedTen
		id := f.requests()[0].ID
		if ok, err := f.bf.Pause(testContext(t), id); !ok || err != nil {
			t.Fatalf("pause: %v, %v", ok, err)
		}
		close(go10)
		// An idle request is written down with all that is covered.
		paused := f.until("paused with its rows", func(b binlog.Backfill) bool { return b.Status == binlog.BackfillPaused && b.Rows == 50 })
		if ok, err := f.bf.Pause(testContext(t), paused.ID); ok || err != nil {
			t.Errorf("a second pause: %v, %v; want nothing to do", ok, err)
		}
		f.stopFill() // a restart leaves it paused
		f = startFill(t, d, cfg, store, s, binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(5) })
		d.exec("INSERT INTO event VALUES (-1,-1)")
		f.seen("-1,")
		if s.chunks != 10 {
			t.Errorf("%d chunks while paused, want 10", s.chunks)
		}
		if ok, err := f.bf.Continue(testContext(t), id); !ok || err != nil {
			t.Fatalf("continue: %v, %v", ok, err)
		}
		if got := f.untilDone(); got.Rows != rows {
			t.Errorf("%d rows, want %d", got.Rows, rows)
		}
		f.equals("")
		for key, n := range s.reads {
			if n != 1 {
				t.Errorf("key %s was read %d times", key, n)
			}
		}
	})
}

func TestBackfill_WhereAndFewNarrowTheRows(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, cfg := d.eventTable(), d.fillConfig(binlog.ModeAuto)
		cfg.Backfill.Auto = new(false)
		d.fillRows(300)
		s := newSink(t, table, "id")
		obs := &countingObserver{}
		f := startFill(t, d, cfg, &memory{}, s, obs, func(b *binlog.Backfiller) { b.SetChunkRows(20) })
		if err := f.bf.Create(testContext(t)); err != nil {
			t.Fatal(err)
		}
		ask := func(r binlog.BackfillRequest) binlog.Backfill {
			t.Helper()
			r.Modules, r.Table = []string{"m/1"}, table
			id, err := f.bf.Add(testContext(t), r)
			if err != nil {
				t.Fatal(err)
			}
			return f.until(r.Where, func(b binlog.Backfill) bool { return b.ID == id && b.Status.Ended() })
		}
		// Sparse: most chunks are empty, and each walks along 20 rows only.
		if got := ask(binlog.BackfillRequest{Where: "v % 1000 = 0 -- every hundredth"}); got.Status != binlog.BackfillDone || got.Rows != 3 {
			t.Errorf("%+v, want 3 rows", got)
		}
		f.equals(" WHERE v % 1000 = 0")
		if got := obs.chunks.Load(); got != 15 {
			t.Errorf("%d chunks, want 15", got)
		}
		if got := ask(binlog.BackfillRequest{Where: "id IN (7, 299)", Few: true}); got.Status != binlog.BackfillDone || got.Rows != 2 {
			t.Errorf("%+v, want 2 rows", got)
		}
		f.equals(" WHERE v % 1000 = 0 OR id IN (7, 299)")
		if got := ask(binlog.BackfillRequest{Where: "nope = 1"}); got.Status != binlog.BackfillFailed || !strings.Contains(got.Err, "nope") {
			t.Errorf("%+v, want a failure that names the column", got)
		}
		// One that fails does not hold up the next.
		if got := ask(binlog.BackfillRequest{}); got.Status != binlog.BackfillDone || got.Rows != 300 {
			t.Errorf("%+v, want 300 rows", got)
		}
		if obs.failed.Load() != 1 {
			t.Errorf("%d failures told, want 1", obs.failed.Load())
		}
	})
}

func TestBackfill_NeedsAKeyThatTellsRowsApart(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		d.exec("CREATE TABLE thing (a INT NULL UNIQUE, b TEXT, UNIQUE KEY part (b(10)))")
		f := startFill(t, d, d.fillConfig(binlog.ModeAuto), &memory{}, newSink(t, d.schema+".thing", "a"), binlog.NopObserver{}, nil)
		got := f.until("failed", func(b binlog.Backfill) bool { return b.Status == binlog.BackfillFailed })
		if want := "table " + d.schema + ".thing: it has no primary key and no unique key whose columns are all NOT NULL"; !strings.Contains(got.Err, want) {
			t.Errorf("error %q, want %q", got.Err, want)
		}
	})
}

func TestBackfill_EmptyTableAndAnAlteredOne(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table := d.eventTable()
		s := newSink(t, table, "id")
		f := startFill(t, d, d.fillConfig(binlog.ModeAuto), &memory{}, s, binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(5) })
		if got := f.untilDone(); got.Rows != 0 {
			t.Errorf("%+v, want no rows", got)
		}
		at5, go5 := make(chan struct{}), make(chan struct{})
		s.hook = func(chunks int) (bool, error) {
			if chunks == 5 {
				close(at5)
				<-go5
			}
			return true, nil
		}
		d.fillRows(100)
		s.failed = true // an ALTER changes rows without a word in the log
		if _, err := f.bf.Add(testContext(t), binlog.BackfillRequest{Modules: []string{"m/1"}, Table: table}); err != nil {
			t.Fatal(err)
		}
		<-at5
		d.exec("ALTER TABLE event ADD COLUMN w INT DEFAULT 7 FIRST")
		close(go5)
		f.untilDone()
		with := 0
		s.mu.Lock()
		for _, e := range s.entries {
			if strings.HasPrefix(e.row, "w=7 ") {
				with++
			}
		}
		s.mu.Unlock()
		if with != 75 {
			t.Errorf("%d rows have the new column, want the 75 that were read after it", with)
		}
	})
}

// Which tables are read by themselves, over restarts.
func TestBackfill_QueuesWhatIsNewOrNotCovered(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, store, cfg := d.eventTable(), &memory{}, d.fillConfig(binlog.ModeAuto)
		d.fillRows(20)
		prepare := func(store binlog.Store, modules ...string) []string {
			t.Helper()
			src := binlog.New(cfg, []string{table}, slog.New(slog.DiscardHandler), binlog.NopObserver{})
			defer src.Close()
			if err := src.Preflight(testContext(t), nil, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := src.Resume(testContext(t), store); err != nil {
				t.Fatal(err)
			}
			var targets []binlog.BackfillTarget
			for _, m := range modules {
				targets = append(targets, binlog.BackfillTarget{Module: m, Table: table})
			}
			b := src.Backfiller(daemonName, targets)
			if err := b.Prepare(testContext(t)); err != nil {
				t.Fatal(err)
			}
			list, err := b.List(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, r := range list {
				out = append(out, fmt.Sprintf("%s %s %d", strings.Join(r.Modules, "+"), r.Status, r.Rows))
			}
			return out
		}
		want := func(got []string, want ...string) {
			t.Helper()
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("requests %q, want %q", got, want)
			}
		}
		f := startFill(t, d, cfg, store, newSink(t, table, "id"), binlog.NopObserver{}, nil)
		f.untilDone()
		f.stopFill()
		covered := *store
		want(prepare(store, "m/1"), "m/1 done 20")
		want(prepare(store, "m/1", "m/2", "n/1"), "m/1 done 20", "m/2+n/1 queued 0")
		want(prepare(store, "m/1", "m/2", "n/1"), "m/1 done 20", "m/2+n/1 queued 0")
		// A checkpoint that is gone, or older than the rows: Redis may have lost them.
		old := memory{saved: covered.saved[:1]}
		want(prepare(&old, "m/1", "m/2", "n/1"), "m/1 done 20", "m/2+n/1 queued 0", "m/1 queued 0")
		// What is begun for a version that is no longer in force would be written under the other.
		want(prepare(&memory{}, "m/1"), "m/1 done 20", "m/2+n/1 failed 0", "m/1 queued 0", "n/1 queued 0")
		// That it was given up is no reason not to fill the version once it is in force.
		all := []string{"m/1 done 20", "m/2+n/1 failed 0", "m/1 failed 0", "n/1 queued 0", "m/2 queued 0"}
		want(prepare(store, "m/2", "n/1"), all...)
		cfg.Backfill.Auto = new(false)
		want(prepare(&memory{}, "x/1"), all...)
	})
}

// Without the rights everything else works as long as nobody asks for it, and the
// message says what to run.
func TestPreflightBackfill_MissingRights(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, cfg := d.eventTable(), d.fillConfig(binlog.ModeAuto)
		d.fillRows(5)
		cfg.User, cfg.Password = "u"+d.schema[len(d.schema)-8:], "right"
		client := "REPLICATION CLIENT"
		if target.Flavor == testenv.FlavorMariaDB {
			client = "BINLOG MONITOR"
		}
		d.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'right'", cfg.User),
			fmt.Sprintf("GRANT REPLICATION SLAVE, %s ON *.* TO '%s'@'%%'", client, cfg.User), fmt.Sprintf("GRANT SELECT ON %s TO '%s'@'%%'", table, cfg.User))
		t.Cleanup(func() { _, _ = d.db.ExecContext(context.WithoutCancel(t.Context()), "DROP USER '"+cfg.User+"'@'%'") })

		src := openSource(t, cfg, table)
		err := src.PreflightBackfill(testContext(t))
		grant := fmt.Sprintf("GRANT CREATE, SELECT, INSERT, UPDATE ON `%s`.* TO '%s'@'%%'", cfg.Backfill.Schema, cfg.User)
		if !errors.Is(err, binlog.ErrPreflight) || !strings.Contains(err.Error(), "run "+grant+", or set source.backfill.auto: false") {
			t.Fatalf("err=%v, want %q", err, grant)
		}
		// Off: nothing of it is needed.
		off := cfg
		off.Backfill.Auto = new(false)
		progress, err := src.Resume(testContext(t), &memory{})
		if err != nil || progress == nil {
			t.Fatal(err)
		}
		quiet := binlog.New(off, []string{table}, slog.New(slog.DiscardHandler), binlog.NopObserver{})
		defer quiet.Close()
		if err := quiet.Preflight(testContext(t), nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := quiet.Resume(testContext(t), &memory{}); err != nil {
			t.Fatal(err)
		}
		b := quiet.Backfiller(daemonName, []binlog.BackfillTarget{{Module: "m/1", Table: table}})
		if err := b.Prepare(testContext(t)); err != nil {
			t.Errorf("prepare without rights and without need: %v", err)
		}
		// What the message says to run is enough, also with the tables there.
		d.exec(grant)
		f := startFill(t, d, cfg, &memory{}, newSink(t, table, "id"), binlog.NopObserver{}, nil)
		f.untilDone()
		f.equals("")
		if err := f.src.PreflightBackfill(testContext(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestPreflightBackfill_ReadOnlyOrUnorderedServer(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t)
			}
			server := startPrivate(t, flavor, "--binlog-ignore-db=rt_away")
			d := openDatabase(t, server.Target())
			cfg := d.fillConfig(binlog.ModeAuto)
			cfg.Backfill.Schema = "rt_away"
			d.exec("SET GLOBAL read_only=1")
			want := []string{"is read only, so that no watermark can be written: name the primary in source.addr", "does not log schema rt_away"}
			if flavor == testenv.FlavorMySQL {
				d.exec("SET GLOBAL binlog_order_commits=0")
				want = append(want, "run SET GLOBAL binlog_order_commits='ON'")
			}
			err := openSource(t, cfg).PreflightBackfill(testContext(t))
			for _, w := range want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("message:\n%v\nlacks: %s", err, w)
				}
			}
		})
	}
}

// Nothing happens on the server but the heartbeat row; the checkpoint moves.
func TestHeartbeatRow_MovesTheCheckpointAndMeasuresTheLoop(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, cfg, store := d.eventTable(), d.fillConfig(binlog.ModeAuto), &memory{}
		cfg.Backfill.Auto = new(false)
		cfg.HeartbeatRow = 20 * time.Millisecond
		obs := &countingObserver{}
		s := newSink(t, table, "id")
		f := startFill(t, d, cfg, store, s, obs, nil)
		begin := f.progress.Current().Position()
		for deadline := testContext(t); obs.beats.Load() < 5; {
			select {
			case <-s.changed:
			case <-deadline.Done():
				t.Fatalf("%d heartbeats came back", obs.beats.Load())
			}
		}
		if now := f.progress.Current().Position(); now == begin {
			t.Errorf("the checkpoint stands at %s", now)
		}
		if len(s.entries) != 0 {
			t.Errorf("the handler got %v", s.entries)
		}
	})
}

// 200,000 rows, nothing else to do.
func TestBackfill_LargeTable(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		const rows = 200_000
		d := openDatabase(t, target)
		table := d.eventTable()
		d.fillRows(rows)
		obs := &countingObserver{}
		begun := time.Now()
		f := startFill(t, d, d.fillConfig(binlog.ModeAuto), &memory{}, newSink(t, table, "id"), obs, nil)
		got := f.untilDone()
		took := time.Since(begun)
		t.Logf("%d rows in %s, %.0f rows/s, %d chunks", got.Rows, took, float64(got.Rows)/took.Seconds(), obs.chunks.Load())
		if got.Rows != rows || len(f.sink.reads) != rows {
			t.Errorf("%d rows read, %d came", got.Rows, len(f.sink.reads))
		}
		if obs.chunks.Load() < rows/10_000 {
			t.Errorf("%d chunks, want them bounded", obs.chunks.Load())
		}
	})
}
