package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// ledger is a sink that remembers every entry and checkpoint.
type ledger struct {
	mu    sync.Mutex
	keys  map[rowtide.Key]rowtide.Version
	saved uint64
	fail  error
}

func (l *ledger) Overwrite(_ context.Context, es []rowtide.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range es {
		l.keys[e.Key] = e.Version
	}
	return l.fail
}

func (l *ledger) Broadcast(context.Context, []rowtide.Entry, rowtide.Version, time.Time) error {
	return nil
}

func (l *ledger) Save(_ context.Context, p rowtide.Position, _ []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saved = p.Pos
	return nil
}

func shopModules(t *testing.T, names ...string) []*aggregator.Module {
	t.Helper()
	var cfgs []aggregator.ModuleConfig
	for _, n := range names {
		cfgs = append(cfgs, aggregator.ModuleConfig{Name: n, Key: "{id}", From: &aggregator.FromConfig{Table: "shop.event"}})
	}
	ms, err := aggregator.Compile(cfgs)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func shopTx(t *testing.T, n int) *rowtide.Tx {
	t.Helper()
	v, err := rowtide.NewVersion(1, 1, uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	return &rowtide.Tx{
		Position: rowtide.Position{File: "binlog.000001", Pos: uint64(n)}, Version: v, Bytes: 50,
		Changes: []rowtide.Change{{Table: swapTable, Op: rowtide.OpInsert, After: []rowtide.Value{int64(n)}}},
	}
}

var swapTable = &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id"}}

// Modules come and go under load; every transaction reaches the ones that were in
// force when it came.
func TestPipeline_SwapLosesNoTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{keys: map[rowtide.Key]rowtide.Version{}}
		p := newPipeline(aggregator.Config{MaxPending: 5000}.WithDefaults(), shopModules(t, "event"),
			aggregator.Outside{Sink: l, Checkpoint: l}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
		ran := make(chan error, 1)
		go func() { ran <- p.Run(t.Context()) }()
		synctest.Wait()
		var mu sync.Mutex
		handed := 0
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for n := 1; n <= 3000; n++ {
				if err := p.HandleTx(t.Context(), shopTx(t, n)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				handed = n
				mu.Unlock()
				time.Sleep(100 * time.Microsecond) //nolint:forbidigo // virtual
			}
		}()
		in := map[string][2]int{"event": {1, 3000}}
		for i := range 10 {
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // virtual
			name := fmt.Sprintf("extra%d", i)
			mu.Lock()
			before := handed
			mu.Unlock()
			if err := p.swap(t.Context(), shopModules(t, "event", name)); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			after := handed + 1 // one may be on its way
			mu.Unlock()
			in[name] = [2]int{after + 1, 3000}
			if i > 0 {
				last := fmt.Sprintf("extra%d", i-1)
				in[last] = [2]int{in[last][0], before}
			}
		}
		<-sent
		p.CloseIntake()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		for name, r := range in {
			for n := r[0]; n <= r[1]; n++ {
				if _, ok := l.keys[rowtide.Key{Module: name, Version: 1, ID: fmt.Sprint(n)}]; !ok {
					t.Fatalf("module %s in force from %d to %d missed %d", name, r[0], r[1], n)
				}
			}
		}
		if l.saved != 3000 {
			t.Errorf("checkpoint at %d, want 3000", l.saved)
		}
		if err := p.swap(t.Context(), shopModules(t, "late")); !errors.Is(err, errStopping) {
			t.Errorf("swap after the end: %v", err)
		}
	})
}

// A fault during a swap ends the daemon and is not swallowed by it.
func TestPipeline_FaultDuringSwapEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("it is down")
		l := &ledger{keys: map[rowtide.Key]rowtide.Version{}, fail: down}
		p := newPipeline(aggregator.Config{}.WithDefaults(), shopModules(t, "event"),
			aggregator.Outside{Sink: l, Checkpoint: l}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
		ran := make(chan error, 1)
		go func() { ran <- p.Run(t.Context()) }()
		synctest.Wait()
		if err := p.HandleTx(t.Context(), shopTx(t, 1)); err != nil {
			t.Fatal(err)
		}
		if err := p.swap(t.Context(), shopModules(t, "other")); !errors.Is(err, down) {
			t.Errorf("swap: %v, want %v", err, down)
		}
		if err := <-ran; !errors.Is(err, down) {
			t.Errorf("run: %v, want %v", err, down)
		}
	})
}
