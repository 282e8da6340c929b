package binlog

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
)

// The two logs were written by real servers from the statements beside them
// (xa.sql, my.sql). Each holds legal statements that other readers get wrong.

func TestEdgeLog_MariaDB(t *testing.T) {
	txs, faults := parseFile(t, "testdata/edge/mbin.000004", "mbin.000004", "mariadb", "b.xt", "b.par", "b.chi", "b.sv", "b.bb")
	var got []string
	shapes := map[string][]string{}
	for _, tx := range txs {
		if s := brief(tx); s != "" {
			got = append(got, s)
			shapes[s] = tx.Changes[0].Table.Columns
		}
	}
	want := []string{
		// XA START 'r1' … insert 1 1 … XA ROLLBACK must not be here.
		"insert 5 5", // SET STATEMENT … FOR INSERT
		"insert 1",
		"insert 10 1, insert 11 1",
		"delete 1", // the cascade into chi is not in MariaDB's log
		"insert z 2",
		"insert 1 1 2026-11-21T19:30:54.386882Z 2038-01-19T03:14:07.999999Z",
		"insert YWIAAA== é c'd", // BINARY(4) keeps its zeros, latin1 is converted, the comma in the ENUM splits nothing
		"truncate ",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changes\n got %q\nwant %q", got, want)
	}
	for s, cols := range map[string][]string{
		"insert 5 5": {"id", "v"}, "insert z 2": {"a", "id"}, // before and after CREATE OR REPLACE
		want[5]: {"id", "v", "row_start", "row_end"},
	} {
		if !reflect.DeepEqual(shapes[s], cols) {
			t.Errorf("%s under columns %v, want %v", s, shapes[s], cols)
		}
	}
	if len(faults) != 1 || !errors.Is(faults[0], ErrUnreadable) || !strings.Contains(faults[0].Error(), "mbin.000004:2502") {
		t.Errorf("faults %v, want the STATEMENT insert at 2502", faults)
	}
	// Only the PREPARE is held back: with its ROLLBACK the position moves on.
	for i, tx := range txs {
		held := i == 1
		if moved := tx.Position.Pos == uint64(tx.Version.Pos()); moved == held {
			t.Errorf("transaction %d at %s has position %s", i, tx.Version, tx.Position)
		}
	}
	if got, want := txs[2].Position, (rowtide.Position{File: "mbin.000004", Pos: 982, GTID: "0-77-150009,0-77-150010"}); got != want {
		t.Errorf("position after XA ROLLBACK %s, want %s", got, want)
	}
}

func TestEdgeLog_MySQL(t *testing.T) {
	txs, faults := parseFile(t, "testdata/edge/my97-mysql-bin.000001", "my97-mysql-bin.000001", "mysql", "b.xt", "b.par", "b.chi", "b.j")
	var got []string
	for _, tx := range txs {
		if s := brief(tx); s != "" {
			got = append(got, s)
		}
	}
	const nulls = " null null null null null null 3"
	want := []string{
		"insert 1",
		"insert 10 1, insert 11 1",
		"delete 10 1, delete 11 1, delete 1", // MySQL 9.6 and up log the cascade
		`insert 1 {"b":1.0,"c":[1,2,3],"aa":"x"} c'd 18446744073709551615 18446744073709551615 1.1 YWIAAA== 2026-01-02T03:04:05Z 3`,
		`insert 2 {"z":1}` + nulls + `, insert 3 {"z":1}` + nulls, // compressed
		`insert 9 {}` + nulls,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changes\n got %q\nwant %q", got, want)
	}
	if len(faults) != 2 {
		t.Fatalf("faults %v, want two", faults)
	}
	for i, text := range []string{"table b.j: column d: partial JSON update", "row 0 of table b.j at my97-mysql-bin.000001:4441 lacks 8 columns"} {
		if !errors.Is(faults[i], ErrUnreadable) || !strings.Contains(faults[i].Error(), text) {
			t.Errorf("fault %d: %v, want %s", i, faults[i], text)
		}
	}
	last := txs[len(txs)-1].Position
	if want := (rowtide.Position{File: "my97-mysql-bin.000001", Pos: 4823, GTID: uuid + ":15"}); last != want {
		t.Errorf("last position %s, want %s", last, want)
	}
}

// Nobody watches: no row is decoded, so nothing of the edge cases is a fault but
// the statement, which could have touched anything.
func TestEdgeLog_UnwatchedTablesAreSkipped(t *testing.T) {
	txs, faults := parseFile(t, "testdata/edge/my97-mysql-bin.000001", "my97-mysql-bin.000001", "mysql", "b.par")
	var got []string
	for _, tx := range txs {
		if s := brief(tx); s != "" {
			got = append(got, s)
		}
	}
	if want := []string{"insert 1", "delete 1"}; !reflect.DeepEqual(got, want) || len(faults) != 0 {
		t.Errorf("changes %q faults %v, want %q and none", got, faults, want)
	}
}
