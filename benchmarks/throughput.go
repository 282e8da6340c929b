package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	_ "github.com/go-sql-driver/mysql" // the database/sql driver
)

// What the project asks of itself, with all servers on the same two cores.
const (
	singleRowBar = 80_000 // transactions a second
	bulkBar      = 120_000
	bareLoopBar  = 0.35
)

func (b *bench) throughput(ctx context.Context) error {
	return b.readLog(ctx, singleRows, singleRowBar)
}

func (b *bench) bulk(ctx context.Context) error { return b.readLog(ctx, bulkRows, bulkBar) }

// readLog measures binlog -> Redis + Kafka over one log, in turns with its
// references.
func (b *bench) readLog(ctx context.Context, w workload, want float64) error {
	if err := b.write(ctx, w); err != nil {
		return err
	}
	calls, err := b.scriptCalls(ctx)
	if err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent)) // for the references in this process
	var decode, set, bare, own, perChange, perEntry figures
	for range b.runs {
		d, err := b.decodeOnly(ctx)
		if err != nil {
			return err
		}
		s, err := b.redisSet(ctx)
		if err != nil {
			return err
		}
		l, _, err := b.bareLoop(ctx, calls)
		if err != nil {
			return err
		}
		r, err := b.rowtide(ctx)
		if err != nil {
			return err
		}
		decode, set, bare, own = append(decode, d), append(set, s), append(bare, l), append(own, r.rate)
		perChange, perEntry = append(perChange, r.used.client*1e6), append(perEntry, r.changesPerEntry)
	}
	fmt.Printf("  binlog -> Redis + Kafka         %s %s/s\n", own, w.name)
	fmt.Printf("  reference: go-mysql decode      %s %s/s\n", decode, w.name)
	fmt.Printf("  reference: redis SET -P 100     %s /s\n", set)
	fmt.Printf("  reference: bare loop, script    %s keys/s\n", bare)
	fmt.Printf("  ratio to decode-only %.2f, to pipelined SET %.2f, to the bare loop %.2f\n",
		own.median()/decode.median(), own.median()/set.median(), own.median()/bare.median())
	fmt.Printf("  daemon CPU %.1f us a row; %.2f row changes per entry written\n", perChange.median(), perEntry.median())
	share := own.median() / bare.median()
	bar(own.median() >= want, "%.0f %s a second, has %.0f", want, w.name, own.median())
	bar(share >= bareLoopBar, "%.2f of the bare loop, has %.2f", bareLoopBar, share)
	return nil
}

// fromStart is where the log of write begins.
var fromStart = mysql.Position{Name: "binlog.000001", Pos: 4}

// syncer reads the source with the library's own defaults for speed.
func (b *bench) syncer(h replication.EventHandler) (*replication.BinlogSyncer, error) {
	host, port, _ := strings.Cut(b.sql.Addr, ":")
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4712, Flavor: b.sql.Flavor, Host: host, Port: uint16(p), User: "root",
		ParseTime: true, DiscardGTIDSet: true, SynchronousEventHandler: h, Logger: slog.New(slog.DiscardHandler),
	}), nil
}

// decodeOnly reads the same log and throws everything away.
func (b *bench) decodeOnly(ctx context.Context) (float64, error) {
	c := &counter{want: b.changes(), done: make(chan struct{})}
	s, err := b.syncer(c)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	began := time.Now()
	if _, err := s.StartSync(fromStart); err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return float64(b.changes()) / time.Since(began).Seconds(), nil
}

type counter struct {
	want int
	done chan struct{}
}

// HandleEvent implements replication.EventHandler.
func (c *counter) HandleEvent(e *replication.BinlogEvent) error {
	r, ok := e.Event.(*replication.RowsEvent)
	if !ok || c.want <= 0 || string(r.Table.Schema) != "bench" {
		return nil
	}
	n := len(r.Rows)
	if r.Type() == replication.EnumRowsEventTypeUpdate {
		n /= 2 // before and after
	}
	if c.want -= n; c.want <= 0 {
		close(c.done)
	}
	return nil
}

// redisSet is what Redis takes from its own benchmark tool, with values of our
// size.
func (b *bench) redisSet(ctx context.Context) (float64, error) {
	return redisBenchmark(ctx, b.redis.Addr, "-t", "set", "-n", "2000000", "-r", "150000", "-d", "200", "-P", "100", "-c", "4")
}

// redisBenchmark is the commands a second that Redis's own benchmark tool reports.
func redisBenchmark(ctx context.Context, addr string, args ...string) (float64, error) {
	host, port, _ := strings.Cut(addr, ":")
	out, err := exec.CommandContext(ctx, "redis-benchmark", append([]string{"-h", host, "-p", port, "--csv"}, args...)...).Output()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], ",")
	return strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
}

// reading is one daemon's way through a whole log.
type reading struct {
	rate            float64 // row changes a second
	used            usage   // CPU seconds a row change; the client is the daemon
	changesPerEntry float64 // above 1: some changes of a key were folded into one
}

// rowtide lets a new daemon read the whole log and measures from the first
// change to the last checkpoint.
func (b *bench) rowtide(ctx context.Context) (r reading, err error) {
	if err := b.emptyRedis(ctx); err != nil {
		return r, err
	}
	d, err := b.startDaemon(ctx, b.nextName(), earliest)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	head, err := b.head(ctx)
	if err != nil {
		return r, err
	}
	var began time.Time
	var first, last daemonStatus
	var before usage
	if err := d.await(ctx, awaitLimit, func(s daemonStatus) bool {
		if began.IsZero() && s.Changes > 0 {
			began, first, before = time.Now(), s, b.usage(d.pid())
		}
		last = s
		return s.Position == head // the checkpoint: Redis and Kafka have it all
	}); err != nil {
		return r, err
	}
	if last.Changes != int64(b.changes()) {
		return r, fmt.Errorf("the daemon saw %d row changes of %d", last.Changes, b.changes())
	}
	n := float64(last.Changes - first.Changes)
	r.rate = n / time.Since(began).Seconds()
	r.used = b.usage(d.pid()).since(before).times(1 / n)
	r.changesPerEntry = float64(last.Changes) / float64(last.Written+last.Superseded)
	return r, nil
}

// nextName is of a daemon that nobody has run: no checkpoint, no keys, no topic.
func (b *bench) nextName() string {
	b.daemons++
	return fmt.Sprintf("bench%d", b.daemons)
}
