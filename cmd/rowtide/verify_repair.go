package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/publisher"
)

// repairer writes entries the way the daemon does: to Redis if newer, then to
// Kafka, so that nodes drop what they had.
type repairer struct {
	redis interface {
		Overwrite(ctx context.Context, entries []rowtide.Entry) error
	}
	// announce connects to the topic at the first repair.
	announce func(ctx context.Context, entries []rowtide.Entry) error
	close    func() error
	now      func() time.Time
}

// repairer makes one over the daemon's connections.
func (d *daemon) repairer() *repairer {
	r := &repairer{
		redis: publisher.NewRedis(d.rdb, d.cfg.Redis.Prefix, d.log, d.obs, publisher.WithLayout(d.layout)),
		close: func() error { return nil },
		now:   time.Now,
	}
	var bus *publisher.Kafka
	r.announce = func(ctx context.Context, entries []rowtide.Entry) (err error) {
		// As late as can be: a record of the daemon's between this reading of the
		// topic's end and our first record makes nodes check a partition in vain.
		if bus == nil {
			if bus, err = publisher.NewKafka(d.cfg.Kafka, d.kafka, d.log, d.obs); err != nil {
				return err
			}
			r.close = bus.Close
		}
		return bus.Broadcast(ctx, entries, 0, time.Time{})
	}
	return r
}

// layout is the form in which a module's entries stand in Redis.
func (d *daemon) layout(module string) publisher.Layout {
	modules := d.modules
	if d.pipe != nil {
		modules = d.pipe.modules()
	}
	for _, m := range modules {
		if c := m.Config(); c.Name == module && c.Layout == aggregator.LayoutPlain {
			return publisher.LayoutPlain
		}
	}
	return publisher.LayoutEnvelope
}

// repairTries is how often a key is written that a newer change keeps overtaking.
const repairTries = 5

// Reasons why a difference is left.
var (
	errNoDaemon  = errors.New("no daemon follows the log to its end, so that no version is known to cover what the database says; start it, or wait until it has caught up")
	errNotOurLog = errors.New("the checkpoint is of another server's log")
)

// mend overwrites proven differences and returns those that are left.
func (c *check) mend(ctx context.Context, diffs []difference) ([]difference, error) {
	byID := make(map[string]*difference, len(diffs))
	var ids []string
	for i := range diffs {
		byID[diffs[i].ID] = &diffs[i]
		ids = append(ids, diffs[i].ID)
	}
	var left []difference
	leave := func(id, why string) {
		d := *byID[id]
		d.Unrepaired = why
		left = append(left, d)
	}
	var written []string
	for try := 1; len(ids) > 0; try++ {
		entries, retry, err := c.repairs(ctx, ids, leave)
		if err != nil {
			return nil, err
		}
		if err := c.write(ctx, entries); err != nil {
			return nil, err
		}
		for i := range entries {
			written = append(written, entries[i].Key.ID)
		}
		ids = retry
		if try == repairTries {
			for _, id := range ids {
				leave(id, "its version is past the end of the log")
			}
			break
		}
	}
	// What was written is judged like everything else.
	after, err := c.proven(ctx, written)
	for _, d := range after {
		d.Unrepaired = "it differs again"
		left = append(left, d)
	}
	c.r.Repaired += len(diffs) - len(left)
	return left, err
}

// repairs makes the entries that keys must hold. Their version is the end of the
// log at a moment before the database was asked, all of which the daemon has
// applied: every later change has a later version and wins, whichever comes
// first, and every entry that the log has made so far is not newer. Keys whose
// entry is newer nevertheless are to be tried again.
func (c *check) repairs(ctx context.Context, ids []string, leave func(id, why string)) (entries []rowtide.Entry, again []string, err error) {
	at, err := c.behind.catchUp(ctx)
	if err != nil {
		return nil, nil, err
	}
	version, err := c.behind.covered(at)
	if err != nil {
		for _, id := range ids {
			leave(id, err.Error())
		}
		return nil, nil, ctx.Err()
	}
	wants, err := c.visible(ctx, ids, at)
	if err != nil {
		return nil, nil, err
	}
	got, err := c.read(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	for i, want := range wants {
		d := c.differ(want, &got[i])
		switch {
		case d == nil: // somebody was quicker
		case want.Err != nil:
			leave(want.ID, "the row itself must be mended")
		case got[i].foreign:
			leave(want.ID, "the key must be moved away by hand")
		case got[i].Version > version:
			again = append(again, want.ID)
		default:
			entries = append(entries, c.x.Entry(want, version, c.repair.now()))
		}
	}
	return entries, again, nil
}

// covered is the version of everything up to the end of the log.
func (p *pursuit) covered(at place) (rowtide.Version, error) {
	if p.head == nil || !at.reached {
		return 0, errNoDaemon
	}
	if at.source != p.source {
		return 0, errNotOurLog
	}
	file, err := rowtide.FileNumber(at.head.File)
	if err != nil {
		return 0, err
	}
	return rowtide.NewVersion(at.epoch, file, at.head.Pos)
}

func (c *check) write(ctx context.Context, entries []rowtide.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := c.repair.redis.Overwrite(ctx, entries); err != nil {
		return fmt.Errorf("repair %d entries: %w", len(entries), err)
	}
	if err := c.repair.announce(ctx, entries); err != nil {
		return fmt.Errorf("announce %d repaired entries: %w", len(entries), err)
	}
	return nil
}
