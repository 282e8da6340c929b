package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	_ "github.com/go-sql-driver/mysql" // the database/sql driver

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

func (b *bench) throughput(ctx context.Context) error {
	db, err := sql.Open("mysql", b.sql.DSN(""))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := prepare(ctx, db); err != nil {
		return err
	}
	began := time.Now()
	if err := fill(ctx, db, b.txs); err != nil {
		return err
	}
	fmt.Printf("wrote %d single-row transactions in %.1f s\n", b.txs, time.Since(began).Seconds())

	var decode, set, own, perTx figures
	for i := range b.runs {
		d, err := b.decodeOnly(ctx)
		if err != nil {
			return err
		}
		s, err := b.redisSet(ctx)
		if err != nil {
			return err
		}
		o, cpu, err := b.rowtide(ctx, i)
		if err != nil {
			return err
		}
		decode, set, own, perTx = append(decode, d), append(set, s), append(own, o), append(perTx, cpu)
	}
	fmt.Printf("  binlog -> Redis + Kafka      %s tx/s\n", own)
	fmt.Printf("  reference: go-mysql decode   %s tx/s\n", decode)
	fmt.Printf("  reference: redis SET -P 100  %s /s\n", set)
	fmt.Printf("  ratio to decode-only %.2f, to pipelined SET %.2f; daemon CPU %.1f us a transaction\n",
		own.median()/decode.median(), own.median()/set.median(), perTx.median())
	return nil
}

func prepare(ctx context.Context, db *sql.DB) error {
	for _, q := range []string{"DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench", schema, loop} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func fill(ctx context.Context, db *sql.DB, n int) error {
	const writers = 2
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { _, errs[w] = db.ExecContext(ctx, "CALL bench.fill(?, ?)", w*1_000_000_000, n/writers) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// decodeOnly reads the same log with the library's own defaults for speed and
// throws everything away.
func (b *bench) decodeOnly(ctx context.Context) (float64, error) {
	host, port, _ := strings.Cut(b.sql.Addr, ":")
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, err
	}
	c := &counter{want: b.txs, done: make(chan struct{})}
	s := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4712, Flavor: b.sql.Flavor, Host: host, Port: uint16(p), User: "root",
		ParseTime: true, DiscardGTIDSet: true, SynchronousEventHandler: c, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	defer s.Close()
	began := time.Now()
	if _, err := s.StartSync(mysql.Position{Name: "binlog.000001", Pos: 4}); err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return float64(b.txs) / time.Since(began).Seconds(), nil
}

type counter struct {
	want int
	done chan struct{}
}

// HandleEvent implements replication.EventHandler.
func (c *counter) HandleEvent(e *replication.BinlogEvent) error {
	if r, ok := e.Event.(*replication.RowsEvent); ok && len(r.Rows) > 0 && string(r.Table.Schema) == "bench" {
		if c.want--; c.want == 0 {
			close(c.done)
		}
	}
	return nil
}

// redisSet is what Redis takes from its own benchmark tool, with values of our
// size.
func (b *bench) redisSet(ctx context.Context) (float64, error) {
	host, port, _ := strings.Cut(b.redis.Addr, ":")
	out, err := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "-t", "set", "-n", "2000000",
		"-r", "150000", "-d", "200", "-P", "100", "-c", "4", "--csv").Output()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], ",")
	return strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
}

// rowtide lets a new daemon read the whole log and measures from the first
// transaction to the last checkpoint.
func (b *bench) rowtide(ctx context.Context, i int) (rate, cpuPerTx float64, err error) {
	name := fmt.Sprintf("bench%d", i)
	d, err := b.startDaemon(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	head, err := b.head(ctx)
	if err != nil {
		return 0, 0, err
	}
	var began time.Time
	var first int64
	pid := d.cmd.Process.Pid
	var cpu float64
	err = d.await(ctx, func(s daemonStatus) bool {
		if began.IsZero() && s.Transactions > 0 {
			began, first, cpu = time.Now(), s.Transactions, cpuSeconds(pid)
		}
		return s.Position == head // the checkpoint: Redis and Kafka have it all
	})
	elapsed := time.Since(began).Seconds()
	n := float64(b.txs) - float64(first)
	return n / elapsed, (cpuSeconds(pid) - cpu) / n * 1e6, err
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
