package aggregator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
)

// maxSets is how many sets a lane has: one fills, one is being overwritten, the
// rest are on their way to Kafka. More would only make flushes smaller.
const maxSets = 8

// flushEvery is the least time between the starts of two flushes of a lane, so
// that a row that changes all the time costs at most 2,000 writes a second.
const flushEvery = 500 * time.Microsecond

// saveEvery is the least time between two checkpoints: a crash replays that much
// more, which is harmless, and thousands of small flushes a second do not each
// cost a write.
const saveEvery = 10 * time.Millisecond

// maxUnsaved is how many transactions may be broadcast and not yet in the
// checkpoint. It bounds the memory while the checkpoint's store is away.
const maxUnsaved = 100_000

// idleSave is how often transactions that touched no watched table move the
// checkpoint: soon enough for a log that is purged by age, rare enough to cost
// nothing.
const idleSave = time.Second

// flush is a set with its entries.
type flush struct {
	lane    *lane
	set     *dirty
	entries []rowtide.Entry
	began   time.Time
}

// Run flushes until the intake is closed and everything has left, or until ctx
// ends, or until something fails that repeating cannot mend. One goroutine per
// lane overwrites Redis, one broadcasts for all, one moves the checkpoint. Each
// takes all that has come up while it was busy.
func (a *Aggregator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	written := make(chan *flush, maxSets*len(a.lanes))
	announced := make(chan progress)
	var writers sync.WaitGroup
	for _, l := range a.lanes {
		writers.Add(1)
		g.Go(func() error {
			defer writers.Done()
			return a.write(ctx, l, written)
		})
	}
	g.Go(func() error {
		writers.Wait()
		close(written)
		return nil
	})
	g.Go(func() error {
		defer close(announced)
		return a.announce(ctx, written, announced)
	})
	g.Go(func() error { return a.save(ctx, announced) })
	err := g.Wait()
	a.stop(err)
	return err
}

// write takes set after set of a lane, builds its entries and overwrites Redis.
func (a *Aggregator) write(ctx context.Context, l *lane, out chan<- *flush) error {
	var began time.Time
	for {
		more, err := a.ready(ctx, l)
		if err != nil || !more {
			return err
		}
		if err := pause(ctx, began.Add(flushEvery).Sub(a.now())); err != nil {
			return err
		}
		var next *dirty
		select {
		case next = <-l.spare:
		case <-ctx.Done():
			return ctx.Err()
		}
		began = a.now()
		a.mu.Lock()
		set := l.filling
		set.taken = began
		l.filling = next
		l.flights = append(l.flights, set)
		a.mu.Unlock()

		f, err := a.build(ctx, l, set)
		if err == nil && len(f.entries) > 0 {
			err = a.out.Sink.Overwrite(ctx, f.entries)
		}
		if err != nil {
			return fmt.Errorf("flush %d transactions up to %s: %w", set.txs, set.last, err)
		}
		out <- f // never blocks: it has room for every set there is
	}
}

// ready waits until the lane has a set that is due; more is false when there will
// be none.
func (a *Aggregator) ready(ctx context.Context, l *lane) (more bool, err error) {
	for {
		a.mu.Lock()
		pending, closed := l.filling.pending(), a.closed
		wait := l.window - a.now().Sub(l.filling.since)
		if a.holdTo > 0 {
			wait = max(wait, a.holdUntil.Sub(a.now()))
		}
		if closed || a.full() {
			wait = 0
		}
		a.mu.Unlock()
		if pending && wait <= 0 {
			return true, nil
		}
		if !pending && closed {
			return false, nil
		}
		var due <-chan time.Time
		if pending {
			due = time.After(wait)
		}
		select {
		case <-l.work:
		case <-due:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// announce broadcasts flushes that Redis holds, as many at once as have come up
// during the last broadcast: one that just missed a broadcast waits for its rest,
// not for its own and the next one's. Broadcasts keep Config.BroadcastEvery.
func (a *Aggregator) announce(ctx context.Context, in <-chan *flush, out chan<- progress) error {
	var p progress
	var began time.Time // the broadcast before
	idle := time.NewTicker(idleSave)
	defer idle.Stop()
	for in != nil || p.txs > 0 {
		next, save := in, out
		if p.txs == 0 {
			save = nil // nothing to save
		} else if p.txs >= maxUnsaved {
			next = nil // hold the flushes back
		}
		var fs []*flush
		select {
		case f, ok := <-next:
			if !ok {
				in = nil // what no module needed comes last
			} else {
				if err := pause(ctx, time.Until(began.Add(a.cfg.BroadcastEvery))); err != nil {
					return err
				}
				began = time.Now()
				fs = waiting(f, next)
			}
		case save <- p:
			p = progress{}
			continue
		case <-idle.C:
		case <-a.tidy:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := a.broadcast(ctx, fs, &p); err != nil {
			return err
		}
	}
	return nil
}

// waiting is first and what else the channel holds.
func waiting(first *flush, more <-chan *flush) []*flush {
	fs := []*flush{first}
	for {
		select {
		case f, ok := <-more:
			if !ok {
				return fs
			}
			fs = append(fs, f)
		default:
			return fs
		}
	}
}

// broadcast announces flushes and folds every transaction that is now done into
// p. With no flush it moves over transactions that no module needed.
func (a *Aggregator) broadcast(ctx context.Context, fs []*flush, p *progress) error {
	var entries []rowtide.Entry
	var oldest time.Time
	var last rowtide.Position // for the error's text
	for _, f := range fs {
		last = f.set.last
		if entries == nil {
			entries = f.entries
		} else {
			entries = append(entries, f.entries...)
		}
		if oldest.IsZero() || f.set.oldest.Before(oldest) {
			oldest = f.set.oldest
		}
	}
	done, watermark, moved := a.settle(fs)
	if len(fs) == 0 && !moved {
		return nil
	}
	if err := a.out.Sink.Broadcast(ctx, entries, watermark, oldest); err != nil {
		return fmt.Errorf("broadcast %d entries up to %s: %w", len(entries), last, err)
	}
	for _, f := range fs {
		a.obs.Flushed(f.set.txs, len(f.entries), a.now().Sub(f.began), f.set.oldest)
		f.set.reset()
		f.lane.spare <- f.set
	}
	a.mu.Lock()
	a.line.leave(done, p)
	a.leaving = time.Time{}
	a.mu.Unlock()
	signal(a.space)
	return nil
}

// settle takes flushes out of their lanes, whose oldest they are, and returns the
// newest ticket up to which then nothing is left, with its version, and whether
// that is further than before.
func (a *Aggregator) settle(fs []*flush) (done uint64, watermark rowtide.Version, moved bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range fs {
		f.lane.flights = append(f.lane.flights[:0], f.lane.flights[1:]...)
		if a.leaving.IsZero() || f.set.taken.Before(a.leaving) {
			a.leaving = f.set.taken
		}
	}
	done = a.line.head()
	for _, l := range a.lanes {
		done = min(done, l.settled(done))
	}
	if done == a.line.gone {
		return done, a.watermark, false
	}
	a.watermark = a.line.at(done).version
	return done, a.watermark, true
}

// save moves the checkpoint behind the broadcasts: a crash before it replays, a
// crash after it has nothing to replay. Replay is harmless; a gap is not.
func (a *Aggregator) save(ctx context.Context, in <-chan progress) error {
	for p := range in {
		if err := a.out.Checkpoint.Save(ctx, p.last, p.gtids); err != nil {
			return fmt.Errorf("save checkpoint %s: %w", p.last, err)
		}
		if err := pause(ctx, saveEvery); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
