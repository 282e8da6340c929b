package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/stockapi"
)

//go:embed demodata/shop.sql
var shopSchema string

//go:embed demodata/rowtide.yaml
var shopConfig []byte

// How large the shop is: as many events as a city sells in a season.
const (
	shopVenues   = 50
	shopEvents   = 2000
	tiersPer     = 3
	sessionsPer  = 2
	saleEvent    = "finals" // the event that everybody wants
	hotSKU       = "front"
	holdTTL      = 3 * time.Second // short, so that the demo sees holds expire
	limitPerUser = 4
)

// saleSKUs are the rushed event's tickets, and each one's share of the stock.
var saleSKUs = []struct {
	sku   string
	share int64
}{{hotSKU, 10}, {"middle", 40}, {"back", 50}}

// shop is the demo's system: the parts and the load on them.
type shop struct {
	env        *demoEnv
	out        io.Writer
	stockUnits int64
	commitRate int
	patience   time.Duration // of the verdict, with what is under way
	meter      *meter

	db         *sql.DB
	daemon     *daemon
	stock      *stock
	nodes      []*webNode
	bought     *purchases
	daemonAddr string
	stockAddr  string
}

// newShop makes a shop on the servers of e; nothing is opened.
func newShop(e *demoEnv, out io.Writer, units int64, commits int) *shop {
	return &shop{
		env: e, out: out, stockUnits: units, commitRate: commits, patience: settleTime, meter: newMeter(),
		bought: &purchases{holds: map[string]purchase{}},
	}
}

// seed makes the tables and fills them, through the log like everything else.
func (s *shop) seed(ctx context.Context) error {
	var err error
	if s.db, err = sql.Open("mysql", s.env.sql.DSN("")+"?interpolateParams=true&parseTime=true"); err != nil {
		return err
	}
	for stmt := range strings.SplitSeq(shopSchema, ";\n") {
		if stmt = strings.TrimSpace(stmt); stmt == "" {
			continue
		}
		if _, err := s.db.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("%.60s: %w", stmt, err)
		}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	return errors.Join(
		s.insert(ctx, "shop.venue", shopVenues, func(i int) []any { return []any{i, fmt.Sprintf("Hall %d", i), cities[i%len(cities)]} }),
		s.insert(ctx, "shop.event", shopEvents, func(i int) []any {
			return []any{i, fmt.Sprintf("Event %d", i), 1 + i%shopVenues, "on_sale", now, now.Add(time.Minute), 0}
		}),
		s.insert(ctx, "shop.session", shopEvents*sessionsPer, func(i int) []any {
			return []any{i, 1 + (i-1)/sessionsPer, now.Add(time.Duration(i) * time.Hour).Truncate(time.Second), nil}
		}),
		s.insert(ctx, "shop.price_tier", shopEvents*tiersPer, func(i int) []any {
			return []any{i, 1 + (i-1)/tiersPer, saleSKUs[i%tiersPer].sku, fmt.Sprintf("%d.50", 10+i%90)}
		}),
	)
}

var cities = []string{"Aarhus", "Bogotá", "Chengdu", "Dakar", "Espoo"}

// insert writes rows 1 to n in statements of 500.
func (s *shop) insert(ctx context.Context, table string, n int, row func(i int) []any) error {
	const per = 500
	for from := 1; from <= n; from += per {
		var q strings.Builder
		var args []any
		q.WriteString("INSERT INTO " + table + " VALUES ")
		for i := from; i < from+per && i <= n; i++ {
			r := row(i)
			if i > from {
				q.WriteByte(',')
			}
			q.WriteString("(?" + strings.Repeat(",?", len(r)-1) + ")")
			args = append(args, r...)
		}
		if _, err := s.db.ExecContext(ctx, q.String(), args...); err != nil {
			return fmt.Errorf("fill %s: %w", table, err)
		}
	}
	return nil
}

// open makes the daemon and the stock API ready to run, the way the commands do,
// and puts the stock on sale.
func (s *shop) open(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(s.out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg, err := s.stockConfig()
	if err != nil {
		return err
	}
	s.stock = newStockService(cfg, log)
	if err := s.stock.open(ctx); err != nil {
		return fmt.Errorf("stock API: %w", err)
	}
	sale := stockapi.Sale{Event: saleEvent, Epoch: 1}
	for _, k := range saleSKUs {
		sale.SKUs = append(sale.SKUs, stockapi.SaleSKU{SKU: k.sku, Stock: s.stockUnits * k.share / 100})
	}
	if err := s.stock.svc.Load(ctx, sale); err != nil {
		return fmt.Errorf("put stock on sale: %w", err)
	}
	dcfg, err := s.daemonConfig()
	if err != nil {
		return err
	}
	s.daemon = newDaemon(dcfg, log)
	if err := s.daemon.open(ctx); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	s.daemonAddr, s.stockAddr = dcfg.HTTP.Listen, cfg.HTTP.Listen
	return nil
}

// caughtUp waits until the daemon has written the row that was seeded last.
func (s *shop) caughtUp(ctx context.Context) error {
	last := rowtide.Key{Module: "price_tier", Version: 1, ID: strconv.Itoa(shopEvents * tiersPer)}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		n, err := s.daemon.rdb.Exists(ctx, last.Redis(s.daemon.cfg.Redis.Prefix)).Result()
		if n == 1 || err != nil {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

func (s *shop) daemonConfig() (config.Config, error) {
	path := filepath.Join(s.env.dir, "rowtide.yaml")
	text := strings.Replace(string(shopConfig), "source: {", fmt.Sprintf("source: {addr: %q, ", s.env.sql.Addr), 1)
	text = strings.Replace(text, "redis: {", fmt.Sprintf("redis: {addrs: [%q], ", s.env.redis.Addr), 1)
	text = strings.Replace(text, "127.0.0.1:0", freeListen(), 1)
	text += fmt.Sprintf("kafka: {brokers: [%q], topic: %s}\n", strings.Join(s.env.brokers, `","`), s.topic("invalidations"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return config.Config{}, err
	}
	return config.Load(path)
}

func (s *shop) stockConfig() (config.Stock, error) {
	path := filepath.Join(s.env.dir, "stock.yaml")
	text := fmt.Sprintf(`
db: {addr: %q, user: root, name: shop}
redis: {addrs: [%q]}
http: {listen: %q}
stock:
  hold_ttl: %s
  grace: 500ms
  limits: [{id: per-user, per: [user, event], max: %d}]
  kafka: {brokers: [%q], topic: %s, partitions: 4}
log: {level: warn}
`, s.env.sql.Addr, s.env.redis.Addr, freeListen(), holdTTL, limitPerUser, strings.Join(s.env.brokers, `","`), s.topic("stock"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return config.Stock{}, err
	}
	return config.LoadStock(path)
}

// topic is unique, so that two demos can share a Kafka.
func (s *shop) topic(name string) string {
	return strings.ReplaceAll(filepath.Base(s.env.dir), "-", ".") + "." + name
}

func (s *shop) close() error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.close())
	}
	if s.stock != nil {
		errs = append(errs, s.stock.close())
	}
	if s.daemon != nil {
		errs = append(errs, s.daemon.close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}
