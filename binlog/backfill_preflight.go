package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PreflightBackfill checks that our tables can be kept in the source. It must
// follow [Source.Preflight], whose errors it adds to, and writes nothing.
func (s *Source) PreflightBackfill(ctx context.Context) error {
	if s.server == nil {
		return nil // Preflight has said why
	}
	b := s.Backfills("")
	var faults []error
	for _, check := range []func(context.Context, *Source) error{b.checkRights, b.checkWritable, b.checkLogged, b.checkOrder} {
		if err := check(ctx, s); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w for a backfill: %s (%s %s):\n%w", ErrPreflight, s.cfg.Addr, s.server.Flavor, s.server.Version, errors.Join(faults...))
}

// checkRights prepares every statement: the server checks the rights for it then,
// and a table that is not there yet is another error than one that is forbidden.
func (b *Backfills) checkRights(ctx context.Context, _ *Source) error {
	create := b.statements()
	statements := []string{
		create[heartbeatTable], create[backfillTable],
		"INSERT INTO " + b.table(heartbeatTable) + " (daemon, token, at) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE token=?",
		"INSERT INTO " + b.table(backfillTable) + " (daemon) VALUES (?)",
		"UPDATE " + b.table(backfillTable) + " SET error=? WHERE id=?",
	}
	for _, q := range statements {
		stmt, err := b.db.PrepareContext(ctx, q)
		if err == nil {
			stmt.Close() // only prepared to be checked
			continue
		}
		if hasNumber(err, errTableDenied, errDatabaseDenied) {
			var account string
			if err := b.db.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&account); err != nil {
				return fmt.Errorf("ask our account: %w", err)
			}
			account = "'" + strings.Replace(account, "@", "'@'", 1) + "'"
			return fmt.Errorf("user %s may not keep our tables in schema %s: run GRANT CREATE, SELECT, INSERT, UPDATE ON %s.* TO %s, "+
				"or set source.backfill.auto: false and source.heartbeat_row: 0s", account, b.schema, quoteName(b.schema), account)
		}
		if !absent(err) {
			return fmt.Errorf("the server refuses %.60q: %w", q, err)
		}
	}
	return nil
}

func (b *Backfills) checkWritable(ctx context.Context, s *Source) error {
	var readOnly string
	if err := b.db.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly); err != nil {
		return fmt.Errorf("read server variables: %w", err)
	}
	if readOnly == "0" || strings.EqualFold(readOnly, "OFF") {
		return nil
	}
	return fmt.Errorf("%s is read only, so that no watermark can be written: name the primary in source.addr, or set source.backfill.auto: false and source.heartbeat_row: 0s", s.cfg.Addr)
}

// checkLogged finds filters by which our rows would never come back.
func (b *Backfills) checkLogged(ctx context.Context, s *Source) error {
	var do, ignore string
	read := func(col map[string]string) error {
		do, ignore = col["Binlog_Do_DB"], col["Binlog_Ignore_DB"]
		return nil
	}
	err := eachRow(ctx, b.db, "SHOW MASTER STATUS", read)
	if err != nil {
		err = eachRow(ctx, b.db, "SHOW BINARY LOG STATUS", read)
	}
	if err != nil {
		return nil //nolint:nilerr // Preflight has complained
	}
	if do != "" && !slices.Contains(strings.Split(do, ","), b.schema) || slices.Contains(strings.Split(ignore, ","), b.schema) {
		return fmt.Errorf("%s does not log schema %s (binlog_do_db %q, binlog_ignore_db %q): let it be logged, or set source.backfill.auto: false and source.heartbeat_row: 0s",
			s.cfg.Addr, b.schema, do, ignore)
	}
	return nil
}

// checkOrder: what the log has must be visible in the log's order.
func (b *Backfills) checkOrder(ctx context.Context, s *Source) error {
	var ordered string
	err := eachRow(ctx, b.db, "SHOW GLOBAL VARIABLES LIKE 'binlog_order_commits'", func(col map[string]string) error {
		ordered = col["Value"]
		return nil
	})
	if err == nil && ordered == "OFF" {
		err = errors.New("binlog_order_commits is OFF, rows may become visible in another order than they are logged: run SET GLOBAL binlog_order_commits='ON', or set source.backfill.auto: false")
	}
	return err
}
