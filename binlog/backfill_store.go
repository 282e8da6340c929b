package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/rowtide/rowtide"
)

// BackfillStatus is what became of a request.
type BackfillStatus string

// The states of a request, as they stand in the table.
const (
	BackfillQueued  BackfillStatus = "queued"
	BackfillRunning BackfillStatus = "running"
	BackfillPaused  BackfillStatus = "paused"
	BackfillDone    BackfillStatus = "done"
	BackfillFailed  BackfillStatus = "failed"
)

// Ended reports whether nothing will happen to the request any more.
func (s BackfillStatus) Ended() bool { return s == BackfillDone || s == BackfillFailed }

// BackfillRequest asks a daemon to read a table once.
type BackfillRequest struct {
	// Modules are "name/version" of those it is for; the rows reach no others.
	Modules []string
	// Table is "schema.table".
	Table string
	// Where is an SQL condition that narrows the rows; empty: all.
	Where string
	// Few says that Where names some rows by an index, so that the table need not
	// be walked through to find them.
	Few bool
}

// names are the modules without their versions.
func (r BackfillRequest) names() []string {
	out := make([]string, len(r.Modules))
	for i, m := range r.Modules {
		out[i], _, _ = strings.Cut(m, "/")
	}
	return out
}

// Backfill is a request and how far it is.
type Backfill struct {
	BackfillRequest
	ID        uint64
	Status    BackfillStatus
	Rows      int64 // read so far, and covered by the checkpoint
	Estimated int64 // of the whole
	Err       string
	UpdatedAt time.Time

	cursor  string
	version rowtide.Version // up to which the checkpoint must be for Rows to count
}

// Backfills are the requests of one daemon, kept in a table of the source. The
// daemon that has the name and follows the source works them off in order.
type Backfills struct {
	db     *sql.DB
	schema string
	daemon string
}

// Backfills returns the requests of the named daemon. It must follow
// [Source.Preflight]; it does no I/O.
func (s *Source) Backfills(daemon string) *Backfills {
	return &Backfills{db: s.db, schema: s.cfg.Backfill.Schema, daemon: daemon}
}

func (b *Backfills) table(name string) string { return quoteName(b.schema) + "." + quoteName(name) }

func quoteName(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

// statements that make our tables, by name. Daemon names compare byte by byte.
func (b *Backfills) statements() map[string]string {
	const daemon = "daemon VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
	return map[string]string{
		heartbeatTable: "CREATE TABLE IF NOT EXISTS " + b.table(heartbeatTable) + " (" + daemon + " PRIMARY KEY," +
			" token VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, at DATETIME(6) NOT NULL) ENGINE=InnoDB",
		backfillTable: "CREATE TABLE IF NOT EXISTS " + b.table(backfillTable) + " (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY," +
			daemon + ", modules TEXT NOT NULL, source_table VARCHAR(190) NOT NULL, condition_sql TEXT NOT NULL, few BOOLEAN NOT NULL," +
			" state VARCHAR(16) NOT NULL, cursor_json TEXT NOT NULL, version BIGINT UNSIGNED NOT NULL DEFAULT 0, rows_done BIGINT NOT NULL DEFAULT 0," +
			" rows_estimated BIGINT NOT NULL DEFAULT 0, error TEXT NOT NULL, created_at DATETIME(6) NOT NULL, updated_at DATETIME(6) NOT NULL," +
			" KEY backfill_daemon (daemon, state)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
	}
}

// Create makes the schema and the tables that are missing.
func (b *Backfills) Create(ctx context.Context) error {
	var have int
	if err := b.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME=?", b.schema).Scan(&have); err != nil {
		return fmt.Errorf("look for schema %s: %w", b.schema, err)
	}
	if have == 0 {
		if _, err := b.db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(b.schema)); err != nil {
			return fmt.Errorf("create schema %s: %w", b.schema, err)
		}
	}
	for name, statement := range b.statements() {
		// Asked first, because the statement is logged even if it changes nothing.
		cols, err := tableColumns(ctx, b.db, b.schema, name)
		if err == nil && len(cols) == 0 {
			_, err = b.db.ExecContext(ctx, statement)
		}
		if err != nil {
			return fmt.Errorf("create table %s.%s: %w", b.schema, name, err)
		}
	}
	return nil
}

// Add queues a request and returns its id.
func (b *Backfills) Add(ctx context.Context, r BackfillRequest) (uint64, error) {
	res, err := b.db.ExecContext(ctx, "INSERT INTO "+b.table(backfillTable)+
		" (daemon, modules, source_table, condition_sql, few, state, cursor_json, error, created_at, updated_at)"+
		" VALUES (?, ?, ?, ?, ?, ?, '', '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
		b.daemon, strings.Join(r.Modules, ","), r.Table, r.Where, r.Few, BackfillQueued)
	if err != nil {
		return 0, fmt.Errorf("queue backfill of %s: %w", r.Table, err)
	}
	id, err := res.LastInsertId()
	return uint64(id), err //nolint:gosec // an AUTO_INCREMENT begins at 1
}

// List returns the daemon's requests, oldest first. Without our tables there are
// none.
func (b *Backfills) List(ctx context.Context) ([]Backfill, error) { return b.list(ctx, "") }

