package binlog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/rowtide/rowtide/internal/backoff"
)

// maxUncovered is how many chunks may wait for the checkpoint. A crash repeats
// these and those of the last savePeriod.
const maxUncovered = 16

// savePeriod is how often a request's progress is written down, which costs a
// commit on the source.
const savePeriod = time.Second

// BackfillTarget is the table that fills a module.
type BackfillTarget struct {
	// Module is "name/version".
	Module string
	// Table is "schema.table"; it must be one of the watched.
	Table string
	// Again says that what was read for the module before does not count: the version
	// was in use before, and what changed since was written elsewhere.
	Again bool
}

// Backfiller hands over the rows that the log does not tell of, as OpRead changes
// in transactions of the stream, so that none replaces something newer. It works
// the daemon's requests off, one after the other, and writes the heartbeat row.
// Use: Prepare, then Run beside [Source.Run].
type Backfiller struct {
	*Backfills
	src     *Source
	log     *slog.Logger
	obs     Observer
	marks   *marks
	targets []BackfillTarget
	fresh   bool // there was no checkpoint
	limit   int  // rows of the next chunk
	most    int
	every   time.Duration // between two savings of progress
	filled  func(context.Context, []string) error
}

// Backfiller returns the backfiller of the source for the named daemon. It must
// follow [Source.Resume] and come before [Source.Run].
func (s *Source) Backfiller(daemon string, targets []BackfillTarget) *Backfiller {
	s.marks = newMarks(s.cfg.Backfill.Schema, daemon)
	return &Backfiller{
		Backfills: s.Backfills(daemon), src: s, log: s.log, obs: s.obs, marks: s.marks, targets: targets, fresh: s.fresh,
		limit: firstChunk, most: maxChunkRows, every: savePeriod,
		filled: func(context.Context, []string) error { return nil },
	}
}

// OnFilled has f called with modules ("name/version") whose whole table was handed
// over and is covered by the checkpoint. f is called again after an error, and may be
// after a crash. It must come before Run.
func (b *Backfiller) OnFilled(f func(ctx context.Context, modules []string) error) { b.filled = f }

// Prepare creates our tables, if they will be needed, and queues what is to be
// read by itself: the tables of new modules, and everything that the checkpoint
// does not cover (it is gone, or older than what was read before it). It must be
// done before the stream moves the checkpoint.
func (b *Backfiller) Prepare(ctx context.Context) error {
	auto := *b.src.cfg.Backfill.Auto
	if auto || b.src.cfg.HeartbeatRow > 0 {
		if err := b.Create(ctx); err != nil {
			return err
		}
	}
	var inForce []string
	for _, t := range b.targets {
		inForce = append(inForce, t.Module)
	}
	if err := b.Abandon(ctx, inForce); err != nil {
		return err
	}
	requests, err := b.List(ctx)
	if err != nil {
		return err
	}
	at := b.src.start.version()
	filled, again := map[string]bool{}, map[string]bool{}
	for _, t := range b.targets {
		again[t.Module] = t.Again
	}
	for i := range requests {
		f := &requests[i]
		lost := b.fresh || f.version > at
		if lost && !f.Status.Ended() {
			f.cursor, f.Rows, f.version = "", 0, 0
			if err := b.save(ctx, f); err != nil {
				return err
			}
		}
		if f.Where == "" && f.Err != abandoned && (!lost || !f.Status.Ended()) {
			for _, m := range f.Modules {
				filled[m] = filled[m] || !again[m] || !f.Status.Ended()
			}
		}
	}
	if !auto {
		return nil
	}
	// Modules of one table share a request.
	var tables []string
	modules := map[string][]string{}
	for _, t := range b.targets {
		if filled[t.Module] {
			continue
		}
		if modules[t.Table] == nil {
			tables = append(tables, t.Table)
		}
		modules[t.Table] = append(modules[t.Table], t.Module)
	}
	for _, t := range tables {
		if _, err := b.Add(ctx, BackfillRequest{Modules: modules[t], Table: t}); err != nil {
			return err
		}
	}
	return nil
}

// Run works until ctx ends, and then returns nil: what it did not come to goes on
// at the next start. A request that cannot be fulfilled is marked as failed and
// logged; everything else is repeated.
func (b *Backfiller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if every := b.src.cfg.HeartbeatRow; every > 0 {
		wg.Go(func() { b.heartbeats(ctx, every) })
	}
	wait := backoff.New(100*time.Millisecond, 10*time.Second)
	for failing := false; ; {
		f, err := b.next(ctx)
		if err == nil && f != nil {
			err = b.fill(ctx, f)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !failing {
				b.log.Warn("backfill is held up, repeating", "err", err)
			}
			failing = true
			if wait.Wait(ctx) != nil {
				return nil // asked to stop
			}
		case f == nil:
			failing = false
			wait.Reset()
			select {
			case <-b.marks.wake:
			case <-ctx.Done():
				return nil
			}
		default:
			failing = false
			wait.Reset()
		}
	}
}

// next is the request to work on: one that was begun, else the oldest.
func (b *Backfiller) next(ctx context.Context) (*Backfill, error) {
	// The log woke us, and it has a row before others can see it: a locking read
	// waits for that.
	requests, err := b.list(ctx, " LOCK IN SHARE MODE")
	if err != nil {
		return nil, err
	}
	for _, want := range []BackfillStatus{BackfillRunning, BackfillQueued} {
		for i := range requests {
			if requests[i].Status == want {
				return &requests[i], nil
			}
		}
	}
	return nil, nil //nolint:nilnil // nothing to do is not an error
}

// fill reads one request's table to its end, or until it is paused. The error is
// a temporary one; the request stands where it was.
func (b *Backfiller) fill(ctx context.Context, f *Backfill) error {
	if f.Status == BackfillQueued {
		if ok, err := b.move(ctx, f.ID, BackfillRunning, BackfillQueued); err != nil || !ok {
			return err
		}
		b.log.Info("backfill begins", "id", f.ID, "table", f.Table, "modules", f.Modules, "rows", f.Rows)
	}
	b.obs.BackfillState(true, max(f.Estimated-f.Rows, 0))
	defer b.obs.BackfillState(false, 0)
	r := &run{b: b, f: f, started: time.Now()}
	err := r.walk(ctx)
	b.marks.end()
	if temporary(err) {
		if err != nil && ctx.Err() == nil {
			b.limit = max(b.limit/2, 1) // it may have been too much at once
		}
		return err
	}
	f.Err = err.Error()
	if err := b.save(ctx, f); err != nil {
		return err
	}
	if _, err := b.move(ctx, f.ID, BackfillFailed, BackfillRunning, BackfillPaused); err != nil {
		return err
	}
	b.obs.BackfillFailed()
	b.log.Error("backfill failed; mend the cause and ask for it again with rowtide backfill", "id", f.ID, "table", f.Table, "err", err)
	return nil
}

// temporary reports whether the same work may succeed later.
func temporary(err error) bool {
	var fe *fillError
	var qe *QueryError
	switch {
	case errors.As(err, &fe):
		return false
	case errors.As(err, &qe):
		return qe.Temporary()
	}
	return true
}
