package localsync_test

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// fakeBus delivers synchronously: when a method returns, the record is applied.
type fakeBus struct {
	partitions int32
	opened     func()       // called within Open, after the pin
	away       func() error // called within Open, before it
	mu         sync.Mutex
	sink       localsync.Sink
	backlog    []func(localsync.Sink)
	sequence   map[int32]uint64
	producer   uint64
	running    chan struct{}
	controls   []rowtide.ModuleControl // there at Open
	apply      func(key string, value []byte)
	closed     atomic.Int32
	behind     time.Duration // what the daemon says
}

func newFakeBus() *fakeBus {
	return &fakeBus{partitions: 4, producer: 7, sequence: map[int32]uint64{}, running: make(chan struct{})}
}

func (b *fakeBus) Open(context.Context) (int32, error) {
	if b.away != nil {
		if err := b.away(); err != nil {
			return 0, err
		}
	}
	if b.opened != nil {
		b.opened()
	}
	return b.partitions, nil
}

func (b *fakeBus) Control(_ context.Context, apply func(key string, value []byte)) error {
	b.apply = apply
	for _, c := range b.controls {
		b.control(c)
	}
	return nil
}

// control is a record on the control topic; when it returns, it is applied.
func (b *fakeBus) control(c rowtide.ModuleControl) { b.apply(c.Name, c.AppendControl(nil)) }

func (b *fakeBus) Run(ctx context.Context, sink localsync.Sink) error {
	b.mu.Lock()
	b.sink = sink
	for _, deliver := range b.backlog {
		deliver(sink)
	}
	b.mu.Unlock()
	close(b.running)
	<-ctx.Done()
	return nil
}

func (b *fakeBus) Close() error {
	b.closed.Add(1)
	return nil
}

func (b *fakeBus) deliver(fn func(localsync.Sink)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sink == nil {
		b.backlog = append(b.backlog, fn)
		return
	}
	fn(b.sink)
}

// batch sends items of one partition as the next record.
func (b *fakeBus) batch(part int32, at time.Time, wm rowtide.Version, items ...rowtide.Invalidation) {
	b.deliver(func(s localsync.Sink) {
		if len(items) > 0 {
			b.sequence[part]++
		}
		r := rowtide.Batch{Producer: b.producer, Sequence: b.sequence[part], Watermark: wm, SentAt: at, Behind: b.behind, Items: items}
		s.Record(part, r.AppendBatch(nil))
	})
}

// lose uses up a sequence number without delivering anything.
func (b *fakeBus) lose(part int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence[part]++
}

// origin is the database behind a loader.
type origin struct {
	mu    sync.Mutex
	rows  map[int64]string
	err   error
	calls [][]int64
	// gate, if set, is called within each load after the rows were read.
	gate func(ctx context.Context, ids []int64)
}

func newOrigin() *origin { return &origin{rows: map[int64]string{}} }

func (o *origin) set(id int64, v string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows[id] = v
}

func (o *origin) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func (o *origin) loads() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.calls)
}

func (o *origin) load(ctx context.Context, ids []int64) (map[int64]string, error) {
	o.mu.Lock()
	o.calls = append(o.calls, ids)
	out := map[int64]string{}
	for _, id := range ids {
		if v, ok := o.rows[id]; ok {
			out[id] = v
		}
	}
	err, gate := o.err, o.gate
	o.mu.Unlock()
	if gate != nil {
		gate(ctx, ids)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// resize makes the topic one of n partitions, and the producer restarts.
func (b *fakeBus) resize(n int32) {
	b.deliver(func(s localsync.Sink) {
		b.partitions = n
		s.Partitions(n)
	})
}
