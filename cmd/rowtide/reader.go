package main

import (
	"context"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/changes"
)

// openReader joins the source and the topic of changes. It writes to Redis only
// the lease and the checkpoint.
func (d *daemon) openReader(ctx context.Context) error {
	if err := d.preflight(ctx); err != nil {
		return err
	}
	if err := d.dialChanges(changes.ProducerConfig()); err != nil {
		return err
	}
	if err := d.elect(ctx); err != nil {
		return err
	}
	if err := d.resume(ctx); err != nil {
		return err
	}
	if err := d.openBackfill(ctx); err != nil {
		return err
	}
	if err := d.ensureTopics(); err != nil {
		return err
	}
	route := aggregator.NewRouter(d.modules).Route
	var err error
	d.writer, err = changes.NewWriter(d.changesConfig(), d.client, route, d.progress, d.log, d.seen)
	return err
}
