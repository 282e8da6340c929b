// Command webnode is a small ticket site: the pages of a shop whose rows live in
// MySQL, kept in this process by package localsync and turned over within
// milliseconds of a commit. It shows all that a web node has to do.
//
// It needs the shop's tables (schema.sql), a daemon that runs rowtide.yaml from
// this folder, and what both of them talk to:
//
//	webnode -dsn 'shop:secret@tcp(127.0.0.1:3306)/shop?parseTime=true' -redis 127.0.0.1:6379 -brokers 127.0.0.1:9092
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/localsync"
)

// drainTimeout is how long requests and loads may take to end after a signal.
const drainTimeout = 10 * time.Second

type flags struct{ listen, dsn, redis, brokers, topic, prefix string }

func main() {
	var f flags
	flag.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to serve on")
	flag.StringVar(&f.dsn, "dsn", "root@tcp(127.0.0.1:3306)/shop?parseTime=true", "the shop's database")
	flag.StringVar(&f.redis, "redis", "127.0.0.1:6379", "the Redis that the daemon writes")
	flag.StringVar(&f.brokers, "brokers", "127.0.0.1:9092", "Kafka addresses, separated by commas")
	flag.StringVar(&f.topic, "topic", localsync.DefaultTopic, "topic of the invalidations")
	flag.StringVar(&f.prefix, "prefix", localsync.DefaultPrefix, "prefix of the daemon's Redis keys")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, f, log); err != nil {
		log.Error("webnode ends", "error", err)
		stop()
		os.Exit(1) //nolint:gocritic // the only deferred call was made by hand above
	}
}

func run(ctx context.Context, f flags, log *slog.Logger) (err error) {
	db, err := sql.Open("mysql", f.dsn)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	rdb := redis.NewClient(&redis.Options{Addr: f.redis, ContextTimeoutEnabled: true})
	defer func() { err = errors.Join(err, rdb.Close()) }()

	cache, err := localsync.Open(ctx, localsync.Options{
		Redis: rdb, Brokers: strings.Split(f.brokers, ","), Topic: f.topic, Prefix: f.prefix, Logger: log,
	})
	if err != nil {
		return err
	}
	defer func() {
		// After the server: it reads through the cache until its last request.
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		err = errors.Join(err, cache.Close(drain))
	}()
	site, err := newSite(cache, db)
	if err != nil {
		return err
	}
	return serve(ctx, f.listen, site.handler(), log)
}

// serve runs until ctx ends, then lets requests finish.
func serve(ctx context.Context, addr string, h http.Handler, log *slog.Logger) error {
	s := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- s.ListenAndServe() }()
	log.Info("serving", "address", "http://"+addr)
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", addr, err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	return s.Shutdown(drain)
}
