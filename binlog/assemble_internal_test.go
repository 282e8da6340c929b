package binlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
)

const (
	mariaStandalone = replication.BINLOG_MARIADB_FL_STANDALONE
	mariaGroup      = 0
)

func TestAssembler_WholeTransaction(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(5)
	w.must(w.query("BEGIN"))
	w.must(w.tableMap(watchedTable, "shop", "event", "id", "v"))
	w.must(w.rows(replication.WRITE_ROWS_EVENTv2, watchedTable, [2]int32{1, 10}, [2]int32{2, 20}))
	w.must(w.rows(replication.UPDATE_ROWS_EVENTv2, watchedTable, [2]int32{1, 10}, [2]int32{1, 11}, [2]int32{2, 20}, [2]int32{3, 20}))
	w.must(w.rows(replication.DELETE_ROWS_EVENTv2, watchedTable, [2]int32{3, 20}))
	if len(w.got) != 0 {
		t.Fatalf("%d transactions before the commit", len(w.got))
	}
	w.xid()
	w.want("insert 1 10, insert 2 20, update 1 10 → 1 11, update 2 20 → 3 20, delete 3 20")
	tx := w.got[0]
	wantPos := rowtide.Position{File: "binlog.000007", Pos: uint64(w.pos), GTID: uuid + ":5"}
	wantVersion, err := rowtide.NewVersion(1, 7, uint64(w.pos))
	w.must(err)
	if tx.Position != wantPos || tx.Version != wantVersion || !tx.CommittedAt.Equal(time.UnixMicro(1_763_712_000_123_456)) || tx.Bytes == 0 {
		t.Errorf("position %s version %s committed %s bytes %d, want %s %s and the commit's microseconds", tx.Position, tx.Version, tx.CommittedAt, tx.Bytes, wantPos, wantVersion)
	}
	if got := tx.Changes[0].Table; !reflect.DeepEqual(got, &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id", "v"}, PrimaryKey: []int{0}}) {
		t.Errorf("table %+v", got)
	}
	for _, c := range tx.Changes[1:] {
		if c.Table != tx.Changes[0].Table {
			t.Error("changes of one shape have two tables, so plans are made again for each")
		}
	}
}

func TestAssembler_EmptyTransactionMovesThePosition(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.must(w.query("BEGIN"))
	w.must(w.tableMap(unwatchedTable, "shop", "other", "id", "v"))
	w.must(w.rows(replication.WRITE_ROWS_EVENTv2, unwatchedTable, [2]int32{1, 10}))
	w.xid()
	w.want("")
	if got := w.got[0].Position; got.Pos != uint64(w.pos) || got.GTID != uuid+":1" {
		t.Errorf("position %s", got)
	}
}

// A connection that breaks within a transaction, or a server that died in one,
// leaves a head without an end; the server sends the whole again.
func TestAssembler_PartialTransactionIsThrownAway(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(w *logWriter)
	}{
		{"new GTID", func(*logWriter) {}},
		{"server start", func(w *logWriter) {
			w.must(w.event(replication.FORMAT_DESCRIPTION_EVENT, &replication.FormatDescriptionEvent{}))
		}},
		{"rotation", func(w *logWriter) {
			w.must(w.event(replication.ROTATE_EVENT, &replication.RotateEvent{Position: 4, NextLogName: []byte("binlog.000008")}))
			w.pos = 4
		}},
		{"start of a connection", func(w *logWriter) {
			w.must(w.event(replication.ROTATE_EVENT, &replication.RotateEvent{Position: uint64(w.pos), NextLogName: []byte("binlog.000007")}))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newLogWriter(t)
			w.gtid(1)
			w.must(w.query("BEGIN"))
			w.insert(1, 10)
			tt.cut(w)
			w.gtid(2)
			w.must(w.query("BEGIN"))
			w.insert(2, 20)
			w.xid()
			w.want("insert 2 20")
			if got := w.got[0].Position.GTID; got != uuid+":2" {
				t.Errorf("gtid %s, want only the second", got)
			}
		})
	}
}

