package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/stockapi"
)

func newStock() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "stock",
		Short: "Serve the stock API: holds from Redis, events over Kafka, the ledger in MySQL",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withStock(c, path, func(s *stock) error { return s.run(c.Context()) })
		},
	}
	c.PersistentFlags().StringVarP(&path, "config", "c", "stock.yaml", "config file")
	c.AddCommand(newStockCheck(&path), newStockLoad(&path))
	return c
}

func newStockCheck(path *string) *cobra.Command {
	var offline bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a config and, unless --offline, every server it names; writes nothing",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, err := config.LoadStock(*path)
			if err != nil {
				return err
			}
			if !offline {
				quietLibraries()
				s := newStockService(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
				defer func() { err = errors.Join(err, s.close()) }()
				if err := config.LocateStock(*path, s.connect(c.Context())); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good\n", *path)
			return err
		},
	}
	c.Flags().BoolVar(&offline, "offline", false, "check the file only")
	return c
}

func newStockLoad(path *string) *cobra.Command {
	sale := stockapi.Sale{}
	var visible, sellable string
	c := &cobra.Command{
		Use:   "load EVENT SKU=UNITS...",
		Short: "Put an event's stock on sale; harmless to repeat, never touches a sale that goes on",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			sale.Event = args[0]
			for _, a := range args[1:] {
				sku, units, _ := strings.Cut(a, "=")
				n, err := strconv.ParseInt(units, 10, 64)
				if err != nil || sku == "" {
					return &usageError{fmt.Errorf("%q: want SKU=UNITS, such as A1=500", a)}
				}
				sale.SKUs = append(sale.SKUs, stockapi.SaleSKU{SKU: sku, Stock: n})
			}
			var errs [2]error
			sale.VisibleAt, errs[0] = parseTime("--visible-at", visible)
			sale.SellableAt, errs[1] = parseTime("--sellable-at", sellable)
			if err := errors.Join(errs[:]...); err != nil {
				return &usageError{err}
			}
			return withStock(c, *path, func(s *stock) error {
				if err := s.svc.Load(c.Context(), sale); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "%s is loaded: %d SKUs, epoch %d\n", sale.Event, len(sale.SKUs), sale.Epoch)
				return err
			})
		},
	}
	c.Flags().Int64Var(&sale.Epoch, "epoch", 1, "lineage of the sale; a higher one replaces a sale at rest")
	c.Flags().StringVar(&visible, "visible-at", "", "RFC 3339 time from which buyers see it (default now)")
	c.Flags().StringVar(&sellable, "sellable-at", "", "RFC 3339 time from which holds are taken (default now)")
	return c
}

func parseTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%s %q: want a time such as 2026-11-21T10:00:00Z", flag, s)
	}
	return t, nil
}

// withStock opens everything, calls fn and closes everything.
func withStock(c *cobra.Command, path string, fn func(*stock) error) (err error) {
	cfg, err := config.LoadStock(path)
	if err != nil {
		return err
	}
	quietLibraries()
	s := newStockService(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(c.Context()); err != nil {
		return err
	}
	return fn(s)
}

// stock is `rowtide stock`, with its parts in reach of the demo and of tests.
// Use: open, run, close.
type stock struct {
	cfg config.Stock
	log *slog.Logger
	reg *prometheus.Registry

	rdb    redis.UniversalClient
	db     *sql.DB
	svc    *stockapi.Service
	relay  *stockapi.Relay
	ledger *stockapi.Ledger
}

func newStockService(cfg config.Stock, log *slog.Logger) *stock {
	return &stock{cfg: cfg, log: log, reg: prometheus.NewRegistry()}
}

// connect opens the connections and checks them; it writes nothing.
func (s *stock) connect(ctx context.Context) error {
	d := driver.NewConfig()
	d.Net, d.Addr, d.User, d.Passwd, d.DBName = "tcp", s.cfg.DB.Addr, s.cfg.DB.User, s.cfg.DB.Password, s.cfg.DB.Name
	d.Timeout = 5 * time.Second
	var err error
	if s.db, err = stockapi.OpenDB(d.FormatDSN()); err != nil {
		return err
	}
	s.rdb = newRedisClient(s.cfg.Redis)
	return errors.Join(s.checkDB(ctx), checkRedis(ctx, s.rdb, s.cfg.Redis), s.checkKafka())
}

func (s *stock) checkDB(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("cannot use database %s at %s as user %q (db.addr, db.user, db.password, db.name): %w", s.cfg.DB.Name, s.cfg.DB.Addr, s.cfg.DB.User, err)
	}
	return nil
}

func (s *stock) checkKafka() error {
	client, err := dialKafka(s.cfg.Stock.Kafka.Brokers, "stock.kafka.brokers")
	if err != nil {
		return err
	}
	return client.Close()
}

// open connects, then makes the tables and the topic that are missing.
func (s *stock) open(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := stockapi.EnsureSchema(ctx, s.db); err != nil {
		return err
	}
	warnings, err := stockapi.Preflight(ctx, s.rdb, s.db)
	for _, w := range warnings {
		s.log.Warn(w)
	}
	if err != nil {
		return err
	}
	if err := stockapi.EnsureTopic(s.cfg.Stock, nil); err != nil {
		return err
	}
	deps := stockapi.Deps{Redis: s.rdb, Logger: s.log, Observer: promobserver.NewStock(s.reg)}
	var errs [3]error
	s.svc, errs[0] = stockapi.New(s.cfg.Stock, deps)
	s.relay, errs[1] = stockapi.NewRelay(s.cfg.Stock, deps, nil)
	s.ledger, errs[2] = stockapi.NewLedger(s.cfg.Stock, s.db, deps, nil)
	return errors.Join(errs[:]...)
}

// run serves until ctx ends or a part fails for good. The HTTP server stops
// first, so that no hold is accepted that nobody would relay for long; what is in
// the outbox is in Redis and is relayed at the next start.
func (s *stock) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/", stockapi.NewHandler(s.svc, stockapi.HandlerOptions{
		MaxBody: s.cfg.Stock.MaxBody,
		Health:  func(ctx context.Context) error { return s.rdb.Ping(ctx).Err() },
	}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{}))
	srv, err := listen(s.cfg.HTTP.Listen, mux)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	stopServing := context.AfterFunc(ctx, srv.close)
	defer stopServing()
	g.Go(func() error { return s.svc.Run(ctx) })
	g.Go(func() error { return s.relay.Run(ctx) })
	g.Go(func() error { return s.ledger.Run(ctx) })
	s.log.Info("selling", "http", srv.addr(), "db", s.cfg.DB.Addr+"/"+s.cfg.DB.Name, "topic", s.cfg.Stock.Kafka.Topic)
	return g.Wait()
}

// close releases all connections.
func (s *stock) close() error {
	var errs []error
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}
