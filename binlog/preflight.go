package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	driver "github.com/go-sql-driver/mysql"
)

// Need is a table and the columns of it that a module uses.
type Need struct {
	Table   string // "schema.table"
	Columns []string
	// For names who needs it, for the message.
	For string
	// Check, if set, is given each column's DATA_TYPE; what it returns is a fault.
	Check func(types map[string]string) error
}

// Server error numbers that decide what an error message says.
const (
	errTooManyConnections = 1040
	errShutdown           = 1053
	errLockWaitTimeout    = 1205
	errDeadlock           = 1213
	errRecordChanged      = 1020 // MariaDB 11.6 and up, under REPEATABLE READ
	errAccessDenied       = 1045
	errAccessDeniedObject = 1227
	errFatalReadingLog    = 1236
)

// Preflight connects, learns who the server is and checks that its log can be
// read. It writes nothing. Every fault is reported, joined under
// [ErrPreflight], and names what to run.
//
// queries are SELECTs to be prepared, by the name to complain under.
func (s *Source) Preflight(ctx context.Context, needs []Need, queries map[string]string) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	server := s.server
	faults := slices.Concat(
		checkSettings(ctx, s.db, server, s.cfg.ServerID),
		checkGrants(ctx, s.db, s.cfg.User),
		checkNeeds(ctx, s.db, s.cfg.User, needs),
		checkQueries(ctx, s.db, queries),
	)
	if s.cfg.Mode == ModeGTID && !server.GTID {
		faults = append(faults, errors.New("source.mode is gtid but gtid_mode is not ON; turn it on, or set source.mode to file"))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s (%s %s):\n%w", ErrPreflight, s.cfg.Addr, server.Flavor, server.Version, errors.Join(faults...))
	}
	return nil
}

// connect opens the connections for queries and learns who the server is.
func (s *Source) connect(ctx context.Context) error {
	if s.db == nil {
		db, err := s.cfg.openDB()
		if err != nil {
			return err
		}
		s.db = db
	}
	server, err := describe(ctx, s.db)
	if err != nil {
		return s.connectError(err)
	}
	s.server = server
	return nil
}

// connectError names the account or the address, whichever the fault is with.
func (s *Source) connectError(err error) error {
	var my *driver.MySQLError
	if errors.As(err, &my) && my.Number == errAccessDenied {
		return fmt.Errorf("%w: %s refuses user %q (source.user, source.password): %w", ErrPreflight, s.cfg.Addr, s.cfg.User, err)
	}
	return fmt.Errorf("%w: cannot talk to %s (source.addr); is the server up and reachable from here? %w", ErrPreflight, s.cfg.Addr, err)
}

func checkSettings(ctx context.Context, db *sql.DB, server *Server, ourID uint32) []error {
	vars := map[string]string{}
	err := eachRow(ctx, db, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin','binlog_format','binlog_row_image','binlog_row_metadata','binlog_row_value_options','server_id')",
		func(col map[string]string) error {
			vars[col["Variable_name"]] = col["Value"]
			return nil
		})
	if err != nil {
		return []error{fmt.Errorf("read server variables: %w", err)}
	}
	var faults []error
	if vars["log_bin"] != "ON" {
		// Without a log the other settings mean nothing.
		return []error{errors.New("log_bin is OFF: start the server with --log-bin")}
	}
	want := []struct{ name, value, why string }{
		{"binlog_format", "ROW", "changes are logged as statements, not as rows"},
		{"binlog_row_image", "FULL", "unchanged columns would be missing from the cache"},
		{"binlog_row_metadata", "FULL", "events do not carry column names"},
		{"binlog_row_value_options", "", "JSON columns are logged as fragments"},
	}
	for _, w := range want {
		got, present := vars[w.name]
		if !present && (w.name == "binlog_row_value_options" || w.name == "binlog_format") {
			continue // MariaDB has no such option; MySQL 9 may drop the format
		}
		if !present {
			faults = append(faults, fmt.Errorf("%s does not exist in %s %s: MySQL 8.0.1 or MariaDB 10.5 is the oldest that can be read", w.name, server.Flavor, server.Version))
		} else if got != w.value {
			faults = append(faults, fmt.Errorf("%s is %q, %s: run SET GLOBAL %s='%s' and reconnect the applications", w.name, got, w.why, w.name, w.value))
		}
	}
	if vars["server_id"] == fmt.Sprint(ourID) {
		faults = append(faults, fmt.Errorf("source.server_id %d is the server's own: choose another", ourID))
	}
	return faults
}

