//go:build integration

package binlog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// Writers insert, update, delete and move the rows that are being read, in chunks
// so small that there is always one at a boundary.
func TestBackfill_RacingWritersEndAsTheTable(t *testing.T) {
	onEveryFlavorAndMode(t, func(t *testing.T, target testenv.SQLTarget, mode string) {
		const ids, passes = 200, 4
		d := openDatabase(t, target)
		table := d.eventTable()
		d.fillRows(ids)
		obs := &countingObserver{}
		f := startFill(t, d, d.fillConfig(mode), &memory{}, newSink(t, table, "id"), obs, func(b *binlog.Backfiller) { b.SetChunkRows(9) })
		ctx, stop := context.WithCancel(testContext(t))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { race(ctx, t, d, ids) })
		}
		for range passes - 1 {
			if _, err := f.bf.Add(testContext(t), binlog.BackfillRequest{Modules: []string{"m/1"}, Table: table}); err != nil {
				t.Fatal(err)
			}
		}
		f.untilDone()
		stop()
		wg.Wait()
		d.exec("INSERT INTO event VALUES (-1,-1)")
		f.seen("-1,")
		f.equals("")
		if obs.dropped.Load() == 0 {
			t.Error("no row was changed while it was read: the race was not one")
		}
		t.Logf("%d rows read, %d dropped in %d chunks", obs.rows.Load(), obs.dropped.Load(), obs.chunks.Load())
	})
}

// seen waits for a key in the sink.
func (f *filling) seen(key string) {
	f.t.Helper()
	for deadline := testContext(f.t); ; {
		f.sink.mu.Lock()
		_, ok := f.sink.entries[key]
		f.sink.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.sink.changed:
		case <-deadline.Done():
			f.t.Fatalf("never saw %s", key)
		}
	}
}

// race changes rows until ctx ends; duplicates and deadlocks are part of it.
func race(ctx context.Context, t *testing.T, d *database, ids int) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "USE "+d.schema); err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		id, v := rand.IntN(ids)+1, rand.IntN(1_000_000)
		q := fmt.Sprintf("UPDATE event SET v=%d WHERE id=%d", v, id)
		switch rand.IntN(8) {
		case 0:
			q = fmt.Sprintf("DELETE FROM event WHERE id=%d", id)
		case 1, 2:
			q = fmt.Sprintf("INSERT IGNORE INTO event VALUES (%d,%d)", id, v)
		case 3:
			q = fmt.Sprintf("UPDATE IGNORE event SET id=%d WHERE id=%d", rand.IntN(ids)+1, id)
		case 4:
			q = fmt.Sprintf("REPLACE INTO event VALUES (%d,%d)", id, v)
		}
		// A statement that is given up may still commit, after the test's last word.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), q)
	}
}

