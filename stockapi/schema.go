package stockapi

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

//go:embed schema.sql
var schemaSQL string

// stockTables are the tables of schema.sql.
var stockTables = []string{"stock_event", "stock_sku", "stock_cell", "stock_detail", "stock_flow", "cell_pos"}

// OpenDB returns a pool for the ledger; it does no I/O. It sets on the DSN what
// the ledger counts on: UTC, and parameters written into the text, which saves two
// of three round trips per statement.
func OpenDB(dsn string) (*sql.DB, error) {
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("stock: read DSN: %w", err)
	}
	c.InterpolateParams, c.ParseTime, c.Loc = true, true, time.UTC
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("stock: read DSN: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// EnsureSchema creates the stock tables that are missing, in the connection's
// database. It changes no table that is there.
func EnsureSchema(ctx context.Context, db *sql.DB) error {
	for stmt := range strings.SplitSeq(schemaSQL, ";\n") {
		if stmt = strings.TrimSpace(stripComments(stmt)); stmt == "" {
			continue
		}
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			name, _, _ := strings.Cut(strings.TrimPrefix(stmt, "CREATE TABLE IF NOT EXISTS "), " ")
			return fmt.Errorf("create table %s: %w", name, err)
		}
	}
	return nil
}

func stripComments(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// checkSchema returns ErrSchemaMissing if a table is not there.
func checkSchema(ctx context.Context, db *sql.DB) error {
	for _, t := range stockTables {
		rows, err := db.QueryContext(ctx, "SELECT 1 FROM "+t+" LIMIT 0")
		if err != nil {
			return fmt.Errorf("read table %s: %w", t, classify(err))
		}
		if err := rows.Close(); err != nil {
			return fmt.Errorf("read table %s: %w", t, err)
		}
	}
	return nil
}