func checkGrants(ctx context.Context, db *sql.DB, user string) []error {
	var all strings.Builder
	if err := eachRow(ctx, db, "SHOW GRANTS", func(col map[string]string) error {
		for _, v := range col {
			if strings.Contains(v, " ON *.* ") {
				all.WriteString(strings.ToUpper(v) + "\n")
			}
		}
		return nil
	}); err != nil {
		return []error{fmt.Errorf("read grants: %w", err)}
	}
	grants := all.String()
	if strings.Contains(grants, "ALL PRIVILEGES") {
		return nil
	}
	var faults []error
	if !strings.Contains(grants, "REPLICATION SLAVE") && !strings.Contains(grants, "REPLICATION REPLICA") {
		faults = append(faults, fmt.Errorf("user %q may not replicate: run GRANT REPLICATION SLAVE ON *.* TO %s", user, user))
	}
	if _, err := binaryLogs(ctx, db); err != nil {
		var my *driver.MySQLError
		if errors.As(err, &my) && my.Number == errAccessDeniedObject {
			err = fmt.Errorf("user %q may not see the log's position: run GRANT REPLICATION CLIENT ON *.* TO %s (MariaDB: BINLOG MONITOR)", user, user)
		}
		faults = append(faults, err)
	}
	return faults
}

// checkNeeds looks every table and column up. information_schema shows only what
// the account may read, so a missing grant and a missing table look alike.
func checkNeeds(ctx context.Context, db *sql.DB, user string, needs []Need) []error {
	var faults []error
	for _, n := range needs {
		schema, table, ok := strings.Cut(n.Table, ".")
		if !ok {
			faults = append(faults, fmt.Errorf("%s: table %q: want schema.table", n.For, n.Table))
			continue
		}
		cols, types, err := tableTypes(ctx, db, schema, table)
		switch {
		case err != nil:
			faults = append(faults, err)
		case len(cols) == 0:
			faults = append(faults, fmt.Errorf("%s: table %s does not exist, or user %q may not read it: check the name, or run GRANT SELECT ON %s TO %s", n.For, n.Table, user, n.Table, user))
		}
		for _, c := range n.Columns {
			if len(cols) > 0 && !slices.Contains(cols, c) {
				faults = append(faults, fmt.Errorf("%s: table %s has no column %q; it has %s", n.For, n.Table, c, strings.Join(cols, ", ")))
				n.Check = nil // would say the same once more
			}
		}
		if n.Check != nil && len(cols) > 0 {
			if err := n.Check(types); err != nil {
				faults = append(faults, err)
			}
		}
	}
	return faults
}

func checkQueries(ctx context.Context, db *sql.DB, queries map[string]string) []error {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		stmt, err := db.PrepareContext(ctx, queries[name])
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: the server refuses the query: %w", name, err))
			continue
		}
		stmt.Close() // only prepared to be checked
	}
	return faults
}

func tableColumns(ctx context.Context, db *sql.DB, schema, table string) ([]string, error) {
	cols, _, err := tableTypes(ctx, db, schema, table)
	return cols, err
}

// tableTypes lists a table's columns in order, and their DATA_TYPE by name.
func tableTypes(ctx context.Context, db *sql.DB, schema, table string) (cols []string, types map[string]string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT COLUMN_NAME, LOWER(DATA_TYPE) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=? AND TABLE_NAME=? ORDER BY ORDINAL_POSITION", schema, table)
	if err != nil {
		return nil, nil, fmt.Errorf("read columns of %s.%s: %w", schema, table, err)
	}
	defer rows.Close()
	types = map[string]string{}
	for rows.Next() {
		var c, t string
		if err := rows.Scan(&c, &t); err != nil {
			return nil, nil, fmt.Errorf("read columns of %s.%s: %w", schema, table, err)
		}
		cols = append(cols, c)
		types[c] = t
	}
	return cols, types, rows.Err()
}
