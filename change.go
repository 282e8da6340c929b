package rowtide

import (
	"fmt"
	"time"
)

// Op says what happened to a row. The zero Op is invalid, so that a forgotten
// field fails instead of meaning "insert".
type Op uint8

// The row operations.
const (
	OpInsert Op = iota + 1
	OpUpdate
	OpDelete
	// OpRead is no change: a backfill read the row and found it as After says.
	OpRead
	// OpTruncate is the end of all rows of a table, which the log tells as a
	// statement only: TRUNCATE, DROP, a dropped partition. It has no images.
	OpTruncate
)

// String is the operation's name in lower case.
func (o Op) String() string {
	switch o {
	case OpInsert:
		return "insert"
	case OpUpdate:
		return "update"
	case OpDelete:
		return "delete"
	case OpRead:
		return "read"
	case OpTruncate:
		return "truncate"
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Table is the shape of a table as of one event. A *Table is immutable and is
// shared by all changes with that shape, so its address can key a plan.
type Table struct {
	Schema  string
	Name    string
	Columns []string
	// PrimaryKey holds indexes into Columns; empty when the table has none or
	// the source cannot tell.
	PrimaryKey []int
}

// String is "schema.table".
func (t *Table) String() string { return t.Schema + "." + t.Name }

// Column is the index of the named column, or -1.
func (t *Table) Column(name string) int {
	for i, c := range t.Columns {
		if c == name {
			return i
		}
	}
	return -1
}

// Change is one row's change. Before and After are aligned with Table.Columns;
// an insert and a read row have no Before, a delete no After.
type Change struct {
	Table  *Table
	Op     Op
	Before []Value
	After  []Value
	// Module is the only one that the change is for, when it was routed by a
	// module's key; empty: all.
	Module string
}

// Tx is one committed transaction, whole. It is the unit of acknowledgement:
// only a Tx carries a Position.
type Tx struct {
	// Position is the place just past the transaction.
	Position Position
	// Version orders this transaction among all of its source.
	Version Version
	// CommittedAt is the source's clock at commit: microseconds where the server
	// logs them (MySQL 8), whole seconds elsewhere. For lag figures only, never
	// for ordering.
	CommittedAt time.Time
	// Changes in the order of the log. Empty for a transaction that touched no
	// watched table; it still moves the checkpoint.
	Changes []Change
	// Bytes is the size of the transaction's events in the log.
	Bytes int
}
