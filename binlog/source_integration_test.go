//go:build integration

package binlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// eventTable makes the table of most tests and returns its name.
func (d *database) eventTable() string {
	d.t.Helper()
	d.exec("CREATE TABLE event (id INT PRIMARY KEY, v INT)", "CREATE TABLE other (id INT PRIMARY KEY)")
	return d.schema + ".event"
}

func TestSource_DeliversWhatWasCommitted(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, mode := range []string{binlog.ModeAuto, binlog.ModeFile} {
			t.Run(mode, func(t *testing.T) {
				d := openDatabase(t, target)
				table := d.eventTable()
				cfg := d.config()
				cfg.Mode, cfg.StartAt = mode, d.head()
				s := follow(t, cfg, &memory{}, newRecorder(), table)
				d.exec(
					"INSERT INTO event VALUES (1,10)",
					"BEGIN", "INSERT INTO event VALUES (2,20),(3,30)", "UPDATE event SET v=v+1", "DELETE FROM event WHERE id=1", "INSERT INTO other VALUES (1)", "COMMIT",
					"BEGIN", "INSERT INTO event VALUES (50,50)", "ROLLBACK",
					"INSERT INTO other VALUES (2)",
					"BEGIN", "INSERT INTO event VALUES (4,40)", "SAVEPOINT a", "INSERT INTO event VALUES (51,51)", "ROLLBACK TO a", "COMMIT",
					"UPDATE event SET id=5 WHERE id=4",
					"REPLACE INTO event VALUES (5,55)",
					"ALTER TABLE event ADD COLUMN w VARCHAR(5) DEFAULT 'x' FIRST",
					"DELETE FROM event",
				)
				s.want(
					"+1 10",
					"+2 20; +3 30; 1 10>1 11; 2 20>2 21; 3 30>3 31; -1 11",
					"+4 40",
					"4 40>5 40",
					"5 40>5 55",
					"-x 2 21; -x 3 31; -x 5 55",
				)
				var last rowtide.Version
				for _, tx := range s.rec.txs {
					if tx.Version <= last {
						t.Errorf("version %s after %s", tx.Version, last)
					}
					last = tx.Version
				}
			})
		}
	})
}

func TestSource_StartAt(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, tt := range []struct {
			name, start string
			want        []string
		}{
			{"latest", binlog.StartLatest, []string{"+3 30"}},
			{"position", "", []string{"+2 20", "+3 30"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				d := openDatabase(t, target)
				table := d.eventTable()
				cfg := d.config()
				d.exec("INSERT INTO event VALUES (1,10)")
				if cfg.StartAt = tt.start; tt.start == "" {
					cfg.StartAt = d.head()
				}
				d.exec("INSERT INTO event VALUES (2,20)")
				s := follow(t, cfg, &memory{}, newRecorder(), table)
				d.exec("INSERT INTO event VALUES (3,30)")
				s.want(tt.want...)
			})
		}
	})
}

func TestSource_EarliestIsTheOldestLogThereIs(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t) // skips where there is none
			}
			server := startPrivate(t, flavor)
			d := openDatabase(t, server.Target())
			table := d.eventTable()
			d.exec("INSERT INTO event VALUES (1,10)", "FLUSH BINARY LOGS", "INSERT INTO event VALUES (2,20)")
			s := follow(t, d.config(), &memory{}, newRecorder(), table)
			s.want("+1 10", "+2 20")
			s.stop()
			d.purge()
			s = follow(t, d.config(), &memory{}, newRecorder(), table)
			s.want("+2 20")
		})
	}
}

func TestSource_ResumesFromTheCheckpoint(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, mode := range []string{binlog.ModeAuto, binlog.ModeFile} {
			t.Run(mode, func(t *testing.T) {
				d := openDatabase(t, target)
				table, store := d.eventTable(), &memory{}
				cfg := d.config()
				cfg.Mode, cfg.StartAt = mode, d.head()
				s := follow(t, cfg, store, newRecorder(), table)
				d.exec("INSERT INTO event VALUES (1,10)")
				s.want("+1 10")
				s.save()
				d.exec("INSERT INTO event VALUES (2,20)")
				s.want("+1 10", "+2 20") // received, not saved
				first := s.rec.txs[1].Version
				s.stop()
				d.exec("FLUSH BINARY LOGS", "INSERT INTO event VALUES (3,30)")
				s = follow(t, cfg, store, newRecorder(), table)
				s.want("+2 20", "+3 30")
				if again := s.rec.txs[0].Version; again != first {
					t.Errorf("the same transaction has version %s, at first %s", again, first)
				}
			})
		}
	})
}

