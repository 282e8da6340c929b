package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/feed"
	"github.com/rowtide/rowtide/internal/promobserver"
)

// preflightSource checks the source of either kind. A feed has a database beside
// it only if the config names one.
func (d *daemon) preflightSource(ctx context.Context, needs []binlog.Need, queries map[string]string) error {
	src, tables := d.cfg.Source, aggregator.Tables(d.modules)
	if src.Kind != config.KindKafka {
		d.source = binlog.New(src.Config, tables, d.log, d.obs)
		return d.source.Preflight(ctx, needs, queries)
	}
	d.feed = feed.New(src.Feed, tables, d.log, promobserver.NewFeed(d.reg, d.obs))
	var err error
	if d.feed.Client, err = d.cfg.Kafka.Client(); err != nil { // TLS and login hold for both
		return err
	}
	errs := []error{d.feed.Preflight(ctx)}
	if src.Addr != "" {
		d.source = binlog.New(src.Config, tables, d.log, d.obs)
		errs = append(errs, d.source.PreflightQueries(ctx, needs, queries))
	}
	return errors.Join(errs...)
}

// resumeFeed finds where the feed goes on.
func (d *daemon) resumeFeed(ctx context.Context) error {
	var store feed.Store
	switch d.cfg.Checkpoint.Store {
	case config.CheckpointRedis:
		store = redisDoc{d.rdb, d.cfg.Redis.Prefix + ":checkpoint:" + d.cfg.Name}
	case config.CheckpointFile:
		store = fileDoc(d.cfg.Checkpoint.Path)
	default:
		return fmt.Errorf("checkpoint store %q is not known", d.cfg.Checkpoint.Store)
	}
	var err error
	d.offsets, err = d.feed.Resume(ctx, fencedFeed{store, d.watch})
	return err
}

// follow reads the source into the aggregator.
func (d *daemon) follow(ctx context.Context) error {
	switch {
	case d.writer != nil:
		return d.source.Run(ctx, d.writer)
	case d.group != nil:
		return d.group.Run(ctx, known{d.pipe})
	}
	if d.feed != nil {
		return d.feed.Run(ctx, d.pipe)
	}
	return d.source.Run(ctx, d.pipe)
}

// viaFeed makes what the aggregator calls fit a feed.
func (d *daemon) viaFeed(out aggregator.Outside) aggregator.Outside {
	out.Checkpoint, out.DB = d.offsets, nil
	if d.source != nil {
		out.DB = lockingReader{d.source.Reader()}
	}
	if d.cfg.Source.Feed.Keyed {
		out.Sink = unmarked{out.Sink}
	}
	return out
}

// lockingReader never waits for a transaction by its id, which a feed does not
// have in the server's notation: locking SELECTs wait for the rows.
type lockingReader struct{ *binlog.Reader }

func (lockingReader) WaitFor(context.Context, string) (bool, error) { return false, nil }

// unmarked broadcasts no watermark: versions from the offsets of several
// partitions do not compare, so none says that all below it is applied.
type unmarked struct{ aggregator.Sink }

func (u unmarked) Broadcast(ctx context.Context, entries []rowtide.Entry, _ rowtide.Version, oldest time.Time) error {
	return u.Sink.Broadcast(ctx, entries, 0, oldest)
}

// origin is where the changes come from and how far they have been taken care of.
type origin struct {
	source, server, position, gtids string
	epoch                           uint32
	saved                           time.Time
}

func (d *daemon) origin() origin {
	if d.group != nil {
		return d.changesOrigin()
	}
	if d.feed != nil {
		o, src := d.offsets.Current(), d.cfg.Source.Feed
		at := make([]string, 0, len(o.Partitions))
		for name, mark := range o.Partitions {
			at = append(at, fmt.Sprintf("%s:%d", name, mark.Next))
		}
		slices.Sort(at)
		return origin{
			source: strings.Join(src.Brokers, ","), server: src.Format + " in " + strings.Join(src.Topics, ", "),
			position: strings.Join(at, " "), epoch: o.Epoch, saved: o.SavedAt,
		}
	}
	c, server := d.progress.Current(), d.source.Server()
	return origin{
		source: d.cfg.Source.Addr, server: server.Flavor + " " + server.Version,
		position: c.Position().String(), gtids: c.GTIDSet, epoch: c.Epoch, saved: c.SavedAt,
	}
}

// needDatabase refuses a command that asks the source's tables.
func (d *daemon) needDatabase(command string) error {
	if d.source != nil {
		return nil
	}
	return fmt.Errorf("rowtide %s asks the database, and this config's source of kind kafka has none; set source.addr and source.user", command)
}

// redisDoc keeps a checkpoint beside the data it describes.
type redisDoc struct {
	rdb redis.UniversalClient
	key string
}

func (r redisDoc) Load(ctx context.Context) ([]byte, error) {
	b, err := r.rdb.Get(ctx, r.key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %s: %w", r.key, err)
	}
	return b, nil
}

func (r redisDoc) Save(ctx context.Context, doc []byte) error {
	if err := r.rdb.Set(ctx, r.key, doc, 0).Err(); err != nil {
		return fmt.Errorf("save checkpoint %s: %w", r.key, err)
	}
	return nil
}

// fileDoc keeps a checkpoint in a file.
type fileDoc string

func (f fileDoc) Load(context.Context) ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load checkpoint: %w", err)
	}
	return b, nil
}

// Save writes, syncs and renames, and syncs the folder, so that a power cut
// leaves the old or the new one.
func (f fileDoc) Save(_ context.Context, doc []byte) error {
	dir := filepath.Dir(string(f))
	tmp, err := os.CreateTemp(dir, ".checkpoint-*")
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(doc)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	if err := os.Rename(tmp.Name(), string(f)); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync checkpoint folder: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}