// Table ids start anew with a file or a server, so what was known of them must
// go.
func TestAssembler_TableIDsAreForgotten(t *testing.T) {
	for name, cut := range map[string]func(w *logWriter) error{
		"server start": func(w *logWriter) error {
			return w.event(replication.FORMAT_DESCRIPTION_EVENT, &replication.FormatDescriptionEvent{})
		},
		"rotation": func(w *logWriter) error {
			return w.event(replication.ROTATE_EVENT, &replication.RotateEvent{Position: 4, NextLogName: []byte("binlog.000008")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLogWriter(t)
			w.gtid(1)
			w.insert(1, 10)
			w.xid()
			w.must(cut(w))
			w.gtid(2)
			w.wantErr(w.rows(replication.WRITE_ROWS_EVENTv2, watchedTable, [2]int32{2, 20}), rowtide.ErrSchemaChanged, "rows of table id 11 at binlog.00000")
		})
	}
}

func TestAssembler_ColumnNamesFollowTheTableMap(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.insert(1, 10)
	w.xid()
	w.gtid(2)
	w.must(w.query("ALTER TABLE event RENAME COLUMN v TO w"))
	w.gtid(3)
	w.must(w.tableMap(99, "shop", "event", "w", "id")) // an ALTER gives a new id
	w.must(w.rows(replication.WRITE_ROWS_EVENTv2, 99, [2]int32{10, 2}))
	w.xid()
	w.want("insert 1 10", "", "insert 10 2")
	if got := w.got[0].Changes[0].Table.Columns; !reflect.DeepEqual(got, []string{"id", "v"}) {
		t.Errorf("first shape %v", got)
	}
	if got := w.got[2].Changes[0].Table.Columns; !reflect.DeepEqual(got, []string{"w", "id"}) {
		t.Errorf("second shape %v", got)
	}
}

func TestAssembler_TableIDThatPassesToAWatchedTable(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.insert(1, 10)
	w.must(w.tableMap(watchedTable, "shop", "event2", "id", "v"))
	w.must(w.rows(replication.WRITE_ROWS_EVENTv2, watchedTable, [2]int32{7, 70}))
	w.xid()
	w.want("insert 1 10")
}

func TestAssembler_MetadataMinimalIsRefusedForWatchedTablesOnly(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.must(w.tableMap(unwatchedTable, "shop", "other"))
	w.wantErr(w.tableMap(watchedTable, "shop", "event"), rowtide.ErrSchemaChanged, "table shop.event: the event names 0 of 2 columns")
}

func TestAssembler_StatementsThatEndATransaction(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(w *logWriter)
		want []string
	}{
		{"COMMIT of an engine without transactions", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.insert(1, 10)
			w.must(w.query("COMMIT"))
		}, []string{"insert 1 10"}},
		{"ROLLBACK", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.insert(1, 10)
			w.must(w.query("ROLLBACK"))
		}, []string{""}},
		{"ROLLBACK with a comment", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.insert(1, 10)
			w.must(w.query("rollback"))
		}, []string{""}},
		{"ROLLBACK TO, SAVEPOINT, RELEASE", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.must(w.query("SAVEPOINT `a`"))
			w.insert(1, 10)
			w.must(w.query("ROLLBACK TO `a`"))
			w.must(w.query("RELEASE SAVEPOINT `a`"))
			w.insert(2, 20)
			w.xid()
		}, []string{"insert 1 10, insert 2 20"}},
		{"DDL commits by itself", func(w *logWriter) {
			w.must(w.query("CREATE TABLE x (id INT)"))
			w.gtid(2)
			w.must(w.query("/* c */ drop table x"))
			w.gtid(3)
			w.must(w.query("TRUNCATE TABLE event"))
		}, []string{"", "", ""}},
		{"DDL behind SET STATEMENT", func(w *logWriter) {
			w.must(w.query("SET STATEMENT lock_wait_timeout=1 FOR ALTER TABLE event ADD x INT"))
		}, []string{""}},
		{"SET of another kind", func(w *logWriter) { w.must(w.query("SET PASSWORD FOR 'a'@'b'='x'")) }, []string{""}},
		{"DDL with a comment in front", func(w *logWriter) {
			w.must(w.query("-- INSERT\n  # UPDATE\n CREATE TABLE x (id INT)"))
		}, []string{""}},
		{"CREATE TABLE … SELECT is one group", func(w *logWriter) {
			w.must(w.query("CREATE TABLE `event` (`id` int) START TRANSACTION"))
			w.insert(1, 10)
			w.xid()
		}, []string{"insert 1 10"}},
		{"CREATE TABLE … SELECT within BEGIN", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.must(w.query("CREATE TABLE `event` (`id` int)"))
			w.insert(1, 10)
			w.xid()
		}, []string{"insert 1 10"}},
		{"temporary table within a transaction", func(w *logWriter) {
			w.must(w.query("BEGIN"))
			w.insert(1, 10)
			w.must(w.query("DROP TEMPORARY TABLE IF EXISTS `tmp`"))
			w.insert(2, 20)
			w.xid()
		}, []string{"insert 1 10, insert 2 20"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newLogWriter(t)
			w.gtid(1)
			tt.play(w)
			w.want(tt.want...)
			// Whatever it was, the next transaction is its own.
			before := len(w.got)
			w.gtid(50)
			w.insert(9, 90)
			w.xid()
			if len(w.got) != before+1 || brief(w.got[before]) != "insert 9 90" {
				t.Errorf("the transaction after: %+v", w.got[before:])
			}
		})
	}
}

