package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowtide/rowtide"
)

// run is one request under way.
type run struct {
	b       *Backfiller
	f       *Backfill
	table   *fillTable
	at      *cursor // the next chunk begins here
	waiting []covered
	started time.Time
	read    int64 // rows since started
	savedAt time.Time
	unsaved bool // f is ahead of its row
}

// covered is what may be written down once the checkpoint covers version.
type covered struct {
	version rowtide.Version
	cursor  string
	rows    int64
}

func (r *run) walk(ctx context.Context) error {
	if !r.b.src.watches(r.f.Table) {
		return &fillError{fmt.Errorf("no module uses table %s", r.f.Table)}
	}
	for {
		status, err := r.b.status(ctx, r.f.ID)
		if err != nil {
			return err
		}
		if status != BackfillRunning {
			r.b.log.Info("backfill stops", "id", r.f.ID, "table", r.f.Table, "state", status)
			return r.settle(ctx, 0)
		}
		c, version, err := r.chunk(ctx)
		if err != nil {
			return err
		}
		if c != nil && version != 0 {
			r.at.After = c.after
			r.read += int64(len(c.rows))
			r.waiting = append(r.waiting, covered{version, r.at.String(), int64(len(c.rows))})
		}
		if c == nil || version != 0 && c.last {
			return r.finish(ctx)
		}
		if err := r.settle(ctx, maxUncovered); err != nil {
			return err
		}
		if err := r.pace(ctx); err != nil {
			return err
		}
	}
}

// chunk reads the next chunk between two watermarks and waits until it has been
// handed over. Version 0: it must be read again. No chunk: the table is empty.
func (r *run) chunk(ctx context.Context) (*chunk, rowtide.Version, error) {
	c, passed, err := r.between(ctx)
	if err != nil || c == nil {
		return nil, 0, err
	}
	select {
	case m := <-passed:
		if m.void || m.version == 0 {
			r.b.limit = max(r.b.limit/2, 1) // less is likelier to be left alone
			return c, 0, nil
		}
		r.b.obs.Backfilled(m.rows, m.dropped)
		return c, m.version, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// between writes the low watermark, reads, and writes the high one. Whatever the
// log has before the low one is visible to what is read after it; whatever it has
// after the high one is newer. What lies between the source compares itself.
func (r *run) between(ctx context.Context) (*chunk, <-chan mark, error) {
	conn, err := r.b.db.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	s, err := r.session(ctx, conn)
	if err != nil || r.at == nil {
		return nil, nil, err
	}
	begun := time.Now()
	low, high := newToken(), newToken()
	r.b.marks.begin(r.f.Table, low, s.table.keyNames())
	if err := r.b.beat(ctx, conn, low); err != nil {
		return nil, nil, err
	}
	c, err := s.read(ctx, r.at, min(r.b.limit, r.b.mostRows()))
	if err != nil {
		return nil, nil, err
	}
	c.modules = r.f.names()
	passed := r.b.marks.load(c, high)
	if err := r.b.beat(ctx, conn, high); err != nil {
		return nil, nil, err
	}
	if !s.few {
		r.b.limit = nextLimit(r.b.limit, time.Since(begun), r.b.src.cfg.Backfill.Chunk, r.b.mostRows())
	}
	return c, passed, nil
}

// session describes the table as it is now, since it may be altered between two
// chunks, and finds the place to go on from.
func (r *run) session(ctx context.Context, conn *sql.Conn) (*session, error) {
	t, err := describeFill(ctx, conn, r.f.Table)
	if err != nil {
		return nil, err
	}
	if r.table == nil || !r.table.same(t) {
		r.table = t
	}
	s := &session{conn: conn, table: r.table, where: r.f.Where, few: r.f.Few}
	if r.at != nil {
		return s, r.table.fits(r.at)
	}
	if r.at, err = r.table.parseCursor(r.f.cursor); err != nil || r.at != nil {
		return s, err
	}
	end, err := s.end(ctx)
	if err != nil || end == nil {
		return s, err
	}
	r.at = &cursor{Key: r.table.keyNames(), End: end}
	if r.f.Estimated, err = s.estimate(ctx, r.at); err != nil {
		return s, err
	}
	return s, r.b.save(ctx, r.f)
}

// finish waits until the checkpoint covers everything, and says that it is done.
func (r *run) finish(ctx context.Context) error {
	if err := r.settle(ctx, 0); err != nil {
		return err
	}
	r.f.Estimated = r.f.Rows
	if err := r.b.save(ctx, r.f); err != nil {
		return err
	}
	if r.f.Where == "" {
		if err := r.b.filled(ctx, r.f.Modules); err != nil {
			return err
		}
	}
	_, err := r.b.move(ctx, r.f.ID, BackfillDone, BackfillRunning, BackfillPaused)
	if err == nil {
		r.b.log.Info("backfill is done", "id", r.f.ID, "table", r.f.Table, "rows", r.f.Rows, "took", time.Since(r.started).Round(time.Millisecond))
	}
	return err
}

// settle writes down what the checkpoint covers, and waits until no more than
// most chunks are uncovered.
func (r *run) settle(ctx context.Context, most int) error {
	for {
		saved, next := r.b.src.progress.lastSaved()
		n := 0
		for ; n < len(r.waiting) && r.waiting[n].version <= saved; n++ {
			if r.waiting[n].version.Epoch() != saved.Epoch() {
				// Another server's positions say nothing about what was under way.
				r.at, r.waiting = nil, nil
				return errors.New("the source changed, the last chunks are read again")
			}
			r.f.cursor, r.f.version = r.waiting[n].cursor, r.waiting[n].version
			r.f.Rows += r.waiting[n].rows
			r.unsaved = true
		}
		r.waiting = slices.Delete(r.waiting, 0, n)
		enough := len(r.waiting) <= most
		if r.unsaved && (time.Since(r.savedAt) >= r.b.every || enough && most == 0) {
			r.savedAt, r.unsaved = time.Now(), false
			r.b.obs.BackfillState(true, max(r.f.Estimated-r.f.Rows, 0))
			if err := r.b.save(ctx, r.f); err != nil {
				return err
			}
		}
		if enough {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mostRows keeps a chunk within a second's worth of the rate.
func (b *Backfiller) mostRows() int {
	if rate := b.src.cfg.Backfill.Rate; rate > 0 {
		return min(b.most, rate)
	}
	return b.most
}

// pace waits until the rows read so far are within the rate.
func (r *run) pace(ctx context.Context) error {
	rate := r.b.src.cfg.Backfill.Rate
	if rate <= 0 {
		return nil
	}
	due := r.started.Add(time.Duration(float64(r.read) / float64(rate) * float64(time.Second)))
	select {
	case <-time.After(time.Until(due)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