// The server ends our connection again and again while transactions of many
// rows run through it.
func TestSource_KilledConnectionLosesAndSplitsNothing(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, mode := range []string{binlog.ModeAuto, binlog.ModeFile} {
			t.Run(mode, func(t *testing.T) {
				const txs, width, kills = 60, 300, 4
				d := openDatabase(t, target)
				table := d.eventTable()
				cfg := d.config()
				cfg.Mode, cfg.StartAt = mode, d.head()
				var vals []string
				for i := range width {
					vals = append(vals, fmt.Sprintf("(%d,%%[1]d)", i+1))
				}
				insert := "INSERT INTO event VALUES " + strings.Join(vals, ",")
				for n := range txs {
					// Several events per transaction, so that a cut falls within one.
					d.exec("BEGIN", fmt.Sprintf(insert, n), "UPDATE event SET v=v+1000", "DELETE FROM event", "COMMIT")
				}
				rec, seen, killed := newRecorder(), 0, 0
				rec.hook = func(tx *rowtide.Tx) error {
					if len(tx.Changes) == 0 {
						return nil
					}
					if seen++; seen%10 == 0 && killed < kills {
						killed++
						return d.killDump()
					}
					return nil
				}
				s := follow(t, cfg, &memory{}, rec, table)
				want := func(n int) string { return fmt.Sprintf("+1 %d;", n) }
				s.await("the last transaction", func(b []string) bool { return len(b) > 0 && strings.HasPrefix(b[len(b)-1], want(txs-1)) })
				if killed != kills {
					t.Errorf("%d connections killed, want %d", killed, kills)
				}
				next := 0 // the first one not seen yet
				for _, tx := range s.rec.txs {
					if got := len(tx.Changes); got != 3*width {
						t.Fatalf("transaction with %d of %d changes", got, 3*width)
					}
					n := int(tx.Changes[0].After[1].(int32))
					if n > next {
						t.Fatalf("transaction %d before %d", n, next)
					}
					next = max(next, n+1)
				}
			})
		}
	})
}

// purge removes all logs but the last. MariaDB keeps, without an error, what a
// reader that has just left still holds.
func (d *database) purge() {
	d.t.Helper()
	last, _, _ := strings.Cut(d.head(), ":")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(d.t); ; {
		if err := d.killDump(); err != nil {
			d.t.Fatal(err)
		}
		d.exec("PURGE BINARY LOGS TO '" + last + "'")
		rows, err := d.conn.QueryContext(ctx, "SHOW BINARY LOGS")
		if err != nil {
			d.t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		rows.Close()
		if n == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("%d logs are left", n)
		}
	}
}

// killDump kills the connection of our reader, whatever it sends just now.
func (d *database) killDump() error {
	rows, err := d.db.QueryContext(testContext(d.t), "SHOW PROCESSLIST")
	if err != nil {
		return err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	var ids []string
	vals := make([]any, len(cols))
	for i := range vals {
		vals[i] = new([]byte)
	}
	for rows.Next() {
		if err := rows.Scan(vals...); err != nil {
			return err
		}
		if strings.HasPrefix(string(*vals[4].(*[]byte)), "Binlog Dump") {
			ids = append(ids, string(*vals[0].(*[]byte)))
		}
	}
	for _, id := range ids {
		// One that has gone by itself is no fault.
		_, _ = d.db.ExecContext(testContext(d.t), "KILL "+id)
	}
	return rows.Err()
}

func TestSource_SurvivesAServerThatIsKilled(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t)
			}
			server := startPrivate(t, flavor)
			d := openDatabase(t, server.Target())
			table := d.eventTable()
			s := follow(t, d.config(), &memory{}, newRecorder(), table)
			d.exec("INSERT INTO event VALUES (1,10)")
			s.want("+1 10")
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := server.Restart(testContext(t)); err != nil {
				t.Fatal(err)
			}
			d.reconnect()
			d.exec("USE "+d.schema, "INSERT INTO event VALUES (2,20)", "INSERT INTO event VALUES (3,30)")
			got := s.await("the last row", func(b []string) bool { return slices.Contains(b, "+3 30") })
			if got = slices.Compact(got); !slices.Equal(got, []string{"+1 10", "+2 20", "+3 30"}) {
				t.Errorf("transactions %q", got)
			}
		})
	}
}

