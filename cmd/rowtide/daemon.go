package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/feed"
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
	hints    *publisher.Hints
	source   *binlog.Source
	progress *binlog.Progress
	filler   *binlog.Backfiller // nil with feed
	feed     *feed.Source       // nil unless source.kind is kafka
	offsets  *feed.Progress     // of feed
	nodes    *announcer
	fleet    *fleet
	dlq      *publisher.DeadLetters
	control  *publisher.Control
	pipe     *pipeline
	reload   *reloader // nil when the modules come from no file
	watch    *publisher.Failover[resave]
	parts    // of a daemon that shares the work
	started  time.Time
}

func newDaemon(cfg config.Config, log *slog.Logger) *daemon {
	reg := prometheus.NewRegistry()
	return &daemon{cfg: cfg, log: log, reg: reg, obs: promobserver.New(reg), started: time.Now()}
}

// open connects to everything and checks it all before the first write, which is
// the creation of the topic.
func (d *daemon) open(ctx context.Context) error {
	if d.cfg.Role != config.RoleAll {
		return d.openRole(ctx)
	}
	if err := d.preflight(ctx); err != nil {
		return err
	}
	if err := d.elect(ctx); err != nil {
		return err
	}
	err := d.resume(ctx)
	if err != nil {
		return err
	}
	if _, err = publisher.EnsureTopic(d.kafka, d.cfg.Kafka); err != nil {
		return err
	}
	if d.bus, err = publisher.NewKafka(d.cfg.Kafka, d.kafka, d.log, d.obs); err != nil {
		return err
	}
	d.bus.TellBehind(d.behind)
	sink := publisher.New(d.store(d.fence()), d.bus)
	if err := d.openTopics(); err != nil {
		return err
	}
	out := aggregator.Outside{Sink: sink, DeadLetters: letters{d.dlq}, Generations: d.nodes}
	if d.feed != nil {
		out = d.viaFeed(out)
	} else {
		out.Checkpoint, out.DB = d.progress, d.source.Reader()
	}
	d.pipe = newPipeline(d.cfg.Aggregator, d.modules, out, d.log, d.obs)
	if err := d.nodes.announce(ctx, d.modules); err != nil {
		return err
	}
	return d.openBackfill(ctx)
}

// heldFrom is from when on work under way counts as held back.
const heldFrom = 500 * time.Millisecond

// behind is how long ago what nodes were not told of yet can have been committed, as far
// as this process knows: a feed and the topic of changes do not say how old they are.
func (d *daemon) behind() time.Duration {
	by := d.pipe.held()
	if d.feed == nil && d.group == nil {
		by = max(by, d.source.Behind())
	}
	if by < heldFrom {
		return 0
	}
	return by
}

// store is the way to Redis, for [daemon.run] to tell hints of. The way to Kafka must be
// open.
func (d *daemon) store(more ...publisher.RedisOption) *publisher.Redis {
	d.hints = publisher.NewHints(d.rdb, d.cfg.Redis.Prefix, d.log)
	return publisher.NewRedis(d.rdb, d.cfg.Redis.Prefix, d.log, d.obs, append(more,
		publisher.WithLayout(d.layout), publisher.WithHints(d.hints), publisher.WithForewarning(d.bus.Forewarn))...)
}

// openTopics makes sure of the topics beside that of the invalidations.
func (d *daemon) openTopics() error {
	var err error
	if d.control, err = publisher.NewControl(d.cfg.Kafka, d.kafka, d.log); err != nil {
		return err
	}
	if d.dlq, err = publisher.NewDeadLetters(d.cfg.Kafka, d.kafka, d.log); err != nil {
		return err
	}
	d.nodes = newAnnouncer(d.control, func() uint32 { return d.origin().epoch })
	return nil
}

// preflight connects and checks; it writes nothing.
func (d *daemon) preflight(ctx context.Context) error {
	var err error
	if d.modules, err = aggregator.Compile(d.cfg.Modules); err != nil {
		return err
	}
	d.rdb = newRedisClient(d.cfg.Redis)
	d.fleet = newFleet(d.rdb, d.cfg.Redis.Prefix, d.reg)
	needs, queries := needsOf(d.modules)
	var kafkaErr error
	d.kafka, kafkaErr = dialDaemonKafka(d.cfg.Kafka)
	return errors.Join(
		d.preflightSource(ctx, needs, queries),
		d.preflightBackfill(ctx),
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
		store := binlog.NewRedisStore(d.rdb, d.cfg.Redis.Prefix, d.cfg.Name)
		store.SetFence(d.term())
		return store, nil
	case config.CheckpointFile:
		return binlog.NewFileStore(d.cfg.Checkpoint.Path), nil
	}
	return nil, fmt.Errorf("checkpoint store %q is not known", d.cfg.Checkpoint.Store)
}

// resume finds where the source goes on.
func (d *daemon) resume(ctx context.Context) error {
	if err := d.watchRedis(ctx); err != nil {
		return err
	}
	if d.feed != nil {
		return d.resumeFeed(ctx)
	}
	store, err := d.checkpointStore()
	if err == nil {
		d.progress, err = d.source.Resume(ctx, fenced{store, d.watch})
	}
	return err
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
	var beating sync.WaitGroup
	beating.Go(func() { _ = d.hints.Run(beat) }) // these end with their context only
	if d.bus != nil {
		beating.Go(func() { _ = d.bus.Run(beat) })
	}

	g, gctx := errgroup.WithContext(ctx)
	// From whatever ends the reading, a signal or a fault.
	stopTimer := context.AfterFunc(gctx, func() {
		time.AfterFunc(drainTimeout, cancelDrain)
	})
	defer stopTimer()
	g.Go(func() error {
		defer d.stage().CloseIntake() // the source is the only sender
		return d.follow(gctx)
	})
	draining, drained := context.WithCancel(drain)
	g.Go(func() error {
		defer drained()
		return d.stage().Run(drain)
	})
	// Through the drain too: its writes are refused once a standby is elected.
	g.Go(func() error { return d.hold(draining) })
	if d.filler != nil {
		g.Go(func() error { return d.filler.Run(gctx) })
	}
	if d.reload != nil {
		g.Go(func() error {
			d.reload.run(gctx)
			return nil
		})
	}
	g.Go(func() error {
		err := d.watch.Run(gctx)
		if err != nil {
			d.rewindGroup(gctx, err)
			cancelDrain() // what is still under way can no longer be saved
		}
		return err
	})
	from := d.origin()
	d.log.Info("running", "source", from.source, "server", from.server, "from", from.position, "epoch", from.epoch, "modules", len(d.modules), "http", srv.addr())
	err = g.Wait()
	stopBeat()
	beating.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopped before everything read was written; it will be read again: %w", err)
	}
	return d.rewound(ctx, err)
}

// close releases all connections.
func (d *daemon) close() error {
	var errs []error
	if d.lease != nil {
		d.lease.release() // first: a broker that hangs must not keep a standby waiting
	}
	if d.bus != nil {
		errs = append(errs, d.bus.Close())
	}
	if d.control != nil {
		errs = append(errs, d.control.Close())
	}
	if d.dlq != nil {
		errs = append(errs, d.dlq.Close())
	}
	if d.kafka != nil {
		errs = append(errs, d.kafka.Close())
	}
	errs = append(errs, d.closeParts())
	if d.rdb != nil {
		errs = append(errs, d.rdb.Close())
	}
	if d.source != nil {
		errs = append(errs, d.source.Close())
	}
	if d.feed != nil {
		errs = append(errs, d.feed.Close())
	}
	return errors.Join(errs...)
}
