package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rowtide/rowtide/binlog"
)

// idleHint is when a request that nobody takes up makes us ask for a daemon.
const idleHint = 10 * time.Second

// follow tells how far the requests are until all are over.
func (b *backfillCommand) follow(ctx context.Context, ids []uint64, daemon string) error {
	t := newFillTeller(b.out)
	tick := time.NewTicker(barEvery)
	defer tick.Stop()
	begun, hinted := time.Now(), false
	for {
		all, err := b.requests.List(ctx)
		if err == nil {
			err = t.tell(slices.DeleteFunc(all, func(f binlog.Backfill) bool { return !slices.Contains(ids, f.ID) }))
			if err != nil || t.over() {
				return err
			}
			if t.idle() && !hinted && time.Since(begun) > idleHint {
				hinted = true
				t.print(fmt.Sprintf("nobody has taken it up: is the daemon of %s running? It keeps a request until it is", daemon))
			}
		} else if ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.print("the daemon goes on; rowtide backfill --list tells how far it is")
			return nil
		}
	}
}

// fillTeller tells of requests: a bar on a terminal, lines now and then elsewhere.
type fillTeller struct {
	out   io.Writer
	bar   bool
	every time.Duration
	now   func() time.Time

	first map[uint64]binlog.Backfill // as each was first seen running
	since map[uint64]time.Time
	state map[uint64]binlog.BackfillStatus
	told  time.Time
}

func newFillTeller(out io.Writer) *fillTeller {
	t := &fillTeller{
		out: out, every: lineEvery, now: time.Now,
		first: map[uint64]binlog.Backfill{}, since: map[uint64]time.Time{}, state: map[uint64]binlog.BackfillStatus{},
	}
	if f, ok := out.(*os.File); ok && terminal(f) {
		t.bar, t.every = true, barEvery
	}
	return t
}

// print writes a line of its own.
func (t *fillTeller) print(line string) {
	if t.bar {
		line = "\r\x1b[K" + line
	}
	fmt.Fprintln(t.out, line)
}

// tell takes the requests as they are now. It returns an error once all are over
// and some failed.
func (t *fillTeller) tell(requests []binlog.Backfill) error {
	now := t.now()
	due := now.Sub(t.told) >= t.every
	for _, f := range requests {
		was := t.state[f.ID]
		t.state[f.ID] = f.Status
		if _, known := t.first[f.ID]; !known && f.Status == binlog.BackfillRunning {
			t.first[f.ID], t.since[f.ID] = f, now
		}
		switch {
		case f.Status != was && f.Status.Ended():
			t.print(t.ended(f))
		case f.Status != was && f.Status == binlog.BackfillPaused:
			t.print(f.Table + " is paused; rowtide backfill --resume goes on with it")
		case f.Status == binlog.BackfillRunning && due:
			t.told = now
			if t.bar {
				fmt.Fprint(t.out, "\r\x1b[K"+t.line(f, now))
			} else {
				fmt.Fprintln(t.out, t.line(f, now))
			}
		}
	}
	if !t.over() {
		return nil
	}
	var errs []error
	for _, f := range requests {
		if f.Status == binlog.BackfillFailed {
			errs = append(errs, fmt.Errorf("backfill of %s failed: %s", f.Table, f.Err))
		}
	}
	return errors.Join(errs...)
}

func (t *fillTeller) ended(f binlog.Backfill) string {
	line := fmt.Sprintf("%s: %s, %d rows", f.Table, f.Status, f.Rows)
	if since, known := t.since[f.ID]; known {
		line += " in " + t.now().Sub(since).Round(100*time.Millisecond).String()
	}
	return line
}

// over reports whether nothing more will happen.
func (t *fillTeller) over() bool {
	for _, s := range t.state {
		if !s.Ended() {
			return false
		}
	}
	return len(t.state) > 0
}

// idle reports whether nothing has begun.
func (t *fillTeller) idle() bool {
	for _, s := range t.state {
		if s != binlog.BackfillQueued {
			return false
		}
	}
	return true
}

// line is one request's progress. The time left follows from the rows since we
// look.
func (t *fillTeller) line(f binlog.Backfill, now time.Time) string {
	total := max(f.Estimated, f.Rows)
	rate := float64(f.Rows-t.first[f.ID].Rows) / max(now.Sub(t.since[f.ID]).Seconds(), 1e-3)
	left := "?"
	if rate > 0 {
		left = time.Duration(float64(total-f.Rows) / rate * float64(time.Second)).Round(time.Second).String()
	}
	share := float64(f.Rows) / float64(max(total, 1))
	text := fmt.Sprintf("%3.0f%%  %d of about %d rows, %.0f/s, %s left", 100*share, f.Rows, total, rate, left)
	if !t.bar {
		return f.Table + " " + text
	}
	full := int(share * barWidth)
	return f.Table + " [" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] " + text
}