func TestAssembler_MariaDBGroups(t *testing.T) {
	w := newLogWriter(t)
	w.mariaGTID(1, mariaGroup)
	w.insert(1, 10)
	w.must(w.query("CREATE TABLE `event` (`id` int)")) // the head of CREATE … SELECT
	w.insert(2, 20)
	w.xid()
	w.mariaGTID(2, mariaStandalone)
	w.must(w.query("CREATE TABLE x (id INT)"))
	w.mariaGTID(3, mariaGroup)
	w.insert(3, 30)
	w.must(w.query("COMMIT"))
	w.want("insert 1 10, insert 2 20", "", "insert 3 30")
	for i, tx := range w.got {
		if want := fmt.Sprintf("0-1-%d", i+1); tx.Position.GTID != want {
			t.Errorf("gtid %s, want %s", tx.Position.GTID, want)
		}
	}
}

func TestAssembler_AnonymousAndTaggedGTIDs(t *testing.T) {
	w := newLogWriter(t)
	w.must(w.event(replication.ANONYMOUS_GTID_EVENT, &replication.GTIDEvent{SID: make([]byte, 16)}))
	w.insert(1, 10)
	w.xid()
	tagged := &replication.GtidTaggedLogEvent{}
	tagged.SID, tagged.GNO = sid, 7
	w.must(w.event(replication.GTID_TAGGED_LOG_EVENT, tagged))
	w.insert(2, 20)
	w.xid()
	w.want("insert 1 10", "insert 2 20")
	if got := w.got[0].Position.GTID; got != "" {
		t.Errorf("anonymous gtid %q, want none", got)
	}
	if got := mysqlGTID(sid, "", 7); got != uuid+":7" || w.got[1].Position.GTID != got {
		t.Errorf("gtid %q, want %s:7", w.got[1].Position.GTID, uuid)
	}
	if got, want := mysqlGTID(sid, "tag_1", 7), uuid+":tag_1:7"; got != want {
		t.Errorf("tagged gtid %q, want %q", got, want)
	}
}

func TestAssembler_XACommit(t *testing.T) {
	for _, flavor := range []string{"mysql", "mariadb"} {
		t.Run(flavor, func(t *testing.T) {
			w := newLogWriter(t)
			w.gtid(1)
			w.insert(1, 10)
			w.xid()
			before := w.got[0].Position
			w.prepareXA(flavor, 2, "X'61',X'',1", 2)
			w.want("insert 1 10", "")
			if got := w.got[1].Position; got.Pos != before.Pos || got.GTID != "" {
				t.Errorf("position after PREPARE %s, want withheld at %d", got, before.Pos)
			}
			// Other transactions go on between PREPARE and COMMIT.
			w.gtid(3)
			w.insert(3, 30)
			w.xid()
			if got := w.got[2].Position; got.Pos != before.Pos || got.GTID != "" {
				t.Errorf("position beside an open XA group %s, want withheld at %d", got, before.Pos)
			}
			if w.got[2].Version <= w.got[1].Version {
				t.Error("versions must move on although positions do not")
			}
			w.gtid(4)
			w.must(w.query("XA COMMIT X'61',X'',1"))
			w.want("insert 1 10", "", "insert 3 30", "insert 2 20")
			got, end := w.got[3].Position, uint64(w.pos)
			if want := strings.Join([]string{uuid + ":2", uuid + ":3", uuid + ":4"}, ","); got.Pos != end || got.GTID != want {
				t.Errorf("position after COMMIT %s, want %d (%s)", got, end, want)
			}
			if got, want := w.got[3].Version.Pos(), uint32(end); got != want {
				t.Errorf("version at %d, want the commit's %d, not the PREPARE's", got, want)
			}
		})
	}
}

