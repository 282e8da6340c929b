package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// pipeline is the aggregator in force. Its modules can be changed while it runs:
// an aggregator over the new ones takes over between two transactions, once the
// old one has written all that it took in.
type pipeline struct {
	cfg aggregator.Config
	out aggregator.Outside
	log *slog.Logger
	obs aggregator.Observer

	turn chan struct{} // holds a token while nobody hands a transaction in or swaps

	mu       sync.Mutex
	ctx      context.Context //nolint:containedctx // of Run, for aggregators that start later
	cur      *running
	swapping bool
	closed   bool
	end      chan error
}

// running is one aggregator at work.
type running struct {
	agg     *aggregator.Aggregator
	modules []*aggregator.Module
	done    chan struct{}
	err     error // valid once done is closed
}

func newPipeline(cfg aggregator.Config, modules []*aggregator.Module, out aggregator.Outside, log *slog.Logger, obs aggregator.Observer) *pipeline {
	p := &pipeline{cfg: cfg, out: out, log: log, obs: obs, turn: make(chan struct{}, 1), end: make(chan error, 1)}
	p.cur = p.over(modules)
	p.turn <- struct{}{}
	return p
}

func (p *pipeline) over(modules []*aggregator.Module) *running {
	return &running{agg: aggregator.New(p.cfg, modules, p.out, p.log, p.obs), modules: modules, done: make(chan struct{})}
}

// modules are the ones in force.
func (p *pipeline) modules() []*aggregator.Module {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur.modules
}

// held is how long the aggregator in force has held back what it took in.
func (p *pipeline) held() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur.agg.Held()
}

// hold has the first flush wait for what is read again. See [aggregator.Aggregator.Hold].
func (p *pipeline) hold(v rowtide.Version) { p.cur.agg.Hold(v) }

// HandleTx hands tx to the aggregator in force. See [aggregator.Aggregator.HandleTx].
func (p *pipeline) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	return p.cur.agg.HandleTx(ctx, tx) // cur changes only in turn
}

func (p *pipeline) take(ctx context.Context) error {
	select {
	case <-p.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipeline) give() { p.turn <- struct{}{} }

// CloseIntake says that no more transactions will come.
func (p *pipeline) CloseIntake() {
	<-p.turn
	defer p.give()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cur.agg.CloseIntake()
}

// Run works until the intake is closed and all has left, until ctx ends, or until
// an aggregator fails.
func (p *pipeline) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	p.start(p.cur)
	p.mu.Unlock()
	err := <-p.end
	p.mu.Lock()
	cur := p.cur
	p.mu.Unlock()
	<-cur.done
	return err
}

// start lets r work; p.mu is held.
func (p *pipeline) start(r *running) {
	ctx := p.ctx
	go func() {
		r.err = r.agg.Run(ctx)
		p.mu.Lock()
		last := !p.swapping || r.err != nil
		p.mu.Unlock()
		close(r.done)
		if last {
			select {
			case p.end <- r.err:
			default: // somebody's error is there already
			}
		}
	}()
}

var errStopping = errors.New("the daemon is stopping")

// swap replaces the modules. It waits for its turn and for everything that was
// handed in before; meanwhile the source is held back. Afterwards either all of
// modules are in force or none, and no change is lost.
func (p *pipeline) swap(ctx context.Context, modules []*aggregator.Module) error {
	if err := p.take(ctx); err != nil {
		return errors.New("the source is held back and nothing can change until it goes on; see /status")
	}
	defer p.give()
	p.mu.Lock()
	if p.closed || p.ctx == nil {
		p.mu.Unlock()
		return errStopping
	}
	old := p.cur
	p.swapping = true
	p.mu.Unlock()

	old.agg.CloseIntake()
	<-old.done // not ctx: half a swap is none; a stop of the daemon ends it

	p.mu.Lock()
	defer p.mu.Unlock()
	p.swapping = false
	if old.err != nil {
		return old.err
	}
	p.cur = p.over(modules)
	p.start(p.cur)
	return nil
}
