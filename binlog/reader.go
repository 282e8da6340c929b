package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	driver "github.com/go-sql-driver/mysql"

	"github.com/rowtide/rowtide"
)

// queryConns bounds the load on the source by queries.
const queryConns = 4

// Reader selects rows from the source in the values that the log yields for the
// same rows, so that a value that was read equals one that was streamed.
type Reader struct {
	db      *sql.DB
	mariadb bool
}

// Reader returns a reader on the source's own server. It must follow
// [Source.Preflight]; it shares the source's connection pool.
func (s *Source) Reader() *Reader {
	s.db.SetMaxOpenConns(queryConns)
	s.db.SetMaxIdleConns(queryConns)
	return &Reader{db: s.db, mariadb: s.server.Flavor == mysql.MariaDBFlavor}
}

// visibilityWait bounds one wait for a transaction to become visible. The log
// reaches us up to a semi-sync timeout (10 s by default) before the row does.
const visibilityWait = 30 * time.Second

var errNotVisible = fmt.Errorf("the transaction is not visible after %s", visibilityWait)

// WaitFor blocks until the transaction with this id can be read and returns true.
// Only MySQL with GTIDs can be asked to wait (MariaDB waits on a replica only);
// elsewhere it returns false, and queries made with [Reader.Locking] wait for the
// row locks that a transaction holds until it is visible.
func (r *Reader) WaitFor(ctx context.Context, gtid string) (visible bool, err error) {
	if r.mariadb || gtid == "" {
		return false, nil
	}
	var late sql.NullInt64
	err = r.db.QueryRowContext(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)", gtid, visibilityWait.Seconds()).Scan(&late)
	if err != nil {
		return false, &QueryError{"WAIT_FOR_EXECUTED_GTID_SET " + gtid, err}
	}
	if !late.Valid || late.Int64 != 0 {
		return false, &QueryError{"WAIT_FOR_EXECUTED_GTID_SET " + gtid, errNotVisible}
	}
	return true, nil
}

// Locking turns a SELECT into one that waits for the rows that transactions still
// hold, and so sees everything the log has shown us.
func (*Reader) Locking(query string) string {
	return strings.TrimRight(strings.TrimSpace(query), ";") + "\nLOCK IN SHARE MODE" // the query may end with a comment
}

// Query runs a SELECT and returns its columns and all its rows.
func (r *Reader) Query(ctx context.Context, query string, args ...any) (cols []string, out [][]rowtide.Value, err error) {
	err = r.Each(ctx, query, args, func(c []string, row []rowtide.Value) error {
		cols = c
		out = append(out, row)
		return nil
	})
	return cols, out, err
}

// Each runs a SELECT and hands its rows to fn one by one, which may keep them.
// It always prepares: the text protocol rounds FLOAT to six digits.
func (r *Reader) Each(ctx context.Context, query string, args []any, fn func(cols []string, row []rowtide.Value) error) error {
	return each(ctx, r.db, query, args, fn)
}

// preparer is a *sql.DB, a *sql.Conn or a *sql.Tx.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func each(ctx context.Context, db preparer, query string, args []any, fn func(cols []string, row []rowtide.Value) error) error {
	stmt, err := db.PrepareContext(ctx, query)
	if err != nil {
		return &QueryError{query, err}
	}
	defer stmt.Close()
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return &QueryError{query, err}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return &QueryError{query, err}
	}
	cols := make([]string, len(types))
	ptrs := make([]any, len(types))
	for i, t := range types {
		cols[i] = t.Name()
	}
	for rows.Next() {
		row := make([]rowtide.Value, len(types))
		for i := range row {
			ptrs[i] = &row[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			return &QueryError{query, err}
		}
		for i := range row {
			row[i] = canonical(types[i].DatabaseTypeName(), row[i])
		}
		if err := fn(cols, row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return &QueryError{query, err}
	}
	return nil
}

// QueryError is a failed query of a [Reader].
type QueryError struct {
	Query string
	Err   error
}

func (e *QueryError) Error() string { return fmt.Sprintf("query %.80q: %v", e.Query, e.Err) }
func (e *QueryError) Unwrap() error { return e.Err }

// Temporary reports whether the same query may succeed later: a broken
// connection, a lock wait, a deadlock, a server that is starting or full. A
// refusal of the query itself (syntax, a column that is gone) is not.
func (e *QueryError) Temporary() bool {
	var my *driver.MySQLError
	if !errors.As(e.Err, &my) {
		return true
	}
	switch my.Number {
	case errTooManyConnections, errShutdown, errLockWaitTimeout, errDeadlock, errRecordChanged:
		return true
	}
	return false
}

// canonical maps a driver's value to a rowtide.Value by the column's type.
func canonical(typ string, v any) rowtide.Value {
	b, ok := v.([]byte)
	if !ok {
		if s, isText := v.(string); isText {
			b = []byte(s)
		} else {
			return v
		}
	}
	switch typ {
	case "DATETIME", "TIMESTAMP":
		return parseDateTime(string(b))
	case "TIME":
		return trimZeroFraction(string(b))
	case "UNSIGNED BIGINT": // what does not fit an int64 comes as text
		if n, err := strconv.ParseUint(string(b), 10, 64); err == nil {
			return n
		}
	case "JSON":
		return rowtide.JSON(b)
	case "BIT":
		var n uint64
		for _, x := range b {
			n = n<<8 | uint64(x)
		}
		return n
	case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "GEOMETRY", "VECTOR":
		return b
	}
	return string(b)
}

// parseDateTime gives a date of the calendar as a time, any other as text.
func parseDateTime(s string) rowtide.Value {
	if t, err := time.Parse("2006-01-02 15:04:05", s); err == nil {
		return t
	}
	return trimZeroFraction(s)
}

// trimZeroFraction gives times and dates that stay text one form: the log and a
// SELECT spell a fraction out to different lengths.
func trimZeroFraction(s string) string {
	if strings.Contains(s, ".") {
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
