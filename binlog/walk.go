package binlog

import (
	"context"
	"errors"
	"strings"

	"github.com/rowtide/rowtide"
)

// Types lists a table's columns in order, also the invisible ones, and their
// DATA_TYPE by name. A table that is not there has none.
func (r *Reader) Types(ctx context.Context, table string) ([]string, map[string]string, error) {
	schema, name, _ := strings.Cut(table, ".")
	return tableTypes(ctx, r.db, schema, name)
}

// Walk hands the given columns of all rows of a table to fn, at most limit rows
// and some megabytes at a time, in the order of the primary key or another unique
// one. Each chunk has a statement of its own, so that fn may take its time. Rows
// whose key is past the last one of when it began are left out. A table without
// such a key is read by one statement, which the server ends if fn lets it wait
// for longer than its net_write_timeout.
func (r *Reader) Walk(ctx context.Context, table string, columns []string, limit int, fn func(rows [][]rowtide.Value) error) error {
	t, err := describeFill(ctx, r.db, table)
	if _, unfit := errors.AsType[*fillError](err); unfit {
		return r.walkUnordered(ctx, table, columns, limit, fn)
	}
	if err != nil {
		return err
	}
	t.shape = &rowtide.Table{Schema: t.shape.Schema, Name: t.shape.Name, Columns: columns}
	at := cursor{}
	err = r.session(ctx, t, func(s *session) (err error) {
		at.End, err = s.end(ctx)
		return err
	})
	for done := at.End == nil; err == nil && !done; {
		var c *chunk
		err = r.session(ctx, t, func(s *session) (err error) {
			c, err = s.read(ctx, &at, limit)
			return err
		})
		if err != nil {
			break
		}
		at.After, done = c.after, c.last
		err = fn(c.rows)
	}
	return err
}

// session lends a connection for as long as fn takes.
func (r *Reader) session(ctx context.Context, t *fillTable, fn func(*session) error) error {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(&session{conn: conn, table: t})
}

func (r *Reader) walkUnordered(ctx context.Context, table string, columns []string, limit int, fn func(rows [][]rowtide.Value) error) error {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = quoteName(c)
	}
	schema, name, _ := strings.Cut(table, ".")
	query := "SELECT " + strings.Join(quoted, ", ") + " FROM " + quoteName(schema) + "." + quoteName(name)
	var rows [][]rowtide.Value
	bytes := 0
	err := r.Each(ctx, query, nil, func(_ []string, row []rowtide.Value) error {
		rows = append(rows, row)
		bytes += sizeOf(row)
		if len(rows) < limit && bytes < maxChunkBytes {
			return nil
		}
		full := rows
		rows, bytes = nil, 0
		return fn(full)
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return fn(rows)
}
