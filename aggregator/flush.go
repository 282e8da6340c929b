package aggregator

import (
	"context"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// maxSets is how many sets exist: one fills, one is being overwritten, the rest
// are on their way to Kafka. More would only make flushes smaller.
const maxSets = 8

// saveEvery is the least time between two checkpoints: a crash replays that much
// more, which is harmless, and thousands of small flushes a second do not each
// cost a write.
const saveEvery = 10 * time.Millisecond

// maxUnsaved is how many transactions may be broadcast and not yet in the
// checkpoint. It bounds the memory while the checkpoint's store is away.
const maxUnsaved = 100_000

// flush is a set with its entries.
type flush struct {
	set     *dirty
	bytes   int // of set when it was taken
	entries []rowtide.Entry
	began   time.Time
}

// Run flushes until the intake is closed and everything has left, or until ctx
// ends, or until something fails that repeating cannot mend. Three goroutines
// hand flushes on: one overwrites Redis, one broadcasts, one moves the
// checkpoint. Each takes all that has come up while it was busy.
func (a *Aggregator) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	spare := make(chan *dirty, maxSets)
	for range maxSets - 1 {
		spare <- newDirty(len(a.modules))
	}
	written := make(chan *flush, maxSets)
	announced := make(chan progress)
	saved := make(chan struct{})
	sent := make(chan struct{})
	go func() {
		defer close(saved)
		if err := a.save(ctx, announced); err != nil {
			cancel(err)
		}
	}()
	go func() {
		defer close(sent)
		defer close(announced)
		if err := a.announce(ctx, written, announced, spare); err != nil {
			cancel(err)
		}
	}()
	err := a.write(ctx, written, spare)
	close(written)
	<-sent
	<-saved
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	a.stop(err)
	return err
}

// write takes set after set, builds its entries and overwrites Redis.
func (a *Aggregator) write(ctx context.Context, out chan<- *flush, spare <-chan *dirty) error {
	idle := time.NewTicker(idleSave)
	defer idle.Stop()
	lastEmpty := a.now()
	for {
		a.mu.Lock()
		// Transactions of unwatched tables wait for company, but not so long that
		// they fill the set and hold the source back.
		full := a.taken+a.filling.bytes >= a.cfg.MaxPending
		ready := a.filling.txs > 0 && (a.filling.pending() || a.closed || full || a.now().Sub(lastEmpty) >= idleSave)
		closed := a.closed
		a.mu.Unlock()
		if !ready {
			if closed {
				return nil
			}
			select {
			case <-a.work:
			case <-idle.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		var next *dirty
		select {
		case next = <-spare:
		case <-ctx.Done():
			return ctx.Err()
		}
		set, bytes := a.take(next)
		lastEmpty = a.now()

		f, err := a.build(ctx, set)
		if err == nil && len(f.entries) > 0 {
			err = a.sink.Overwrite(ctx, f.entries)
		}
		if err != nil {
			return fmt.Errorf("flush %d transactions up to %s: %w", set.txs, set.last, err)
		}
		f.bytes = bytes
		out <- f // never blocks: it has room for every set there is
	}
}

// take swaps the set that fills for an empty one.
func (a *Aggregator) take(next *dirty) (set *dirty, bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	set, a.filling = a.filling, next
	a.taken += set.bytes
	return set, set.bytes
}

// release makes room for as many bytes.
func (a *Aggregator) release(bytes int) {
	a.mu.Lock()
	a.taken -= bytes
	a.mu.Unlock()
	signal(a.space)
}

// progress is what was broadcast since the last checkpoint.
type progress struct {
	last  rowtide.Position
	gtids []string
	txs   int
}

// announce broadcasts flushes that Redis holds, as many at once as have come up
// during the last broadcast: one that just missed a broadcast waits for its rest,
// not for its own and the next one's. Broadcasts keep Config.BroadcastEvery.
func (a *Aggregator) announce(ctx context.Context, in <-chan *flush, out chan<- progress, spare chan<- *dirty) error {
	var p progress
	var began time.Time // the broadcast before
	for in != nil || p.txs > 0 {
		next, save := in, out
		if p.txs == 0 {
			save = nil // nothing to save
		} else if p.txs >= maxUnsaved {
			next = nil // hold the flushes back
		}
		select {
		case f, ok := <-next:
			if !ok {
				in = nil
				continue
			}
			if len(f.entries) > 0 {
				if err := pause(ctx, time.Until(began.Add(a.cfg.BroadcastEvery))); err != nil {
					return err
				}
				began = time.Now()
			}
			fs := waiting(f, next)
			if err := a.broadcast(ctx, fs); err != nil {
				return err
			}
			for _, f := range fs {
				p.last, p.gtids, p.txs = f.set.last, append(p.gtids, f.set.gtids...), p.txs+f.set.txs
				f.set.reset()
				spare <- f.set
				a.release(f.bytes)
			}
		case save <- p:
			p = progress{}
		case <-ctx.Done():
			return ctx.Err()
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

func (a *Aggregator) broadcast(ctx context.Context, fs []*flush) error {
	last := fs[len(fs)-1].set
	entries := fs[0].entries
	for _, f := range fs[1:] {
		entries = append(entries, f.entries...)
	}
	if err := a.sink.Broadcast(ctx, entries, last.version, fs[0].set.oldest); err != nil {
		return fmt.Errorf("broadcast %d entries up to %s: %w", len(entries), last.last, err)
	}
	for _, f := range fs {
		a.obs.Flushed(f.set.txs, len(f.entries), a.now().Sub(f.began), f.set.oldest)
	}
	return nil
}

// save moves the checkpoint behind the broadcasts: a crash before it replays, a
// crash after it has nothing to replay. Replay is harmless; a gap is not.
func (a *Aggregator) save(ctx context.Context, in <-chan progress) error {
	for p := range in {
		if err := a.ckpt.Save(ctx, p.last, p.gtids); err != nil {
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
