//go:build integration

package main

import (
	"context"
	"database/sql"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
)

// database is a test's own database on a shared server; it goes with the test.
type database struct {
	*sql.DB
	t      *testing.T
	schema string
}

func newDatabase(t *testing.T, target testenv.SQLTarget, name string) *database {
	t.Helper()
	db, err := sql.Open("mysql", target.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	d := &database{db, t, testenv.UniqueName(t, name)}
	t.Cleanup(func() {
		_, _ = db.ExecContext(context.Background(), "DROP DATABASE "+d.schema)
		_ = db.Close()
	})
	d.exec("CREATE DATABASE " + d.schema)
	return d
}

func (d *database) exec(q string, args ...any) {
	d.t.Helper()
	if _, err := d.ExecContext(d.t.Context(), q, args...); err != nil {
		d.t.Fatalf("%s: %v", q, err)
	}
}
