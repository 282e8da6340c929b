package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/publisher"
)

// drainTimeout is how long a stop waits for what has been read to be written. It
// is not needed for safety (what is lost is replayed), only for a short replay.
const drainTimeout = 10 * time.Second

// daemon is `rowtide run`, with its parts in reach of the demo and of tests.
// Use: open, run, close.
type daemon struct {
	cfg config.Config
	log *slog.Logger
	reg *prometheus.Registry

	obs      *promobserver.Pipeline
	modules  []*aggregator.Module
	rdb      redis.UniversalClient
	kafka    sarama.Client
	bus      *publisher.Kafka
	source   *binlog.Source
	progress *binlog.Progress
	agg      *aggregator.Aggregator
	started  time.Time
}

func newDaemon(cfg config.Config, log *slog.Logger) *daemon {
	reg := prometheus.NewRegistry()
	return &daemon{cfg: cfg, log: log, reg: reg, obs: promobserver.New(reg), started: time.Now()}
}

// open connects to everything and checks it all before the first write, which is
// the creation of the topic.
func (d *daemon) open(ctx context.Context) error {
	if err := d.preflight(ctx); err != nil {
		return err
	}
	store, err := d.checkpointStore()
	if err != nil {
		return err
	}
	if d.progress, err = d.source.Resume(ctx, store); err != nil {
		return err
	}
	if _, err = publisher.EnsureTopic(d.kafka, d.cfg.Kafka); err != nil {
		return err
	}
	if d.bus, err = publisher.NewKafka(d.cfg.Kafka, d.kafka, d.log, d.obs); err != nil {
		return err
	}
	sink := publisher.New(publisher.NewRedis(d.rdb, d.cfg.Redis.Prefix, d.log, d.obs), d.bus)
	d.agg = aggregator.New(d.cfg.Aggregator, d.modules, aggregator.Outside{Sink: sink, Checkpoint: d.progress, DB: d.source.Reader()}, d.log, d.obs)
	return nil
}

// preflight connects and checks; it writes nothing.
func (d *daemon) preflight(ctx context.Context) error {
	var err error
	if d.modules, err = aggregator.Compile(d.cfg.Modules); err != nil {
		return err
	}
	d.source = binlog.New(d.cfg.Source, aggregator.Tables(d.modules), d.log, d.obs)
	d.rdb = newRedisClient(d.cfg.Redis)
	needs, queries := needsOf(d.modules)
	var kafkaErr error
	d.kafka, kafkaErr = dialKafka(d.cfg.Kafka.Brokers, "kafka.brokers")
	return errors.Join(
		d.source.Preflight(ctx, needs, queries),
		checkRedis(ctx, d.rdb, d.cfg.Redis),
		kafkaErr,
	)
}

// needsOf lists what the modules want of the source.
func needsOf(modules []*aggregator.Module) ([]binlog.Need, map[string]string) {
	var needs []binlog.Need
	queries := map[string]string{}
	for _, m := range modules {
		name := "module " + m.Config().Name
		for table, cols := range m.Tables() {
			need := binlog.Need{Table: table, Columns: cols, For: name}
			if from := m.Config().From; from != nil && from.Table == table {
				need.Check = m.CheckTypes
			}
			needs = append(needs, need)
		}
		for place, q := range m.Queries() {
			queries[name+": "+place] = q
		}
	}
	return needs, queries
}

func (d *daemon) checkpointStore() (binlog.Store, error) {
	switch d.cfg.Checkpoint.Store {
	case config.CheckpointRedis:
		return binlog.NewRedisStore(d.rdb, d.cfg.Redis.Prefix, d.cfg.Name), nil
	case config.CheckpointFile:
		return binlog.NewFileStore(d.cfg.Checkpoint.Path), nil
	}
	return nil, fmt.Errorf("checkpoint store %q is not known", d.cfg.Checkpoint.Store)
}

// run works until ctx ends or something fails that cannot be mended by
// repeating. The stop goes in stages: the source stops reading, which closes the
// intake; the aggregator drains; heartbeats and the HTTP server end last.
func (d *daemon) run(ctx context.Context) error {
	srv, err := listen(d.cfg.HTTP.Listen, d.routes())
	if err != nil {
		return err
	}
	defer srv.close()

	// The drain outlives the signal, but not for ever.
	drain, cancelDrain := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelDrain()
	beat, stopBeat := context.WithCancel(drain)
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		_ = d.bus.Run(beat) // ends with its context only
	}()

	g, gctx := errgroup.WithContext(ctx)
	// From whatever ends the reading, a signal or a fault.
	stopTimer := context.AfterFunc(gctx, func() {
		time.AfterFunc(drainTimeout, cancelDrain)
	})
	defer stopTimer()
	g.Go(func() error {
		defer d.agg.CloseIntake() // the source is the only sender
		return d.source.Run(gctx, d.agg)
	})
	g.Go(func() error { return d.agg.Run(drain) })
	d.log.Info("running", "source", d.cfg.Source.Addr, "server", d.source.Server().Flavor+" "+d.source.Server().Version,
		"from", d.progress.Current().Position().String(), "epoch", d.progress.Current().Epoch, "modules", len(d.modules), "http", srv.addr())
	err = g.Wait()
	stopBeat()
	<-beating
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopped before everything read was written; it will be read again: %w", err)
	}
	return err
}

// close releases all connections.
func (d *daemon) close() error {
	var errs []error
	if d.bus != nil {
		errs = append(errs, d.bus.Close())
	}
	if d.kafka != nil {
		errs = append(errs, d.kafka.Close())
	}
	if d.rdb != nil {
		errs = append(errs, d.rdb.Close())
	}
	if d.source != nil {
		errs = append(errs, d.source.Close())
	}
	return errors.Join(errs...)
}