// prepareXA writes an XA group up to its PREPARE, as each flavour does: MariaDB
// writes no XA START, its GTID event stands for it.
func (w *logWriter) prepareXA(flavor string, gno int64, xid string, row int32) {
	w.t.Helper()
	w.gtid(gno)
	if flavor == "mysql" {
		w.must(w.query("XA START " + xid))
	}
	w.insert(row, row*10)
	w.must(w.query("XA END " + xid))
	w.must(w.generic(replication.XA_PREPARE_LOG_EVENT, 0))
}

func TestAssembler_XARollback(t *testing.T) {
	for _, flavor := range []string{"mysql", "mariadb"} {
		t.Run(flavor, func(t *testing.T) {
			w := newLogWriter(t)
			w.prepareXA(flavor, 1, "X'61',X'',1", 1)
			w.gtid(2)
			w.must(w.query("XA ROLLBACK X'61',X'',1"))
			w.gtid(3)
			w.insert(3, 30)
			w.xid()
			w.want("", "", "insert 3 30")
			if got := w.got[2].Position; got.Pos != uint64(w.pos) {
				t.Errorf("position %s, want it to move on to %d", got, w.pos)
			}
		})
	}
}

func TestAssembler_TwoOpenXAGroups(t *testing.T) {
	w := newLogWriter(t)
	w.prepareXA("mysql", 1, "X'61',X'',1", 1)
	w.prepareXA("mysql", 2, "X'62',X'',1", 2)
	w.gtid(3)
	w.must(w.query("XA COMMIT X'62',X'',1"))
	if got := w.got[2].Position; got.Pos != 4 || got.GTID != "" {
		t.Errorf("position %s, want withheld while the first group is open", got)
	}
	w.gtid(4)
	w.must(w.query("XA COMMIT X'61',X'',1"))
	w.want("", "", "insert 2 20", "insert 1 10")
	if got := w.got[3].Position; got.Pos != uint64(w.pos) || strings.Count(got.GTID, ",") != 3 {
		t.Errorf("position %s, want %d with four ids", got, w.pos)
	}
}

// A file's end does not move the position past an open XA group.
func TestAssembler_RotationKeepsAnOpenXAGroup(t *testing.T) {
	w := newLogWriter(t)
	w.prepareXA("mysql", 1, "X'61',X'',1", 1)
	w.must(w.event(replication.ROTATE_EVENT, &replication.RotateEvent{Position: 4, NextLogName: []byte("binlog.000008")}))
	w.pos = 4
	w.gtid(2)
	w.insert(2, 20)
	w.xid()
	if got := w.got[1].Position; got.File != "binlog.000007" || got.Pos != 4 {
		t.Errorf("position %s, want binlog.000007:4", got)
	}
	w.gtid(3)
	w.must(w.query("XA COMMIT X'61',X'',1"))
	w.want("", "insert 2 20", "insert 1 10")
	if got := w.got[2].Position; got.File != "binlog.000008" || got.Pos != uint64(w.pos) {
		t.Errorf("position %s, want binlog.000008:%d", got, w.pos)
	}
}

func TestAssembler_XAOnePhase(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.must(w.query("XA START X'61',X'',1"))
	w.insert(1, 10)
	w.must(w.query("XA END X'61',X'',1"))
	w.must(w.generic(replication.XA_PREPARE_LOG_EVENT, 1))
	w.want("insert 1 10")
	if got := w.got[0].Position.Pos; got != uint64(w.pos) {
		t.Errorf("position %d, want %d", got, w.pos)
	}
}

func TestAssembler_XACommitWithoutItsPrepare(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.wantErr(w.query("XA COMMIT X'61',X'',1"), rowtide.ErrPositionLost, "XA COMMIT X'61',X'',1 at binlog.000007:104 without its PREPARE")
}