// Keys of many types and collations: every row once, in chunks of three.
func TestBackfill_EveryKindOfKey(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, tt := range []struct{ name, key, columns, values string }{
			{"composite", "b,a", "a INT, b INT, v INT, PRIMARY KEY (b, a)", "(1,1,0),(2,1,0),(3,1,0),(1,2,0),(2,2,0),(3,2,0),(-1,3,0),(0,3,0),(1,3,0),(9,-5,0)"},
			{
				"composite of text", "a,b", "a VARCHAR(20) COLLATE utf8mb4_general_ci, b BIGINT UNSIGNED, PRIMARY KEY (a, b)",
				"('Anna',1),('anna',2),('ANNA',18446744073709551615),('bea',1),('Bea',2),('bÉa',3),('',1),('',0),('zz',5)",
			},
			{"case-insensitive", "k", "k VARCHAR(50) COLLATE utf8mb4_unicode_ci PRIMARY KEY, v INT", "('b',1),('A',2),('c',3),('Ä1',4),('a2',5),('D',6),('É',7),('z',8),('10',9),('9',10)"},
			{"utf8mb4", "k", "k VARCHAR(50) COLLATE utf8mb4_bin PRIMARY KEY", "('😀'),('a'),('A'),('日本'),('é'),('e'),('Z'),('ß'),('ss'),('\\\\''\"')"},
			{"latin1", "k", "k VARCHAR(50) CHARACTER SET latin1 PRIMARY KEY", "('ä'),('a'),('b'),('ö'),('z'),('ß'),('é'),('y')"},
			{"char", "k", "k CHAR(6) PRIMARY KEY", "('a'),('b '),('c'),('dd'),('ee'),('f'),('g')"},
			{"bytes", "k", "k VARBINARY(9) PRIMARY KEY", "(x'00'),(x'0000'),(x'FF'),(x''),(x'C3A4'),(x'80'),(x'61'),(x'41')"},
			{"fixed bytes", "k", "k BINARY(4) PRIMARY KEY", "(x'00'),(x'00000001'),(x'FF'),(x'C3A4'),(x'80'),(x'61'),(x'41')"},
			{"decimal", "k", "k DECIMAL(30,10) PRIMARY KEY", "(12345678901234567890.0000000001),(12345678901234567890.0000000002),(12345678901234567890.0000000003),(12345678901234567890.0000000004),(-1),(0),(0.5),(9)"},
			{"large", "k", "k BIGINT UNSIGNED PRIMARY KEY", "(18446744073709551615),(18446744073709551614),(9223372036854775807),(9223372036854775808),(0),(1),(2),(3)"},
			{"negative", "k", "k BIGINT PRIMARY KEY", "(-9223372036854775808),(9223372036854775807),(9223372036854775806),(0),(-1),(1),(2),(3)"},
			{
				"times", "b,a,c,d", "a DATETIME(6), b DATE, c TIME(3), d TIMESTAMP(2) NOT NULL DEFAULT CURRENT_TIMESTAMP(2), PRIMARY KEY (b, a, c, d)",
				"('2024-01-01 00:00:00.000001','2024-01-01','-10:00:00.5','2024-01-01 00:00:00.25'),('2024-01-01 00:00:00.000002','2024-01-01','10:00:00','2024-01-01 00:00:00'),('2024-01-01','2024-01-01','10:00:00','2024-01-01'),('2024-01-01','2024-01-01','11:00:00','2024-01-01'),('2024-01-01','2024-01-02','10:00:00','2024-01-01')",
			},
			{"floating", "k,w", "k FLOAT, w DOUBLE, PRIMARY KEY (k, w)", "(0.1,0.1),(0.1,0.2),(0.1,0.30000000000000004),(0.1,0.3),(1e20,1e-300),(-3,1),(-3,2)"},
			{"enum and set", "e,s,n", "e ENUM('z','b','a') , s SET('x','y','w'), n BIT(9), PRIMARY KEY (e, s, n)", "('z','x',1),('z','x',2),('b','x,y',300),('b','w',3),('a','',4),('a','y',5),('z','y,w',256)"},
			{"unique", "k", "v INT NULL UNIQUE, k INT NOT NULL, w INT NOT NULL, UNIQUE KEY late (w, k), UNIQUE KEY early (k)", "(NULL,1,1),(NULL,2,1),(3,3,1),(4,4,1),(5,5,1),(6,6,1),(7,7,1)"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				d := openDatabase(t, target)
				d.exec("SET NAMES utf8mb4", "CREATE TABLE thing ("+tt.columns+") DEFAULT CHARSET=utf8mb4", "INSERT INTO thing VALUES "+tt.values)
				f := startFill(t, d, d.fillConfig(binlog.ModeAuto), &memory{}, newSink(t, d.schema+".thing", strings.Split(tt.key, ",")...), binlog.NopObserver{}, func(b *binlog.Backfiller) { b.SetChunkRows(3) })
				got := f.untilDone()
				f.equals("")
				want := len(f.table(""))
				if got.Rows != int64(want) || want < 5 {
					t.Errorf("%d rows read, the table has %d", got.Rows, want)
				}
				for key, n := range f.sink.reads {
					if n != 1 {
						t.Errorf("key %s was read %d times", key, n)
					}
				}
				f.keyIsTheLogs()
			})
		}
	})
}

// keyIsTheLogs wants every row's key to be spelt alike by a SELECT and by the log:
// that is what a window compares.
func (f *filling) keyIsTheLogs() {
	f.t.Helper()
	f.d.exec("DELETE FROM " + f.sink.table)
	for deadline := testContext(f.t); !f.sink.empty(); {
		select {
		case <-f.sink.changed:
		case <-deadline.Done():
			f.t.Fatalf("rows are left after all were deleted: %v", f.sink.entries)
		}
	}
	if len(f.sink.entries) != len(f.sink.reads) {
		f.t.Errorf("the log spells keys otherwise than a SELECT: %v, %v", f.sink.entries, f.sink.reads)
	}
}

func (s *sink) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.row != "" {
			return false
		}
	}
	return true
}

// countingObserver counts what backfills and heartbeats do.
type countingObserver struct {
	binlog.NopObserver
	rows, dropped, chunks, failed, beats atomic.Int64
}

func (o *countingObserver) Backfilled(rows, dropped int) {
	o.rows.Add(int64(rows))
	o.dropped.Add(int64(dropped))
	o.chunks.Add(1)
}

func (o *countingObserver) BackfillFailed() { o.failed.Add(1) }

func (o *countingObserver) HeartbeatCovered(time.Duration) { o.beats.Add(1) }

func TestBackfill_KeepsTheRate(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, cfg := d.eventTable(), d.fillConfig(binlog.ModeAuto)
		cfg.Backfill.Rate = 100
		d.fillRows(250)
		obs := &countingObserver{}
		begun := time.Now()
		f := startFill(t, d, cfg, &memory{}, newSink(t, table, "id"), obs, nil)
		f.untilDone()
		// The third and last chunk may begin once two seconds' worth has been read.
		if took := time.Since(begun); took < 2*time.Second || obs.chunks.Load() != 3 {
			t.Errorf("250 rows in %s and %d chunks, want over 2s and 3", took, obs.chunks.Load())
		}
	})
}
