package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

// latencyKeys rows are updated in turn, so that a row is not updated again while
// its last update is still under way.
const latencyKeys = 5000

// latency measures commit -> node at a fixed rate of commits, from the moment
// COMMIT returned to the moment a localsync node had raised the key's floor, and
// each hop of the way by itself, in the same run.
func (b *bench) latency(ctx context.Context) error {
	db, err := sql.Open("mysql", b.sql.DSN("")+"?interpolateParams=true")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxIdleConns(8)
	if err := prepare(ctx, db); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CALL bench.fill(0, ?)", 2*latencyKeys); err != nil {
		return err
	}
	hops, err := b.hops(ctx, db)
	if err != nil {
		return err
	}
	var p50, p99 []time.Duration
	for i := range b.runs {
		d, err := b.commitToNode(ctx, db, i)
		if err != nil {
			return err
		}
		p50, p99 = append(p50, rank(d, 50)), append(p99, rank(d, 99))
		fmt.Printf("  run %d: commit -> node p50 %s p99 %s p99.9 %s, %d commits at %d/s\n", i+1, ms(rank(d, 50)), ms(rank(d, 99)), ms(rankMille(d, 999)), len(d), b.rate)
	}
	slices.Sort(p50)
	slices.Sort(p99)
	var sum50, sum99 time.Duration
	for _, h := range hops {
		fmt.Printf("  hop alone: %-34s p50 %s p99 %s\n", h.name, ms(rank(h.d, 50)), ms(rank(h.d, 99)))
		sum50, sum99 = sum50+rank(h.d, 50), sum99+rank(h.d, 99)
	}
	m50, m99 := p50[len(p50)/2], p99[len(p99)/2]
	fmt.Printf("  commit -> node, median of runs: p50 %s p99 %s; hops' sum p50 %s p99 %s; ratio p50 %.2f p99 %.2f\n",
		ms(m50), ms(m99), ms(sum50), ms(sum99), float64(m50)/float64(sum50), float64(m99)/float64(sum99))
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d.Nanoseconds())/1e6) }

func rank(d []time.Duration, p int) time.Duration { return rankMille(d, p*10) }

func rankMille(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)*p/1000, len(s)-1)]
}

// arrivals joins commits and what a listener heard of them.
type arrivals struct {
	localsync.NopObserver
	mu    sync.Mutex
	began map[string]bool
	done  map[string]time.Time // when COMMIT returned
	heard map[string]time.Time
	d     []time.Duration
}

func newArrivals() *arrivals {
	return &arrivals{began: map[string]bool{}, done: map[string]time.Time{}, heard: map[string]time.Time{}}
}

func (a *arrivals) begin(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.began[id] = true
}

func (a *arrivals) committed(id string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done[id] = at
	a.settle(id)
}

// hear may come before committed: the log leaves before COMMIT returns.
func (a *arrivals) hear(id string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began[id] && a.heard[id].IsZero() {
		a.heard[id] = now
		a.settle(id)
	}
}

func (a *arrivals) settle(id string) {
	done, heard := a.done[id], a.heard[id]
	if done.IsZero() || heard.IsZero() {
		return
	}
	a.d = append(a.d, max(heard.Sub(done), 0))
	delete(a.began, id)
	delete(a.done, id)
	delete(a.heard, id)
}

// Applied implements localsync.Observer.
func (a *arrivals) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) { a.hear(inv.Key.ID) }