func (b *Backfills) list(ctx context.Context, locking string) ([]Backfill, error) {
	rows, err := b.db.QueryContext(ctx, "SELECT id, modules, source_table, condition_sql, few, state, cursor_json, version, rows_done, rows_estimated,"+
		" error, updated_at FROM "+b.table(backfillTable)+" WHERE daemon=? ORDER BY id"+locking, b.daemon)
	if err != nil {
		if absent(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list backfills: %w", err)
	}
	defer rows.Close()
	var out []Backfill
	for rows.Next() {
		var f Backfill
		var modules, updated string
		if err := rows.Scan(&f.ID, &modules, &f.Table, &f.Where, &f.Few, &f.Status, &f.cursor, &f.version, &f.Rows, &f.Estimated, &f.Err, &updated); err != nil {
			return nil, fmt.Errorf("list backfills: %w", err)
		}
		f.Modules = strings.Split(modules, ",")
		f.UpdatedAt, _ = time.Parse("2006-01-02 15:04:05.999999", updated) // for display only
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list backfills: %w", err)
	}
	return out, nil
}

// Pause stops a request after its present chunk, until [Backfills.Continue]. It
// returns false when there is nothing to stop.
func (b *Backfills) Pause(ctx context.Context, id uint64) (bool, error) {
	return b.move(ctx, id, BackfillPaused, BackfillQueued, BackfillRunning)
}

// Continue queues a paused request again; it goes on where it stopped.
func (b *Backfills) Continue(ctx context.Context, id uint64) (bool, error) {
	return b.move(ctx, id, BackfillQueued, BackfillPaused)
}

func (b *Backfills) move(ctx context.Context, id uint64, to BackfillStatus, from ...BackfillStatus) (bool, error) {
	args := []any{to, id}
	for _, f := range from {
		args = append(args, f)
	}
	res, err := b.db.ExecContext(ctx, "UPDATE "+b.table(backfillTable)+" SET state=?, updated_at=UTC_TIMESTAMP(6) WHERE id=? AND state IN (?"+
		strings.Repeat(",?", len(from)-1)+")", args...)
	if err != nil {
		return false, fmt.Errorf("make backfill %d %s: %w", id, to, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// abandoned is why a request failed that nobody need mend.
const abandoned = "another version of the module is in force"

// Abandon makes requests fail that are not over and name another version of a module
// than the one in force, "name/version": their rows would be written under that one.
// The other modules of such a request are asked for again.
func (b *Backfills) Abandon(ctx context.Context, inForce []string) error {
	requests, err := b.List(ctx)
	if err != nil {
		return err
	}
	for i := range requests {
		f := &requests[i]
		rest := slices.DeleteFunc(slices.Clone(f.Modules), func(m string) bool { return superseded(m, inForce) })
		if f.Status.Ended() || len(rest) == len(f.Modules) {
			continue
		}
		if len(rest) > 0 { // first: a crash in between only has them read twice
			if _, err := b.Add(ctx, BackfillRequest{Modules: rest, Table: f.Table, Where: f.Where, Few: f.Few}); err != nil {
				return err
			}
		}
		f.Err = abandoned
		if err := b.save(ctx, f); err != nil {
			return err
		}
		if _, err := b.move(ctx, f.ID, BackfillFailed, BackfillQueued, BackfillRunning, BackfillPaused); err != nil {
			return err
		}
	}
	return nil
}

// superseded reports whether another version of the module is in force.
func superseded(module string, inForce []string) bool {
	name, _, _ := strings.Cut(module, "/")
	return !slices.Contains(inForce, module) &&
		slices.ContainsFunc(inForce, func(m string) bool { return strings.HasPrefix(m, name+"/") })
}

// save records how far a request is; the state is left alone.
func (b *Backfills) save(ctx context.Context, f *Backfill) error {
	_, err := b.db.ExecContext(ctx, "UPDATE "+b.table(backfillTable)+
		" SET cursor_json=?, version=?, rows_done=?, rows_estimated=?, error=?, updated_at=UTC_TIMESTAMP(6) WHERE id=?",
		f.cursor, uint64(f.version), f.Rows, f.Estimated, f.Err, f.ID)
	if err != nil {
		return fmt.Errorf("save progress of backfill %d: %w", f.ID, err)
	}
	return nil
}

// status is the request's state now; "" when somebody took the row away.
func (b *Backfills) status(ctx context.Context, id uint64) (BackfillStatus, error) {
	var s BackfillStatus
	err := b.db.QueryRowContext(ctx, "SELECT state FROM "+b.table(backfillTable)+" WHERE id=?", id).Scan(&s)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return s, err
}

// beat writes the heartbeat row.
func (b *Backfills) beat(ctx context.Context, db execer, token string) error {
	_, err := db.ExecContext(ctx, "INSERT INTO "+b.table(heartbeatTable)+" (daemon, token, at) VALUES (?, ?, UTC_TIMESTAMP(6))"+
		" ON DUPLICATE KEY UPDATE token=?, at=UTC_TIMESTAMP(6)", b.daemon, token, token)
	if err != nil {
		return fmt.Errorf("write watermark: %w", err)
	}
	return nil
}

// execer is a *sql.DB or a *sql.Conn.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Error numbers by which a table of ours is not there, or not for us.
const (
	errDatabaseDenied  = 1044
	errUnknownDatabase = 1049
	errTableDenied     = 1142
	errNoSuchTable     = 1146
)

func hasNumber(err error, numbers ...uint16) bool {
	var my *driver.MySQLError
	return errors.As(err, &my) && slices.Contains(numbers, my.Number)
}

func absent(err error) bool {
	return hasNumber(err, errNoSuchTable, errUnknownDatabase, errTableDenied, errDatabaseDenied)
}