func TestAssembler_Unreadable(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(w *logWriter) error
		want string
	}{
		{"INSERT", func(w *logWriter) error { return w.query("INSERT INTO t VALUES (1)") }, `("INSERT INTO t VALUES (1)")`},
		{"insert", func(w *logWriter) error { return w.query(" /* x */ insert into t values (1)") }, "binlog_format"},
		{"UPDATE", func(w *logWriter) error { return w.query("UPDATE t SET a=1") }, "binlog_format"},
		{"DELETE", func(w *logWriter) error { return w.query("DELETE FROM t") }, "binlog_format"},
		{"REPLACE", func(w *logWriter) error { return w.query("REPLACE t VALUES (1)") }, "binlog_format"},
		{"LOAD DATA", func(w *logWriter) error { return w.query("LOAD DATA INFILE 'x' INTO TABLE t") }, "binlog_format"},
		{"WITH", func(w *logWriter) error { return w.query("WITH a AS (SELECT 1) UPDATE t SET a=1") }, "binlog_format"},
		{"versioned comment", func(w *logWriter) error { return w.query("/*!50000 INSERT */ INTO t VALUES (1)") }, "binlog_format"},
		{"SET STATEMENT … FOR", func(w *logWriter) error {
			return w.query("set statement max_statement_time=60 for insert into t values (1)")
		}, "binlog_format"},
		{"incident", func(w *logWriter) error { return w.generic(replication.INCIDENT_EVENT, 1, 0, 0) }, "incident event at binlog.000007"},
		{"XA of an unknown kind", func(w *logWriter) error { return w.query("XA RECOVER X'61'") }, "XA statement"},
		{"XA without an id", func(w *logWriter) error { return w.query("XA COMMIT") }, "XA statement"},
		{"minimal image", func(w *logWriter) error {
			w.must(w.tableMap(watchedTable, "shop", "event", "id", "v"))
			return w.partialRows(replication.UPDATE_ROWS_EVENTv2, watchedTable, 1, [2]int32{1, 0}, [2]int32{1, 0})
		}, "row 0 of table shop.event at binlog.000007:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newLogWriter(t)
			w.gtid(1)
			w.must(w.query("BEGIN"))
			w.wantErr(tt.play(w), ErrUnreadable, tt.want)
			w.want()
		})
	}
}

func TestAssembler_MinimalImageOfUnwatchedTableIsNoFault(t *testing.T) {
	w := newLogWriter(t)
	w.gtid(1)
	w.must(w.tableMap(unwatchedTable, "shop", "other", "id", "v"))
	w.must(w.partialRows(replication.DELETE_ROWS_EVENTv2, unwatchedTable, 1, [2]int32{1, 0}))
	w.xid()
	w.want("")
}

func TestAssembler_PositionPast4GiB(t *testing.T) {
	w := newLogWriter(t)
	w.pos = math.MaxUint32 - 400
	w.gtid(1)
	w.insert(1, 10)
	w.xid() // ends before the wrap
	for n := int64(2); n <= 4; n++ {
		w.gtid(n)
		w.insert(int32(n), 10)
		w.xid()
	}
	var last uint64
	for i, tx := range w.got {
		if tx.Position.Pos <= last {
			t.Errorf("transaction %d ends at %d, before the one before it at %d", i, tx.Position.Pos, last)
		}
		last = tx.Position.Pos
		if want := uint32(min(last, math.MaxUint32)); tx.Version.Pos() != want {
			t.Errorf("transaction %d at %d has version %s, want it saturated", i, last, tx.Version)
		}
	}
	if last <= math.MaxUint32 {
		t.Fatalf("the log ended at %d: nothing wrapped", last)
	}
}

func TestAssembler_FileNumberTooLargeForAVersion(t *testing.T) {
	w := newLogWriter(t)
	w.must(w.asm.rotate("binlog.1048576", 4))
	w.gtid(1)
	err := w.event(replication.XID_EVENT, &replication.XIDEvent{})
	if err == nil || !strings.Contains(err.Error(), "binlog file number 1048576 is above") {
		t.Errorf("err=%v, want it refused", err)
	}
	if err := w.asm.rotate("binlog", 4); err == nil || !strings.Contains(err.Error(), `follow rotation: binlog file "binlog" has no number`) {
		t.Errorf("err=%v, want it refused", err)
	}
}

func TestAssembler_HandlersErrorEndsTheStream(t *testing.T) {
	w := newLogWriter(t)
	boom := errors.New("boom")
	w.asm.emit = func(context.Context, *rowtide.Tx) error { return boom }
	w.gtid(1)
	w.insert(1, 10)
	if err := w.event(replication.XID_EVENT, &replication.XIDEvent{}); !errors.Is(err, boom) {
		t.Errorf("err=%v, want %v", err, boom)
	}
}

// The handler may keep rows: nothing that comes later may write into them.
func TestAssembler_RowsAreNotReused(t *testing.T) {
	w := newLogWriter(t)
	for n := int32(1); n <= 5; n++ {
		w.gtid(int64(n))
		w.insert(n, n*10)
		w.xid()
	}
	w.want("insert 1 10", "insert 2 20", "insert 3 30", "insert 4 40", "insert 5 50")
}