// commit updates rows at the rate, open loop: each commit has its instant,
// whether or not the one before has returned.
func (b *bench) commit(ctx context.Context, db *sql.DB, a *arrivals, seconds int) error {
	slots := make(chan struct{}, 64)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	start := time.Now()
	for i := range b.rate * seconds {
		at := start.Add(time.Second * time.Duration(i) / time.Duration(b.rate))
		time.Sleep(time.Until(at))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id := strconv.Itoa(i % latencyKeys)
			a.begin(id)
			_, err := db.ExecContext(ctx, "UPDATE bench.item SET c1=c1+1, price=price+1 WHERE id=?", id)
			a.committed(id, time.Now())
			if err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// commitToNode runs a daemon and a node beside the commits.
func (b *bench) commitToNode(ctx context.Context, db *sql.DB, i int) (_ []time.Duration, err error) {
	b.daemons++
	name := fmt.Sprintf("lat%d", b.daemons)
	d, err := b.startDaemon(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	head, err := b.head(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.await(ctx, func(s daemonStatus) bool { return s.Position == head }); err != nil {
		return nil, err
	}
	a := newArrivals()
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	node, err := localsync.Open(ctx, localsync.Options{
		Redis: rdb, Brokers: b.brokers, Topic: name + ".invalidations", Prefix: name, MaxBytes: 16 << 20, Observer: a,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	defer node.Close(ctx) //nolint:errcheck // a benchmark's node
	<-node.Ready()
	// The broker's JVM compiles its hot paths in its first ten thousand requests.
	warmUp := 2
	if i == 0 && !b.warm {
		warmUp = 40
	}
	if err := b.commit(ctx, db, a, warmUp); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.d = nil
	a.mu.Unlock()
	if err := b.commit(ctx, db, a, b.seconds); err != nil {
		return nil, err
	}
	return a.wait(ctx, b.rate*b.seconds)
}

// wait returns the latencies when all but the odd straggler have arrived.
func (a *arrivals) wait(ctx context.Context, n int) ([]time.Duration, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		d := slices.Clone(a.d)
		a.mu.Unlock()
		if len(d) >= n {
			return d, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("only %d of %d commits arrived", len(d), n)
		}
	}
}

// hop is one leg of the way, measured with nothing else under way.
type hop struct {
	name string
	d    []time.Duration
}

const hopSamples = 1000

func (b *bench) hops(ctx context.Context, db *sql.DB) ([]hop, error) {
	log, err := b.hopLog(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("hop to the log: %w", err)
	}
	set, err := b.hopRedis(ctx)
	if err != nil {
		return nil, fmt.Errorf("hop to redis: %w", err)
	}
	bus, err := b.hopKafka(ctx)
	if err != nil {
		return nil, fmt.Errorf("hop over kafka: %w", err)
	}
	return []hop{{"COMMIT returned -> row event here", log}, {"set-if-newer round trip", set}, {"produce -> consumer has it", bus}}, nil
}

// hopLog is COMMIT -> the row's event, at the same rate as the whole.
func (b *bench) hopLog(ctx context.Context, db *sql.DB) ([]time.Duration, error) {
	host, port, _ := strings.Cut(b.sql.Addr, ":")
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	head, err := b.head(ctx)
	if err != nil {
		return nil, err
	}
	at, err := rowtide.ParsePosition(head)
	if err != nil {
		return nil, err
	}
	a := newArrivals()
	s := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4713, Flavor: b.sql.Flavor, Host: host, Port: uint16(p), User: "root", ParseTime: true, DiscardGTIDSet: true,
		SynchronousEventHandler: rowListener{a}, Logger: slog.New(slog.DiscardHandler),
	})
	defer s.Close()
	if _, err := s.StartSync(mysql.Position{Name: at.File, Pos: uint32(at.Pos)}); err != nil {
		return nil, err
	}
	if err := b.commit(ctx, db, a, 2); err != nil {
		return nil, err
	}
	return a.wait(ctx, 2*b.rate)
}

type rowListener struct{ a *arrivals }

// HandleEvent implements replication.EventHandler.
func (l rowListener) HandleEvent(e *replication.BinlogEvent) error {
	if r, ok := e.Event.(*replication.RowsEvent); ok && len(r.Rows) > 0 {
		l.a.hear(fmt.Sprint(r.Rows[0][0]))
	}
	return nil
}

func (b *bench) hopRedis(ctx context.Context) ([]time.Duration, error) {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	script := redis.NewScript(overwrite.Script)
	if err := script.Load(ctx, rdb).Err(); err != nil {
		return nil, err
	}
	e := rowtide.Entry{Key: rowtide.Key{Module: "hop", Version: 1, ID: "1"}, TTL: time.Hour, Payload: make([]byte, 150)}
	var out []time.Duration
	for i := range hopSamples {
		e.Version = rowtide.Version(i + 1)
		began := time.Now()
		if err := script.EvalSha(ctx, rdb, []string{e.Key.Redis("hop")}, string(overwrite.CDC), e.AppendEnvelope(nil), e.TTL.Milliseconds()).Err(); err != nil {
			return nil, err
		}
		out = append(out, time.Since(began))
		pace(ctx, b.rate, began)
	}
	return out, nil
}

func pace(ctx context.Context, rate int, began time.Time) {
	if ctx.Err() == nil {
		time.Sleep(time.Second/time.Duration(rate) - time.Since(began))
	}
}

func (b *bench) hopKafka(ctx context.Context) ([]time.Duration, error) {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Idempotent, cfg.Net.MaxOpenRequests = true, 1
	cfg.Producer.RequiredAcks, cfg.Producer.Return.Successes = sarama.WaitForAll, true
	client, err := sarama.NewClient(b.brokers, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, err
	}
	topic := fmt.Sprintf("hop.%d", time.Now().UnixNano())
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		return nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer func() { _ = producer.Close() }()
	// A client of its own: on the producer's connection, with one request in
	// flight, every produce would wait for a fetch's long poll.
	consumer, err := sarama.NewConsumer(b.brokers, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = consumer.Close() }()
	pc, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pc.Close() }()
	var out []time.Duration
	for range hopSamples {
		began := time.Now()
		go producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(make([]byte, 120))}) //nolint:errcheck // a lost one shows as a missing message
		select {
		case <-pc.Messages():
		case <-time.After(5 * time.Second):
			return nil, errors.New("no message in 5 s")
		}
		out = append(out, time.Since(began))
		pace(ctx, b.rate, began)
	}
	return out, nil
}
