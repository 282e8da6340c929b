package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// schema is a table of twelve columns, some 170 bytes a row, like the ones that
// the reference figures of other tools were taken with.
const schema = `
CREATE TABLE bench.item (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  name VARCHAR(64) NOT NULL, price DECIMAL(10,2) NOT NULL, state TINYINT NOT NULL,
  c1 INT NOT NULL, c2 INT NOT NULL, c3 BIGINT NOT NULL, c4 BIGINT NULL,
  note VARCHAR(64) NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME(3) NOT NULL, flags SMALLINT UNSIGNED NOT NULL
)`

// loop commits one-row transactions inside the server, so that writing the log
// costs no round trips: half of them inserts, half updates of what was inserted.
const loop = `
CREATE PROCEDURE bench.fill(IN base BIGINT, IN n INT)
BEGIN
  DECLARE i INT DEFAULT 0;
  WHILE i < n DO
    IF i < n / 2 THEN
      INSERT INTO bench.item VALUES (base + i, CONCAT('item number ', base + i), 12.50, 1, i, i, i, NULL,
        'some words about the item, fifty bytes of it', NOW(), NOW(3), 7);
    ELSE
      UPDATE bench.item SET price = price + 1, c1 = i, updated_at = NOW(3) WHERE id = base + i - n DIV 2;
    END IF;
    SET i = i + 1;
  END WHILE;
END`

const rowsPerBulk = 100

// bulkLoop commits inserts of a hundred rows each.
const bulkLoop = `
CREATE PROCEDURE bench.fill_bulk(IN base BIGINT, IN n INT)
BEGIN
  DECLARE i INT DEFAULT 0;
  WHILE i < n DO
    INSERT INTO bench.item SELECT base + i + k, CONCAT('item number ', base + i + k), 12.50, 1, i, i, i, NULL,
      'some words about the item, fifty bytes of it', NOW(), NOW(3), 7 FROM bench.hundred;
    SET i = i + 100;
  END WHILE;
END`

const hundred = `
INSERT INTO bench.hundred
WITH RECURSIVE n AS (SELECT 0 AS k UNION ALL SELECT k + 1 FROM n WHERE k < 99) SELECT k FROM n`

// workload is one way to fill a log.
type workload struct {
	name string // in a sentence: transactions, rows
	call string
}

var (
	singleRows = workload{"transactions", "CALL bench.fill(?, ?)"}
	bulkRows   = workload{"rows", "CALL bench.fill_bulk(?, ?)"}
)

// The ids of the rows that a log begins and ends with: an observer of Redis
// times a reader by their keys.
const (
	firstID = 3_000_000_000
	lastID  = 4_000_000_000
)

// open connects to the source and makes the tables anew.
func (b *bench) open(ctx context.Context) (*sql.DB, error) {
	db, err := sql.Open("mysql", b.sql.DSN("")+"?interpolateParams=true")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(writers)
	db.SetMaxIdleConns(writers)
	if err := prepare(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openFilled is open with the rows that paced commits update.
func (b *bench) openFilled(ctx context.Context) (*sql.DB, error) {
	db, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, db, singleRows, 4*latencyKeys); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func prepare(ctx context.Context, db *sql.DB) error {
	for _, q := range []string{
		"DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench", schema, loop,
		"CREATE TABLE bench.hundred (k INT NOT NULL PRIMARY KEY)", hundred, bulkLoop,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// write makes a log that holds w and nothing else.
func (b *bench) write(ctx context.Context, w workload) error {
	db, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	reset := "RESET MASTER"
	if b.sql.Flavor == testenv.FlavorMySQL {
		reset = "RESET BINARY LOGS AND GTIDS"
	}
	if _, err := db.ExecContext(ctx, reset); err != nil {
		return err
	}
	began := time.Now()
	mark := "INSERT INTO bench.item VALUES (?, 'mark', 1, 1, 1, 1, 1, NULL, '', NOW(), NOW(3), 7)"
	if _, err := db.ExecContext(ctx, mark, firstID); err != nil {
		return err
	}
	if err := fill(ctx, db, w, b.txs); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, mark, lastID); err != nil {
		return err
	}
	fmt.Printf("  wrote %d %s in %.1f s\n", b.changes(), w.name, time.Since(began).Seconds())
	return nil
}

// changes is how many row changes a log of write holds.
func (b *bench) changes() int { return b.txs/(2*rowsPerBulk)*(2*rowsPerBulk) + 2 }

func fill(ctx context.Context, db *sql.DB, w workload, n int) error {
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = db.ExecContext(ctx, w.call, i*1_000_000_000, n/(2*rowsPerBulk)*rowsPerBulk)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// head is the end of the source's log.
func (b *bench) head(ctx context.Context) (string, error) {
	db, err := sql.Open("mysql", b.sql.DSN(""))
	if err != nil {
		return "", err
	}
	defer db.Close()
	query := "SHOW MASTER STATUS"
	if b.sql.Flavor == testenv.FlavorMySQL {
		query = "SHOW BINARY LOG STATUS"
	}
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil || !rows.Next() {
		return "", errors.Join(err, errors.New("the server has no log"))
	}
	var file string
	var pos int64
	dest := []any{&file, &pos}
	for len(dest) < len(cols) {
		dest = append(dest, new(sql.RawBytes))
	}
	if err := rows.Scan(dest...); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%d", file, pos), nil
}