func TestFirstWord(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"BEGIN":                           "BEGIN",
		"  \t\r\ncommit;":                 "COMMIT",
		"/* a */ /* b */ insert":          "INSERT",
		"/*!40000 ALTER TABLE":            "ALTER",
		"/*M!100100 INSERT */ INTO":       "INSERT",
		"-- note\nUPDATE t":               "UPDATE",
		"# note\nDELETE":                  "DELETE",
		"# note":                          "",
		"/* never closed":                 "",
		"(SELECT 1)":                      "SELECT",
		"((WITH x AS":                     "WITH",
		"XA START":                        "XA",
		"'quoted'":                        "",
		"SAVEPOINT`a`":                    "SAVEPOINT",
		"/**/":                            "",
		"/* INSERT */ CREATE":             "CREATE",
		"--not a comment":                 "",
		"/*!50000 /* nested */ INSERT */": "INSERT",
	} {
		if got := firstWord([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzFirstWord(f *testing.F) {
	for _, s := range []string{"BEGIN", "/*!40000 x", "/*", "/*!", "#", "-- ", "(((", "\xff", "/* a */insert", "/*/"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, q []byte) {
		got := firstWord(q)
		for _, r := range got {
			if r < 'A' || r > 'Z' {
				t.Errorf("%q: word %q", q, got)
			}
		}
		if got != "" && !strings.Contains(strings.ToUpper(string(q)), got) {
			t.Errorf("%q: word %q is not in it", q, got)
		}
		// White space and comments in front change nothing.
		if again := firstWord(append([]byte(" \t/* INSERT */-- UPDATE\n# DELETE\n"), q...)); again != got {
			t.Errorf("%q: %q after a comment, want %q", q, again, got)
		}
	})
}

// A statement that takes rows away without logging them is a change that says all
// are gone, and is told of.
func TestAssembler_UnloggedRowsAreATruncate(t *testing.T) {
	for query, want := range map[string]bool{
		"TRUNCATE TABLE event": true, "truncate `shop`.`event`": true, "DROP TABLE shop.event": true,
		"ALTER TABLE event DROP PARTITION p1": true, "ALTER TABLE event ADD COLUMN x INT": false,
		"RENAME TABLE event TO old_event, new_event TO event": true, "ALTER TABLE shop.event RENAME TO gone": true,
		"ALTER TABLE event DISCARD TABLESPACE": true, "ALTER TABLE event REMOVE PARTITIONING": true,
		"TRUNCATE TABLE other": false, "CREATE TABLE event (id INT)": false,
	} {
		var log strings.Builder
		var told int
		a := newAssembler(1, nil, map[string]bool{"shop.event": true}, rowtide.Position{File: "binlog.000001", Pos: 4},
			func(_ context.Context, tx *rowtide.Tx) error {
				for _, c := range tx.Changes {
					if c.Op == rowtide.OpTruncate && c.Table.String() == "shop.event" && tx.Version.Pos() == 100 {
						told++
					}
				}
				return nil
			})
		a.log = slog.New(slog.NewTextHandler(&log, nil))
		h := &replication.EventHeader{LogPos: 100}
		if err := a.event(t.Context(), h, &replication.QueryEvent{Schema: []byte("shop"), Query: []byte(query)}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "table=shop.event"); got != want || (told == 1) != want {
			t.Errorf("%s: warned %t, told %d times, want %t: %s", query, got, told, want, log.String())
		}
	}
}

// Statements in schemas that nothing is watched in are nobody's business.
func TestAssembler_StatementsElsewhere(t *testing.T) {
	for _, tt := range []struct {
		schema, query string
		unreadable    bool
	}{
		{"shop", "INSERT INTO other VALUES (1)", true}, // a trigger may lead to a watched table
		{"", "INSERT INTO event VALUES (1)", true},
		{"crm", "INSERT INTO shop.event VALUES (1)", true},
		{"crm", "UPDATE `shop`.`event` SET id=1", true},
		{"crm", "INSERT INTO event VALUES (1)", false},
	} {
		a := newAssembler(1, nil, map[string]bool{"shop.event": true}, rowtide.Position{File: "binlog.000001", Pos: 4},
			func(context.Context, *rowtide.Tx) error { return nil })
		err := a.event(t.Context(), &replication.EventHeader{LogPos: 100}, &replication.QueryEvent{Schema: []byte(tt.schema), Query: []byte(tt.query)})
		if got := errors.Is(err, ErrUnreadable); got != tt.unreadable {
			t.Errorf("%s in %q: %v, want unreadable %t", tt.query, tt.schema, err, tt.unreadable)
		}
	}
}
