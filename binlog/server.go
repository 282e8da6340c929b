package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
	driver "github.com/go-sql-driver/mysql"
)

// Server is what is known of the source before it is read.
type Server struct {
	// Flavor is "mysql" or "mariadb".
	Flavor string
	// Version as the server prints it.
	Version string
	// ID tells this server from another one at the same address: server_uuid on
	// MySQL; on MariaDB, which has none, server id, host name and port.
	ID string
	// GTID is true when every transaction has a global id.
	GTID     bool
	charsets Charsets
}

// openDB returns a pool on the server for queries; nothing is connected yet.
func (c Config) openDB() (*sql.DB, error) {
	tlsConfig, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	d := driver.NewConfig()
	d.Net, d.Addr, d.User, d.Passwd = "tcp", c.Addr, c.User, c.Password
	d.TLS = tlsConfig
	d.AllowNativePasswords = true
	d.Timeout = c.ReadTimeout
	// A host that dies without a word must not hold a query for ever; longer than
	// any wait that we ask the server for.
	d.ReadTimeout, d.WriteTimeout = 2*visibilityWait, 2*visibilityWait
	// TIMESTAMP and CHAR columns must read the same from a SELECT as from the log,
	// whatever the server's defaults are.
	d.Params = map[string]string{
		"time_zone": "'+00:00'", "sql_mode": "REPLACE(@@sql_mode, 'PAD_CHAR_TO_FULL_LENGTH', '')", "autocommit": "1",
	}
	conn, err := driver.NewConnector(d)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Addr, err)
	}
	return sql.OpenDB(conn), nil
}

// identityQuery yields the one text that tells a server from another.
func identityQuery(flavor string) string {
	if flavor == mysql.MariaDBFlavor {
		return "SELECT CONCAT('mariadb:', @@server_id, '@', @@hostname, ':', @@port)"
	}
	return "SELECT @@server_uuid"
}

// describe asks the server who it is.
func describe(ctx context.Context, db *sql.DB) (*Server, error) {
	s := &Server{Flavor: mysql.MySQLFlavor}
	if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&s.Version); err != nil {
		return nil, fmt.Errorf("ask the server's version: %w", err)
	}
	if strings.Contains(strings.ToLower(s.Version), "mariadb") {
		s.Flavor, s.GTID = mysql.MariaDBFlavor, true
	} else {
		var mode string
		if err := db.QueryRowContext(ctx, "SELECT @@gtid_mode").Scan(&mode); err != nil {
			return nil, fmt.Errorf("ask the server's GTID mode: %w", err)
		}
		s.GTID = mode == "ON"
	}
	err := db.QueryRowContext(ctx, identityQuery(s.Flavor)).Scan(&s.ID)
	if err != nil {
		return nil, fmt.Errorf("ask the server's identity: %w", err)
	}
	if s.charsets, err = loadCharsets(ctx, db); err != nil {
		return nil, err
	}
	return s, nil
}

// binlogFile is one line of SHOW BINARY LOGS.
type binlogFile struct {
	name string
	size uint64
}

func binaryLogs(ctx context.Context, db *sql.DB) ([]binlogFile, error) {
	var out []binlogFile
	err := eachRow(ctx, db, "SHOW BINARY LOGS", func(col map[string]string) error {
		f := binlogFile{name: col["Log_name"]}
		_, err := fmt.Sscan(col["File_size"], &f.size)
		out = append(out, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list binary logs: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("list binary logs: the server has none")
	}
	return out, nil
}

// head is the log's end and, where there are GTIDs, the set executed.
func (s *Server) head(ctx context.Context, db *sql.DB) (file string, pos uint64, gtids string, err error) {
	read := func(col map[string]string) error {
		file, gtids = col["File"], strings.ReplaceAll(col["Executed_Gtid_Set"], "\n", "")
		_, err := fmt.Sscan(col["Position"], &pos)
		return err
	}
	// The statement was renamed in MySQL 8.2 and the old name removed in 8.4.
	err = eachRow(ctx, db, "SHOW MASTER STATUS", read)
	if err != nil {
		err = eachRow(ctx, db, "SHOW BINARY LOG STATUS", read)
	}
	if err == nil && s.Flavor == mysql.MariaDBFlavor {
		err = db.QueryRowContext(ctx, "SELECT @@gtid_binlog_pos").Scan(&gtids)
	}
	if err != nil {
		return "", 0, "", fmt.Errorf("ask the log's end: %w", err)
	}
	return file, pos, gtids, nil
}

// queryer is a *sql.DB, a *sql.Conn or a *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// eachRow runs a SHOW statement, whose columns differ between versions, and
// hands each row over by column name.
func eachRow(ctx context.Context, db queryer, query string, fn func(map[string]string) error, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	vals := make([]sql.NullString, len(cols))
	ptrs := make([]any, len(cols))
	for i := range vals {
		ptrs[i] = &vals[i]
	}
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return err
		}
		row := make(map[string]string, len(cols))
		for i, c := range cols {
			row[c] = vals[i].String
		}
		if err := fn(row); err != nil {
			return err
		}
	}
	return rows.Err()
}
