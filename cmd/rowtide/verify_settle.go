package main

import (
	"context"
	"slices"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/changes"
	"github.com/rowtide/rowtide/config"
)

// looks is how often a suspect is looked at before it is reported, or given up as
// one that does not keep still; lookPause lies between two looks when no daemon
// follows whose steps could be waited for.
const (
	looks     = 10
	lookPause = 200 * time.Millisecond
)

// settle looks at suspects until each agrees, is proven to differ, or has changed
// at every look.
//
// Proof: what Redis holds before and after is the same; in between, the daemon
// applied everything up to the log's end as it was after the database was asked.
// So nothing that the database may have shown is still under way.
func (c *check) settle(ctx context.Context, ids []string) error {
	proven, err := c.proven(ctx, ids)
	if err != nil || len(proven) == 0 {
		return err
	}
	if c.mayMiss {
		n := len(proven)
		proven = slices.DeleteFunc(proven, func(d difference) bool { return d.Kind == diffMissing })
		c.r.Tolerated += n - len(proven)
	}
	if c.repair != nil {
		if proven, err = c.mend(ctx, proven); err != nil {
			return err
		}
	}
	for _, d := range proven {
		c.r.note(d, c.maxDiffs)
	}
	return nil
}

func (c *check) proven(ctx context.Context, ids []string) (out []difference, err error) {
	for look := 1; len(ids) > 0; look++ {
		before, err := c.read(ctx, ids)
		if err != nil {
			return out, err
		}
		at, err := c.behind.catchUp(ctx)
		if err != nil {
			return out, err
		}
		wants, err := c.visible(ctx, ids, at)
		if err != nil {
			return out, err
		}
		then, err := c.behind.catchUp(ctx)
		if err != nil {
			return out, err
		}
		after, err := c.read(ctx, ids)
		if err != nil {
			return out, err
		}
		followed := at.reached && then.reached
		var next []string
		for i, want := range wants {
			d := c.differ(want, &after[i])
			switch {
			case d == nil:
			case followed && before[i].same(&after[i]), !followed && look == looks:
				out = append(out, *d)
			default:
				next = append(next, want.ID)
			}
		}
		ids = next
		if look == looks {
			c.r.Unsettled += len(ids)
			return out, nil
		}
		if !followed && len(ids) > 0 {
			pause(ctx, lookPause)
		}
	}
	return out, nil
}

// visible asks what keys must hold, with everything that the daemon had applied
// at the given place.
func (c *check) visible(ctx context.Context, ids []string, at place) ([]aggregator.Expected, error) {
	locking := true
	if at.gtids != "" {
		err := c.retry(ctx, func() error {
			seen, err := c.db.WaitFor(ctx, at.gtids)
			locking = !seen
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return c.of(ctx, ids, locking)
}

// pursuit knows how far the daemon is behind the source.
type pursuit struct {
	// head is nil with a feed: nothing says which part of the database's log has
	// been applied.
	head  func(context.Context) (rowtide.Position, error)
	store binlog.Store
	// group is where the appliers are, in a daemon that shares the work. The
	// checkpoint in store is the reader's then.
	group *changes.Progress
	// source is the server that head asks.
	source string
	// gaveUp: the daemon took no step for so long that waiting again is no use.
	gaveUp bool
}

func (d *daemon) pursuit() (*pursuit, error) {
	if d.feed != nil {
		return &pursuit{}, nil
	}
	store, err := d.checkpointStore()
	if err != nil {
		return nil, err
	}
	p := &pursuit{head: d.source.Head, store: store, source: d.source.Server().ID}
	if d.cfg.Role == config.RoleAll {
		return p, nil
	}
	if err := d.dialChanges(changes.ConsumerConfig()); err != nil {
		return nil, err
	}
	p.group, err = changes.NewProgress(d.changesConfig(), d.client)
	return p, err
}

// place is how far the daemon has come.
type place struct {
	// head is the end of the source's log when the question was asked; reached says
	// that the daemon has applied all of it.
	head    rowtide.Position
	reached bool
	// at is the checkpoint; gtids its set.
	at     rowtide.Position
	gtids  string
	epoch  uint32
	source string
}

// How long verify waits for a daemon that is behind, counted from the last step it
// was seen to take.
const (
	awaitPatience = 10 * time.Second
	awaitPoll     = 20 * time.Millisecond
)

// catchUp waits until the daemon has applied what is in the log now, or has taken
// no step for too long.
func (p *pursuit) catchUp(ctx context.Context) (place, error) {
	if p.head == nil {
		return place{}, nil
	}
	head, err := p.head(ctx)
	if err != nil {
		return place{}, err
	}
	out := place{head: head}
	out.reached, err = p.await(ctx, func() (any, bool, error) {
		ckpt, err := p.store.Load(ctx)
		if err != nil || ckpt == nil {
			return nil, false, err
		}
		out.at, out.gtids, out.epoch, out.source = ckpt.Position(), ckpt.GTIDSet, ckpt.Epoch, ckpt.Source
		return out.at, reached(out.at, head), nil
	})
	if err != nil || !out.reached || p.group == nil {
		return out, err
	}
	// The reader's checkpoint says that the changes are in the topic up to here.
	ends, err := p.group.Ends()
	if err != nil {
		return out, err
	}
	out.reached, err = p.await(ctx, func() (any, bool, error) {
		n, err := p.group.Behind(ends)
		return n, n == 0, err
	})
	return out, err
}

// await asks until the answer is yes, or the step that it comes with has been the
// same for too long.
func (p *pursuit) await(ctx context.Context, ask func() (step any, ok bool, err error)) (bool, error) {
	var last any
	for since := time.Now(); ; pause(ctx, awaitPoll) {
		step, ok, err := ask()
		if err != nil {
			return false, err
		}
		if ok {
			p.gaveUp = false
			return true, nil
		}
		if step != last {
			last, since = step, time.Now()
		}
		if p.gaveUp || time.Since(since) > awaitPatience {
			p.gaveUp = true
			return false, ctx.Err()
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
}

// reached reports whether position a is not before b.
func reached(a, b rowtide.Position) bool {
	fileA, errA := rowtide.FileNumber(a.File)
	fileB, errB := rowtide.FileNumber(b.File)
	return errA == nil && errB == nil && (fileA > fileB || fileA == fileB && a.Pos >= b.Pos)
}
