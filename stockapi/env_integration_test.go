//go:build integration

package stockapi_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// deadline bounds every wait of a test; reaching it is a failure.
const deadline = 20 * time.Second

// clientOptions are those of a client that the stock API accepts.
func clientOptions(t testing.TB) *redis.Options {
	t.Helper()
	return &redis.Options{Addr: testenv.Redis(t), MaxRetries: -1, PoolSize: 64}
}

func newRedis(t testing.TB) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(clientOptions(t))
	t.Cleanup(func() {
		if err := rdb.Close(); err != nil {
			t.Errorf("close redis client: %v", err)
		}
	})
	return rdb
}

// shop is a service with a key space of its own.
type shop struct {
	*stockapi.Service
	rdb *redis.Client
	cfg stockapi.Config
}

func newShop(t testing.TB, cfg stockapi.Config) *shop {
	t.Helper()
	return newShopOn(t, newRedis(t), cfg)
}

func newShopOn(t testing.TB, rdb *redis.Client, cfg stockapi.Config) *shop {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = testenv.UniqueName(t, "s")
	}
	s, err := stockapi.New(cfg, stockapi.Deps{Redis: rdb})
	if err != nil {
		t.Fatal(err)
	}
	return &shop{Service: s, rdb: rdb, cfg: cfg.WithDefaults()}
}

// load installs event "E" with the stock of each SKU.
func (s *shop) load(t testing.TB, event string, stock map[string]int64) {
	t.Helper()
	if err := s.Load(t.Context(), saleOf(event, 1, stock)); err != nil {
		t.Fatal(err)
	}
}

func saleOf(event string, epoch int64, stock map[string]int64) stockapi.Sale {
	sale := stockapi.Sale{Event: event, Epoch: epoch}
	for sku, n := range stock {
		sale.SKUs = append(sale.SKUs, stockapi.SaleSKU{SKU: sku, Stock: n})
	}
	return sale
}

func want(user, key string, items ...stockapi.Item) stockapi.HoldRequest {
	return stockapi.HoldRequest{Client: "test", Event: "E", User: user, Key: key, Items: items}
}

func item(sku string, qty int64) stockapi.Item { return stockapi.Item{SKU: sku, Qty: qty} }

func (s *shop) mustHold(t testing.TB, req stockapi.HoldRequest) stockapi.Hold {
	t.Helper()
	h, err := s.Hold(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *shop) counters(t testing.TB, event, sku string) stockapi.Counters {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	return snap.SKUs[sku]
}

// dump is every key of the shop with its value, byte by byte.
func (s *shop) dump(t testing.TB) map[string]string {
	t.Helper()
	out := make(map[string]string)
	iter := s.rdb.Scan(t.Context(), 0, s.cfg.Prefix+":*", 1000).Iterator()
	for iter.Next(t.Context()) {
		v, err := s.rdb.Dump(t.Context(), iter.Val()).Result()
		if err != nil {
			t.Fatal(err)
		}
		out[iter.Val()] = v
	}
	if err := iter.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func sameDump(a, b map[string]string) bool { return maps.Equal(a, b) }

// outbox decodes the whole outbox of an event.
func (s *shop) outbox(t testing.TB, event string) []stockapi.Event {
	t.Helper()
	entries, err := s.rdb.XRange(t.Context(), stockapi.OutboxKey(s.cfg.Prefix, event), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var out []stockapi.Event
	for len(entries) > 0 {
		b, n, err := stockapi.BatchOf(stockapi.Cell{Event: event}, entries)
		if err != nil {
			t.Fatal(err)
		}
		out, entries = append(out, b.Events...), entries[n:]
	}
	return out
}

// newDB is a schema of its own on the target, with the stock tables.
func newDB(t testing.TB, target testenv.SQLTarget) *sql.DB {
	t.Helper()
	name := testenv.UniqueName(t, "stk")
	admin, err := stockapi.OpenDB(target.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	exec(t, admin, "CREATE DATABASE "+name)
	db, err := stockapi.OpenDB(target.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, dropErr := admin.ExecContext(context.Background(), "DROP DATABASE "+name)
		if err := errors.Join(dropErr, db.Close(), admin.Close()); err != nil {
			t.Errorf("drop %s: %v", name, err)
		}
	})
	if err := stockapi.EnsureSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

func exec(t testing.TB, db *sql.DB, stmt string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), stmt, args...); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func count(t testing.TB, db *sql.DB, query string, args ...any) int64 {
	t.Helper()
	var n sql.NullInt64
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n.Int64
}

// eachDB runs f on every SQL flavour.
func eachDB(t *testing.T, f func(t *testing.T, db *sql.DB)) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) { f(t, newDB(t, target)) })
	}
}

// signals is an Observer that wakes a waiting test whenever something moved.
type signals struct {
	stockapi.NopObserver
	moved chan struct{}

	mu      sync.Mutex
	relayed int
	dups    int
	failed  []error
	stopped []error
}

func newSignals() *signals { return &signals{moved: make(chan struct{}, 1)} }

func (s *signals) note(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

func (s *signals) Relayed(_ stockapi.Cell, n int, _ int64, _ time.Duration) {
	s.note(func() { s.relayed += n })
}

func (s *signals) RelayFailed(_ stockapi.Cell, err error) {
	s.note(func() { s.failed = append(s.failed, err) })
}

func (s *signals) LedgerBatch(_ int32, events, applied int, _, _ time.Duration) {
	s.note(func() { s.dups += events - applied })
}

func (s *signals) LedgerRetry(_ int32, err error) {
	s.note(func() { s.failed = append(s.failed, err) })
}

func (s *signals) LedgerStopped(_ int32, err error) {
	s.note(func() { s.stopped = append(s.stopped, err) })
}

// until waits for ok, asking again whenever something moved.
func (s *signals) until(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-s.moved:
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("waiting for %s: %s (failed: %v, stopped: %v)", what, state, s.failed, s.stopped)
		}
	}
}

// drained waits for quiescence and then tests every invariant.
func (s *signals) drained(t testing.TB, c *stockapi.Checker) stockapi.Report {
	t.Helper()
	s.until(t, "quiescence", func() (bool, string) {
		d, err := c.Drained(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d.OK(), strings.Join(d.Behind, "; ")
	})
	return sound(t, c)
}

// sound fails on any violation.
func sound(t testing.TB, c *stockapi.Checker) stockapi.Report {
	t.Helper()
	rep, err := c.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rep.Violations {
		t.Errorf("violation: %s", v)
	}
	return rep
}

// start runs f until the returned stop, which returns f's error; the test's end
// stops it too.
func start(t testing.TB, f func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(deadline):
			return fmt.Errorf("still running %s after its context ended", deadline)
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return stop
}
