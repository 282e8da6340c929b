package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/internal/sidecar"
	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/localsync/localprom"
)

// nodeDrain is how long requests may take to end after a signal.
const nodeDrain = 5 * time.Second

// nodeRedisTimeout is that of a whole read: there is no loader to turn to before.
const nodeRedisTimeout = localsync.DefaultLoadTimeout

// nodeRetry is the pause before Kafka is asked again: an outage must not be
// followed by seconds of silence of our own.
const nodeRetry = 250 * time.Millisecond

var aways = map[string]localsync.Away{
	sidecar.AwayFail: localsync.AwayFail, sidecar.AwayWait: localsync.AwayWait, sidecar.AwayDegraded: localsync.AwayDegraded,
}

func newNode() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "node",
		Short: "Serve a local cache to other languages: Redis's protocol and HTTP, on loopback or a Unix socket",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, err := config.LoadNode(path)
			if err != nil {
				return err
			}
			quietLibraries()
			n := &node{cfg: cfg, log: newLogger(c.ErrOrStderr(), cfg.Log), reg: prometheus.NewRegistry()}
			defer func() { err = errors.Join(err, n.close()) }()
			if err := n.open(c.Context()); err != nil {
				if n.cfg.Node.Away != sidecar.AwayFail && c.Context().Err() != nil {
					return nil // asked to stop while it waited
				}
				return config.Locate(path, err)
			}
			return n.run(c.Context())
		},
	}
	configFlag(c, &path)
	return c
}

// node is `rowtide node`. Use: open, run, close.
type node struct {
	cfg config.Config
	log *slog.Logger
	reg *prometheus.Registry

	rdb    redis.UniversalClient
	cache  *localsync.Cache
	server *sidecar.Server
	lns    []net.Listener // of Redis's protocol
	http   *server
}

// open connects and listens, so that all that can be wrong is an error of the start.
func (n *node) open(ctx context.Context) error {
	kafka, err := n.cfg.Kafka.Client()
	if err != nil {
		return err
	}
	kafka.ClientID = "rowtide-node"
	kafka.Consumer.Retry.Backoff = nodeRetry
	n.rdb = newRedisClient(n.cfg.Redis)
	if n.cfg.Node.Away == sidecar.AwayFail {
		if err := checkRedis(ctx, n.rdb, n.cfg.Redis); err != nil {
			return err
		}
	}
	var given []sidecar.Module
	for _, m := range n.cfg.Modules {
		given = append(given, sidecar.Module{Name: m.Name, Version: m.Version, Codec: m.Codec})
	}
	modules := sidecar.NewModules(n.cfg.Redis.Prefix, n.log, given...)
	n.cache, err = localsync.Open(ctx, localsync.Options{
		Redis: n.rdb, Brokers: n.cfg.Kafka.Brokers, Kafka: kafka, Topic: n.cfg.Kafka.Topic, ControlTopic: n.cfg.Kafka.ControlTopic,
		RedisTimeout: nodeRedisTimeout, Prefix: n.cfg.Redis.Prefix, MaxBytes: n.cfg.Node.MaxMemory, Logger: n.log, Away: aways[n.cfg.Node.Away],
		Observer: localsync.Observers(modules, localprom.New(n.reg)),
	})
	if err != nil {
		return err
	}
	if err := modules.Serve(n.cache); err != nil {
		return err
	}
	n.server = sidecar.New(n.cfg.Node, n.cache, modules, release, n.log)
	promobserver.NewNode(n.reg, n.server)
	return n.listen(ctx)
}

func (n *node) listen(ctx context.Context) error {
	c := n.cfg.Node
	var lc net.ListenConfig
	if c.Listen != sidecar.Off {
		ln, err := lc.Listen(ctx, "tcp", c.Listen)
		if err != nil {
			return fmt.Errorf("node.listen %s: %w", c.Listen, err)
		}
		n.lns = append(n.lns, ln)
	}
	if c.Socket != "" {
		ln, err := listenSocket(ctx, c.Socket, c.SocketMode)
		if err != nil {
			return fmt.Errorf("node.socket %s: %w", c.Socket, err)
		}
		n.lns = append(n.lns, ln)
	}
	addr := c.HTTP
	if addr == sidecar.Off {
		addr = ""
	}
	var err error
	n.http, err = listen(addr, n.server.Handler(sidecar.Mounts{
		Metrics: promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{}), Debug: n.cache.Handler(),
	}), func(s *http.Server) { s.ReadTimeout, s.IdleTimeout = c.IdleTimeout, c.IdleTimeout })
	if err != nil {
		return fmt.Errorf("node.http %s: %w", addr, errors.Unwrap(err))
	}
	return nil
}

// listenSocket takes the place of a socket that a killed process left behind, and
// of nothing else.
func listenSocket(ctx context.Context, path, mode string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, errors.New("the file is there and is no socket; choose another path")
		}
		var d net.Dialer
		if conn, err := d.DialContext(ctx, "unix", path); err == nil {
			conn.Close()
			return nil, errors.New("another process listens there; stop it or choose another path")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err == nil {
		err = os.Chmod(path, os.FileMode(bits))
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// run serves until ctx ends, then lets requests finish.
func (n *node) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var addrs []string
	for _, ln := range n.lns {
		addrs = append(addrs, ln.Addr().String())
		g.Go(func() error { return n.server.Serve(ln) })
	}
	n.log.Info("serving", "redis", addrs, "http", n.http.addr(), "topic", n.cfg.Kafka.Topic)
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), nodeDrain)
		defer cancel()
		var both sync.WaitGroup
		both.Go(func() { n.server.Close(drain) })
		both.Go(func() { n.http.drain(drain) })
		both.Wait()
		return nil
	})
	return g.Wait()
}

func (n *node) close() error {
	var errs []error
	for _, ln := range n.lns {
		ln.Close() // again, where the server has done so
	}
	if n.cache != nil {
		ctx, cancel := context.WithTimeout(context.Background(), nodeDrain)
		defer cancel()
		errs = append(errs, n.cache.Close(ctx))
	}
	if n.rdb != nil {
		errs = append(errs, n.rdb.Close())
	}
	return errors.Join(errs...)
}
