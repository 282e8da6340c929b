package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/feed"
	"github.com/rowtide/rowtide/publisher"
)

// errStartAgain means that the daemon is to be opened anew: Redis went back in
// time, and the checkpoint stands before what it lost.
var errStartAgain = errors.New("starting again from the checkpoint")

// resave writes a checkpoint that was saved once before.
type resave func(ctx context.Context) error

// fenced saves only while no primary has lost what it acknowledged: a checkpoint
// that is written after a failover must not cover writes from before it.
type fenced struct {
	binlog.Store
	watch *publisher.Failover[resave]
}

// Save implements binlog.Store.
func (f fenced) Save(ctx context.Context, c *binlog.Checkpoint) error {
	kept := *c
	return save(ctx, f.watch, func(ctx context.Context) error { return f.Store.Save(ctx, &kept) })
}

// fencedFeed is fenced for a feed's offsets.
type fencedFeed struct {
	feed.Store
	watch *publisher.Failover[resave]
}

// Save implements feed.Store.
func (f fencedFeed) Save(ctx context.Context, doc []byte) error {
	return save(ctx, f.watch, func(ctx context.Context) error { return f.Store.Save(ctx, doc) })
}

func save(ctx context.Context, watch *publisher.Failover[resave], write resave) error {
	if err := watch.Check(ctx); err != nil {
		return err
	}
	if err := write(ctx); err != nil {
		return err
	}
	watch.Saved(write)
	return nil
}

// watchRedis starts to watch for failovers. It comes before the checkpoint is
// read, so that one right after is seen.
func (d *daemon) watchRedis(ctx context.Context) error {
	d.watch = publisher.NewFailover[resave](d.rdb, d.log)
	if err := d.watch.Check(ctx); err != nil {
		return fmt.Errorf("watch redis for failovers; its user needs +info, see docs/operations.md: %w", err)
	}
	return nil
}

// rewound turns the end of a run by a lossy failover into errStartAgain, with the
// checkpoint set back as far as is needed; or, where that is not known, into an
// error that says what to do. Any other err it returns as it is.
func (d *daemon) rewound(ctx context.Context, err error) error {
	var lost *publisher.RewoundError[resave]
	if !errors.As(err, &lost) {
		return err
	}
	const mend = "`rowtide verify --repair`, or `rowtide backfill`, writes again what was lost before it"
	if lost.Point != nil {
		const patience = 10 * time.Second // Redis has just answered
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if saveErr := (*lost.Point)(ctx); saveErr != nil {
			return fmt.Errorf("%w; setting the checkpoint back: %w; %s", err, saveErr, mend)
		}
		return fmt.Errorf("%w: %w", errStartAgain, err)
	}
	if d.cfg.Checkpoint.Store == config.CheckpointRedis && !d.cfg.Redis.Cluster && d.group == nil { // an applier's offsets are in Kafka
		return fmt.Errorf("%w, which went back together with the data: %w", errStartAgain, err)
	}
	return fmt.Errorf("%w; how far it went back is not known, and the checkpoint is not kept in the same server: a new start goes on from the checkpoint, and %s", err, mend)
}
