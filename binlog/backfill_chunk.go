package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// Bounds of a chunk. It becomes one transaction, so that live changes wait behind
// all of it; and all of it is in memory until its high watermark comes by.
const (
	firstChunk    = 1_000
	maxChunkRows  = 10_000
	maxChunkBytes = 4 << 20
)

// chunk is a run of rows in the key's order.
type chunk struct {
	table *rowtide.Table
	// modules that the rows are for, by name: others that use the table have them.
	modules []string
	rows    [][]rowtide.Value
	bytes   int
	// after is the place past it; last: there is nothing more up to the end.
	after []string
	last  bool
}

// session is one connection to the source on which a chunk is read. Watermarks
// and rows must come from one server, which two connections might not lead to.
type session struct {
	conn  *sql.Conn
	table *fillTable
	where string
	few   bool
}

// end is the last place in the key's order; nil: the table is empty.
func (s *session) end(ctx context.Context) ([]string, error) {
	return s.place(ctx, s.conn, "SELECT "+s.table.texts()+" FROM "+s.table.forced()+s.table.order(" DESC")+" LIMIT 1")
}

// place runs a query for one place; nil: no row.
func (s *session) place(ctx context.Context, db preparer, query string, args ...any) ([]string, error) {
	var out []string
	err := each(ctx, db, query, args, func(_ []string, row []rowtide.Value) error {
		var err error
		out, err = placeOf(row)
		return err
	})
	return out, err
}

// placeOf takes the key's texts out of a row.
func placeOf(row []rowtide.Value) ([]string, error) {
	out := make([]string, len(row))
	for i, v := range row {
		text, err := rowtide.AppendText(nil, v)
		if err != nil {
			return nil, fmt.Errorf("key column %d: %w", i, err)
		}
		out[i] = string(text)
	}
	return out, nil
}

// estimate asks the optimizer how many rows there are up to the end.
func (s *session) estimate(ctx context.Context, c *cursor) (int64, error) {
	cond, args := s.table.between(c.After, c.End)
	from := s.table.forced()
	if s.few {
		from, cond = s.table.from(), cond+" AND ("+s.where+"\n)"
	}
	var rows int64
	err := eachRow(ctx, s.conn, "EXPLAIN SELECT 1 FROM "+from+" WHERE "+cond, func(col map[string]string) error {
		n, _ := strconv.ParseInt(col["rows"], 10, 64) // NULL for a table without rows
		rows = max(rows, n)
		return nil
	}, args...)
	return rows, err
}

var errChunkFull = errors.New("chunk is full")

// read selects the next rows after c, walking along at most limit rows of the
// key. It sees committed rows only, and takes no locks.
func (s *session) read(ctx context.Context, c *cursor, limit int) (out *chunk, err error) {
	// Whatever the server's default is: READ UNCOMMITTED would show rows that never
	// were. Each statement has a snapshot of its own.
	tx, err := s.conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	to, last, err := s.boundary(ctx, tx, c, limit)
	if err != nil {
		return nil, err
	}
	t := s.table
	cond, args := t.between(c.After, to)
	from := t.forced()
	if s.where != "" {
		cond += " AND (" + s.where + "\n)" // it may end with a comment
	}
	if s.few {
		from = t.from()
	}
	cols := make([]string, len(t.shape.Columns))
	for i, name := range t.shape.Columns {
		cols[i] = quoteName(name)
	}
	out = &chunk{table: t.shape, after: to, last: last}
	query := "SELECT " + strings.Join(cols, ", ") + ", " + t.texts() + " FROM " + from + " WHERE " + cond + t.order("")
	err = each(ctx, tx, query, args, func(_ []string, row []rowtide.Value) error {
		if out.bytes >= maxChunkBytes || len(out.rows) >= maxChunkRows {
			return errChunkFull
		}
		out.rows = append(out.rows, row)
		out.bytes += sizeOf(row)
		return nil
	})
	if errors.Is(err, errChunkFull) {
		out.last, err = false, nil
		out.after, err = placeOf(out.rows[len(out.rows)-1][len(cols):])
	}
	for i, row := range out.rows {
		out.rows[i] = row[:len(cols):len(cols)]
	}
	return out, err
}

// boundary is the place that lies limit rows past c, or the end. It is looked for
// without the condition, so that one that few rows fulfil does not make a single
// query walk through the table.
func (s *session) boundary(ctx context.Context, db preparer, c *cursor, limit int) (to []string, last bool, err error) {
	if s.few {
		return c.End, true, nil
	}
	cond, args := s.table.between(c.After, c.End)
	query := "SELECT " + s.table.texts() + " FROM " + s.table.forced() + " WHERE " + cond + s.table.order("") + " LIMIT 1 OFFSET " + strconv.Itoa(limit-1)
	to, err = s.place(ctx, db, query, args...)
	if err != nil || to != nil {
		return to, slices.Equal(to, c.End), err
	}
	return c.End, true, nil
}

// sizeOf estimates what a row weighs in memory.
func sizeOf(row []rowtide.Value) int {
	const value = 24 // an interface and a small number behind it
	n := value * len(row)
	for _, v := range row {
		switch x := v.(type) {
		case string:
			n += len(x)
		case []byte:
			n += len(x)
		case rowtide.JSON:
			n += len(x)
		}
	}
	return n
}

// nextLimit adapts a chunk's size to the time that the last one took, by at most
// a factor of two, so that one slow query does not cripple the next ones.
func nextLimit(limit int, took, target time.Duration, most int) int {
	factor := float64(target) / float64(max(took, time.Microsecond))
	return min(max(int(float64(limit)*min(max(factor, 0.5), 2)), 1), most)
}