func TestSource_PositionLost(t *testing.T) {
	resetAll := map[string]string{testenv.FlavorMariaDB: "RESET MASTER", testenv.FlavorMySQL: "RESET BINARY LOGS AND GTIDS"}
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		for _, mode := range []string{binlog.ModeAuto, binlog.ModeFile} {
			for _, lost := range []string{"purge", "reset"} {
				t.Run(flavor+" "+mode+" "+lost, func(t *testing.T) {
					if flavor == testenv.FlavorMySQL {
						testenv.MySQL(t)
					}
					server := startPrivate(t, flavor)
					d := openDatabase(t, server.Target())
					table, store := d.eventTable(), &memory{}
					cfg := d.config()
					cfg.Mode = mode
					s := follow(t, cfg, store, newRecorder(), table)
					d.exec("INSERT INTO event VALUES (1,10)")
					s.want("+1 10")
					s.save()
					s.stop()
					d.exec("INSERT INTO event VALUES (2,20)", "FLUSH BINARY LOGS", "INSERT INTO event VALUES (3,30)", "FLUSH BINARY LOGS")
					if lost == "purge" {
						d.purge()
					} else {
						d.exec(resetAll[flavor], "INSERT INTO event VALUES (4,40)")
					}
					src := openSource(t, cfg, table)
					_, err := src.Resume(testContext(t), store)
					if err == nil {
						// MariaDB says so only when the stream begins.
						ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
						defer cancel()
						err = src.Run(ctx, newRecorder())
					}
					if !errors.Is(err, rowtide.ErrPositionLost) {
						t.Errorf("err=%v, want %v", err, rowtide.ErrPositionLost)
					}
				})
			}
		}
	}
}

func TestSource_CompressedTransactions(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			flag := "--log-bin-compress=ON"
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t)
				flag = "--binlog-transaction-compression=ON"
			}
			server := startPrivate(t, flavor, flag)
			d := openDatabase(t, server.Target())
			table := d.eventTable()
			d.exec("CREATE TABLE wide (id INT PRIMARY KEY, t TEXT)")
			s := follow(t, d.config(), &memory{}, newRecorder(), table, d.schema+".wide")
			long := strings.Repeat("compress me ", 100)
			d.exec(
				"BEGIN", "INSERT INTO other VALUES (1)", "INSERT INTO event VALUES (1,10)", "INSERT INTO wide VALUES (1,'"+long+"')", "COMMIT",
				"BEGIN", "INSERT INTO other VALUES (2)", "UPDATE wide SET t=CONCAT(t,'!')", "DELETE FROM event", "COMMIT",
				"INSERT INTO other VALUES (3)",
			)
			s.want("+1 10; +1 "+long, "1 "+long+">1 "+long+"!; -1 10")
		})
	}
}

func TestSource_XA(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table, store := d.eventTable(), &memory{}
		cfg := d.config()
		cfg.StartAt = d.head()
		s := follow(t, cfg, store, newRecorder(), table)
		xa := func(id string, row int, end string) {
			d.exec("XA START '"+id+"'", fmt.Sprintf("INSERT INTO event VALUES (%d,0)", row), "XA END '"+id+"'")
			if end != "COMMIT '"+id+"' ONE PHASE" {
				d.exec("XA PREPARE '" + id + "'")
			}
			if end != "" {
				d.exec("XA " + end)
			}
		}
		name := d.schema // xids are global to the server
		xa(name+"1", 1, "ROLLBACK '"+name+"1'")
		xa(name+"2", 2, "COMMIT '"+name+"2'")
		xa(name+"3", 3, "COMMIT '"+name+"3' ONE PHASE")
		d.exec("INSERT INTO event VALUES (4,0)")
		s.want("+2 0", "+3 0", "+4 0")
		s.save()
		if got, want := s.progress.Current().Position(), s.rec.txs[2].Position; got.Pos < want.Pos {
			t.Errorf("checkpoint at %s, want at least %s", got, want)
		}
		// An open group holds the checkpoint back, so that a restart sees its rows.
		xa(name+"5", 5, "")
		if _, err := d.db.ExecContext(testContext(t), "INSERT INTO "+table+" VALUES (6,0)"); err != nil { // another session
			t.Fatal(err)
		}
		s.want("+2 0", "+3 0", "+4 0", "+6 0")
		s.save()
		s.stop()
		d.exec("XA COMMIT '" + name + "5'")
		s = follow(t, cfg, store, newRecorder(), table)
		s.want("+6 0", "+5 0")
	})
}

