package aggregator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// DefaultMaxPending is 16 MiB: some 20,000 single-row transactions, enough to
// fill Redis pipelines and small beside the process.
const DefaultMaxPending = 16 << 20

// idleSave is how often transactions that touched no watched table move the
// checkpoint: soon enough for a log that is purged by age, rare enough to cost
// nothing.
const idleSave = time.Second

// Config is the aggregator's own.
type Config struct {
	// MaxPending is the estimated size, in bytes, of changes in memory above
	// which HandleTx blocks. One transaction that is larger goes in whole.
	//
	// Defaults to 16 MiB.
	MaxPending int `mapstructure:"max_pending"`
}

// WithDefaults returns a copy with every empty field filled in.
func (c Config) WithDefaults() Config {
	if c.MaxPending == 0 {
		c.MaxPending = DefaultMaxPending
	}
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	if c.MaxPending < 0 {
		return fmt.Errorf("aggregator.max_pending %d: want bytes, above zero", c.MaxPending)
	}
	return nil
}

// Aggregator turns transactions into flushes. HandleTx is for one goroutine, Run
// for another.
type Aggregator struct {
	cfg     Config
	modules []*Module
	sink    Sink
	ckpt    Checkpointer
	db      Querier
	obs     Observer
	log     *slog.Logger
	now     func() time.Time

	shapes map[*rowtide.Table][]*plan // HandleTx's own

	mu      sync.Mutex
	filling *dirty
	closed  bool
	fault   error         // Run has ended with this
	work    chan struct{} // holds a token when filling has something new
	space   chan struct{} // holds a token when filling was taken
}

// New makes an aggregator over compiled modules. db may be nil when no module
// has a rebuild. It does no I/O.
func New(cfg Config, modules []*Module, sink Sink, ckpt Checkpointer, db Querier, log *slog.Logger, obs Observer) *Aggregator {
	return &Aggregator{
		cfg: cfg, modules: modules, sink: sink, ckpt: ckpt, db: db, obs: obs, log: log, now: time.Now,
		shapes: map[*rowtide.Table][]*plan{}, filling: newDirty(len(modules)),
		work: make(chan struct{}, 1), space: make(chan struct{}, 1),
	}
}

// Tables lists every table that any module needs.
func Tables(modules []*Module) []string {
	seen := map[string]bool{}
	var out []string
	for _, m := range modules {
		for t := range m.Tables() {
			if !seen[t] {
				seen[t] = true
				out = append(out, t)
			}
		}
	}
	return out
}

// HandleTx folds tx in and returns at once, unless too much is pending: then it
// blocks until a flush has left, which is the back-pressure on the source. An
// error means that tx cannot be applied and the stream must stop before it.
func (a *Aggregator) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	for {
		a.mu.Lock()
		if a.fault != nil {
			a.mu.Unlock()
			return a.fault
		}
		if a.filling.txs == 0 || a.filling.bytes < a.cfg.MaxPending {
			err := a.fold(tx)
			a.mu.Unlock()
			signal(a.work)
			return err
		}
		a.mu.Unlock()
		select {
		case <-a.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (a *Aggregator) fold(tx *rowtide.Tx) error {
	// Everything is checked before anything goes in: a transaction that cannot be
	// applied must not leave a part of itself in the set.
	for i := range tx.Changes {
		c := &tx.Changes[i]
		ps, known := a.shapes[c.Table]
		if !known {
			var err error
			if ps, err = plans(a.modules, c.Table); err != nil {
				return fmt.Errorf("transaction at %s: %w", tx.Position, err)
			}
			a.shapes[c.Table] = ps
		}
		for _, p := range ps {
			if err := p.check(c); err != nil {
				return fmt.Errorf("transaction at %s: module %s: %w", tx.Position, p.mod.cfg.Name, err)
			}
		}
	}
	d := a.filling
	for i := range tx.Changes {
		c := &tx.Changes[i]
		for _, p := range a.shapes[c.Table] {
			if err := d.add(p, c, tx.Version); err != nil {
				return fmt.Errorf("transaction at %s: module %s: %w", tx.Position, p.mod.cfg.Name, err)
			}
		}
	}
	d.note(tx)
	return nil
}

// CloseIntake says that no more transactions will come; Run flushes the rest and
// returns. Only the goroutine that calls HandleTx may call it.
func (a *Aggregator) CloseIntake() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	signal(a.work)
}

// Run flushes until the intake is closed and everything has left, or until ctx
// ends, or until something fails that repeating cannot mend. While one flush is
// broadcast, the next is already being written to Redis.
func (a *Aggregator) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Three sets: one fills, one is overwritten, one is broadcast.
	written := make(chan *flush)
	spare := make(chan *dirty, 2)
	spare <- newDirty(len(a.modules))
	spare <- newDirty(len(a.modules))

	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range written {
			if err := a.announce(ctx, f); err != nil {
				cancel(err)
				for range written { // let the writer see the cancellation
				}
				return
			}
			f.set.reset()
			spare <- f.set
		}
	}()
	err := a.write(ctx, written, spare)
	close(written)
	<-done
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	a.stop(err)
	return err
}

// stop lets HandleTx fail from now on.
func (a *Aggregator) stop(err error) {
	a.mu.Lock()
	a.fault = err
	if err == nil {
		a.fault = errStopped
	}
	a.mu.Unlock()
	signal(a.space)
}

var errStopped = errors.New("aggregator has stopped")

// write takes set after set, builds its entries and overwrites Redis.
func (a *Aggregator) write(ctx context.Context, out chan<- *flush, spare <-chan *dirty) error {
	idle := time.NewTicker(idleSave)
	defer idle.Stop()
	lastEmpty := a.now()
	for {
		a.mu.Lock()
		// Transactions of unwatched tables wait for company, but not so long that
		// they fill the set and hold the source back.
		ready := a.filling.txs > 0 && (a.filling.pending() || a.closed || a.filling.bytes >= a.cfg.MaxPending || a.now().Sub(lastEmpty) >= idleSave)
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
		a.mu.Lock()
		set := a.filling
		a.filling = next
		a.mu.Unlock()
		signal(a.space)
		lastEmpty = a.now()

		f, err := a.build(ctx, set)
		if err == nil && len(f.entries) > 0 {
			err = a.sink.Overwrite(ctx, f.entries)
		}
		if err != nil {
			return fmt.Errorf("flush %d transactions up to %s: %w", set.txs, set.last, err)
		}
		select {
		case out <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// flush is a set with its entries.
type flush struct {
	set     *dirty
	entries []rowtide.Entry
	began   time.Time
}

// announce broadcasts a flush that Redis holds and then moves the checkpoint.
func (a *Aggregator) announce(ctx context.Context, f *flush) error {
	if err := a.sink.Broadcast(ctx, f.entries, f.set.version, f.set.oldest); err != nil {
		return fmt.Errorf("broadcast %d entries up to %s: %w", len(f.entries), f.set.last, err)
	}
	// Checkpoint last: a crash before this line replays the flush, a crash after
	// it has nothing to replay. Replay is harmless; a gap is not.
	if err := a.ckpt.Save(ctx, f.set.last, f.set.gtids); err != nil {
		return fmt.Errorf("save checkpoint %s: %w", f.set.last, err)
	}
	a.obs.Flushed(f.set.txs, len(f.entries), a.now().Sub(f.began), f.set.oldest)
	return nil
}
