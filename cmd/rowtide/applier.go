package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/changes"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/publisher"
)

// openApplier joins the topic of changes with modules, Redis and the broadcast.
// The source is asked only by modules that are rebuilt.
func (d *daemon) openApplier(ctx context.Context) error {
	if err := d.preflight(ctx); err != nil {
		return err
	}
	d.seen = promobserver.NewChanges(d.reg, d.obs)
	if err := d.dialChanges(changes.ConsumerConfig()); err != nil {
		return err
	}
	if err := d.watchRedis(ctx); err != nil {
		return err
	}
	if err := d.ensureTopics(); err != nil {
		return err
	}
	var err error
	if d.bus, err = publisher.NewKafka(d.cfg.Kafka, d.kafka, d.log, d.obs); err != nil {
		return err
	}
	d.bus.Share()
	d.bus.TellBehind(d.behind)
	if err := d.openTopics(); err != nil {
		return err
	}
	d.group = changes.NewGroup(d.changesConfig(), d.client, d.bus, d.log, d.seen)
	sink := publisher.New(d.store(), d.bus)
	d.pipe = newPipeline(d.cfg.Aggregator, d.modules, aggregator.Outside{
		Sink: sink, DeadLetters: letters{d.dlq}, Generations: d.nodes,
		Checkpoint: watchedGroup{d.group, d}, DB: bySourceGTID{d.source.Reader()},
	}, d.log, d.obs)
	return d.nodes.announce(ctx, d.modules)
}

// watchedGroup saves offsets only while no primary has lost what it acknowledged.
type watchedGroup struct {
	*changes.Group
	d *daemon
}

// Save implements aggregator.Checkpointer.
func (w watchedGroup) Save(ctx context.Context, last rowtide.Position, ids []string) error {
	if err := w.d.watch.Await(ctx); err != nil {
		w.d.rewindGroup(ctx, err)
		return err
	}
	if err := w.Group.Save(ctx, last, ids); err != nil {
		return err
	}
	places := w.Places()
	w.d.watch.Saved(func(context.Context) error { return w.Rewind(places) })
	return nil
}

// bySourceGTID waits for the source's own transaction behind a change.
type bySourceGTID struct{ *binlog.Reader }

func (b bySourceGTID) WaitFor(ctx context.Context, id string) (bool, error) {
	return b.Reader.WaitFor(ctx, changes.SourceGTID(id))
}

// known refuses changes of modules that this applier does not have: to leave them
// out would lose them.
type known struct{ *pipeline }

// HandleTx implements changes.Handler.
func (k known) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	for i := range tx.Changes {
		if name := tx.Changes[i].Module; !k.has(name) {
			return fmt.Errorf("transaction at %s: module %q is not in this applier's config; "+
				"give a new module to the appliers first and to the reader then, and take one away in the other order", tx.Position, name)
		}
	}
	return k.pipeline.HandleTx(ctx, tx)
}

func (k known) has(name string) bool {
	for _, m := range k.modules() {
		if m.Config().Name == name {
			return true
		}
	}
	return false
}

// rewindGroup sets the offsets back, while the partitions are still ours, to before
// what Redis lost.
func (d *daemon) rewindGroup(ctx context.Context, err error) {
	var lost *publisher.RewoundError[resave]
	if d.group == nil || !errors.As(err, &lost) || lost.Point == nil {
		return
	}
	if err := (*lost.Point)(ctx); err != nil {
		d.log.Error("offsets could not be set back; run rowtide verify --repair", "err", err)
	}
}

// changesOrigin is an applier's place, per partition.
func (d *daemon) changesOrigin() origin {
	places := d.group.Places()
	at := make([]string, 0, len(places))
	for _, p := range partitions(places) {
		at = append(at, fmt.Sprintf("%d:%d", p, places[p]))
	}
	return origin{
		source: strings.Join(d.cfg.Kafka.Brokers, ","), server: "changes in " + d.cfg.Kafka.ChangesTopic,
		position: strings.Join(at, " "), saved: time.Now(),
	}
}