func TestSource_StatementFormatIsRefused(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table := d.eventTable()
		cfg := d.config()
		cfg.StartAt = d.head()
		s := follow(t, cfg, &memory{}, newRecorder(), table)
		d.exec("SET SESSION binlog_format=STATEMENT", "INSERT INTO event VALUES (1,10)")
		if err := s.failure(); !errors.Is(err, binlog.ErrUnreadable) || !strings.Contains(err.Error(), "INSERT INTO event") {
			t.Errorf("err=%v, want %v with the statement", err, binlog.ErrUnreadable)
		}
	})
}

func TestSource_HandlersErrorEndsRun(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table := d.eventTable()
		cfg := d.config()
		cfg.StartAt = d.head()
		boom := errors.New("boom")
		rec := newRecorder()
		rec.hook = func(tx *rowtide.Tx) error {
			if len(tx.Changes) > 0 {
				return boom
			}
			return nil
		}
		s := follow(t, cfg, &memory{}, rec, table)
		d.exec("INSERT INTO event VALUES (1,10)")
		if err := s.failure(); !errors.Is(err, boom) || !strings.Contains(err.Error(), "follow "+target.Addr) {
			t.Errorf("err=%v, want the handler's with the address", err)
		}
	})
}

func TestSource_CheckpointOfAnotherServer(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		table := d.eventTable()
		cfg := d.config()
		cfg.Mode = binlog.ModeFile
		store := &memory{saved: []binlog.Checkpoint{{Source: "somebody else", Epoch: 4, File: "binlog.000001", Pos: 4}}}
		_, err := openSource(t, cfg, table).Resume(testContext(t), store)
		if !errors.Is(err, rowtide.ErrPositionLost) || !strings.Contains(err.Error(), "the checkpoint is of server somebody else") || !strings.Contains(err.Error(), "remove the checkpoint to start anew") {
			t.Errorf("by file: err=%v, want %v and the remedy", err, rowtide.ErrPositionLost)
		}
		// With GTIDs it is a failover: the same set on another server, a new epoch.
		cfg.Mode, cfg.StartAt = binlog.ModeAuto, binlog.StartLatest
		p, err := openSource(t, cfg, table).Resume(testContext(t), &memory{})
		if err != nil {
			t.Fatal(err)
		}
		c := p.Current()
		if c.GTIDSet == "" {
			d.exec("INSERT INTO event VALUES (1,1)")
			t.Fatal("a server with GTIDs gave none")
		}
		c.Source, c.Epoch = "the old primary", 4
		p, err = openSource(t, cfg, table).Resume(testContext(t), &memory{saved: []binlog.Checkpoint{c}})
		if err != nil || p.Current().Epoch != 5 {
			t.Errorf("after a failover: epoch %d, %v; want 5", p.Current().Epoch, err)
		}
	})
}

func TestReader_ErrorsSayWhetherToRepeat(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		d.eventTable()
		r := openSource(t, d.config()).Reader()
		_, _, err := r.Query(testContext(t), "SELECT nothing FROM "+d.schema+".event")
		var q *binlog.QueryError
		if !errors.As(err, &q) || q.Temporary() {
			t.Errorf("unknown column: %v, want a permanent error", err)
		}
		d.exec("INSERT INTO event VALUES (1,10)", "BEGIN", "UPDATE event SET v=11")
		src := binlog.New(d.config(), nil, slog.New(slog.DiscardHandler), binlog.NopObserver{})
		defer src.Close()
		if target.Flavor == testenv.FlavorMariaDB {
			_, _, err = r.Query(testContext(t), "SELECT * FROM "+d.schema+".event LOCK IN SHARE MODE NOWAIT")
			if !errors.As(err, &q) || !q.Temporary() {
				t.Errorf("lock wait: %v, want a temporary error", err)
			}
		}
		d.exec("COMMIT")
		cols, rows, err := r.Query(testContext(t), r.Locking("SELECT id, v FROM "+d.schema+".event -- a comment ;"))
		if err != nil || len(rows) != 1 || !slices.Equal(cols, []string{"id", "v"}) {
			t.Errorf("%v %v, %v", cols, rows, err)
		}
		if got, _, err := r.Types(testContext(t), d.schema+".event"); err != nil || !slices.Equal(got, []string{"id", "v"}) {
			t.Errorf("columns %v, %v", got, err)
		}
	})
}
