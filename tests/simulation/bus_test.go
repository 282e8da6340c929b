package simulation

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// nodeBus is a node's way to the topic: it delivers every record after a while,
// and loses, repeats and holds back some.
type nodeBus struct {
	n     *node
	wake  chan struct{}
	next  []int
	late  []lateRecord
	heard []uint64 // off.gaps

	apply    func(key string, value []byte)
	controls int // of the control topic, the records that were read

	hushAt  time.Duration
	hushing *span // its present silence; node.mu guards it
}

type lateRecord struct {
	due   time.Duration
	part  int32
	bytes []byte
}

var errCut = errors.New("offset out of range")

func newNodeBus(n *node) *nodeBus {
	return &nodeBus{
		n: n, wake: make(chan struct{}, 1), heard: make([]uint64, n.w.partitions),
		hushAt: n.w.now() + n.dice.gap(n.w.hushEvery),
	}
}

func (b *nodeBus) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Open implements localsync.Bus.
func (b *nodeBus) Open(context.Context) (int32, error) {
	if !b.n.w.off.pin {
		b.pin()
	}
	return b.n.w.partitions, nil
}

func (b *nodeBus) pin() {
	b.next = b.n.w.topic.ends()
	b.n.w.topic.mu.Lock()
	defer b.n.w.topic.mu.Unlock()
	b.n.w.topic.buses[b] = true
}

// Control implements localsync.ControlBus.
func (b *nodeBus) Control(_ context.Context, apply func(key string, value []byte)) error {
	b.apply = apply
	b.follow()
	return nil
}

// Run implements localsync.Bus.
func (b *nodeBus) Run(ctx context.Context, sink localsync.Sink) error {
	w := b.n.w
	if w.off.first {
		b.forge(sink)
	}
	if w.off.pin {
		pass(b.n.dice.upTo(300 * time.Millisecond))
		b.pin()
	}
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return nil
		}
		pass(b.n.dice.upTo(w.busTime))
		if w.now() > b.hushAt {
			b.hush(ctx, sink)
		}
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		if b.deliver(sink) {
			b.ring()
		} else {
			b.caughtUp()
		}
	}
}

// forge tells of the highest sequence that there can be, before anything was kept.
func (b *nodeBus) forge(sink localsync.Sink) {
	topic := b.n.w.topic
	ends := topic.ends()
	for part := range b.n.w.partitions {
		if last, _ := topic.fetch(part, max(ends[part]-1, 0), 1); len(last) > 0 {
			r, err := rowtide.DecodeBatch(last[0].bytes)
			if err != nil {
				panic(err)
			}
			beat := rowtide.Batch{Producer: r.Producer, Sequence: math.MaxUint64, SentAt: time.Now()}
			sink.Record(part, beat.AppendBatch(nil))
		}
	}
}

// Close implements localsync.Bus.
func (b *nodeBus) Close() error {
	b.caughtUp()
	b.n.w.topic.mu.Lock()
	defer b.n.w.topic.mu.Unlock()
	delete(b.n.w.topic.buses, b)
	return nil
}

// hush hears nothing for a while; sometimes what came meanwhile is gone.
func (b *nodeBus) hush(ctx context.Context, sink localsync.Sink) {
	n := b.n
	n.mu.Lock()
	b.caughtUpLocked()
	b.hushing = &span{n.w.now() - n.w.busTime, 1 << 62}
	n.hushes = append(n.hushes[max(0, len(n.hushes)-8):], b.hushing)
	n.mu.Unlock()
	n.w.trace.note(everyKey, "hears nothing from now on", n.id, 0, 0)
	select {
	case <-time.After(n.dice.between(n.w.hush)):
	case <-ctx.Done():
		return
	}
	b.hushAt = n.w.now() + n.dice.gap(n.w.hushEvery)
	n.w.trace.note(everyKey, "hears again", n.id, 0, 0)
	if n.dice.chance(n.w.hushedLost) {
		b.next = n.w.topic.ends()
		n.w.trace.note(everyKey, "finds the log cut", n.id, 0, 0)
		for part := range n.w.partitions {
			if !n.w.off.gaps {
				sink.Lost(part, errCut)
			}
		}
	}
}

func (b *nodeBus) caughtUp() {
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	b.caughtUpLocked()
}

// caughtUpLocked ends this bus's silence, not that of the one which came after it.
func (b *nodeBus) caughtUpLocked() {
	if b.hushing != nil {
		b.hushing.to, b.hushing = b.n.w.now(), nil
	}
}

// deliver hands on what is there and reports whether there may be more.
func (b *nodeBus) deliver(sink localsync.Sink) (more bool) {
	w, now := b.n.w, b.n.w.now()
	kept := b.late[:0]
	for _, l := range b.late {
		if l.due > now {
			kept = append(kept, l)
			continue
		}
		sink.Record(l.part, l.bytes)
	}
	b.late = kept
	b.follow()
	for part := range w.partitions {
		rs, ok := w.topic.fetch(part, b.next[part], w.fetchMost)
		if !ok {
			panic("a node asks for records that the topic does not keep")
		}
		b.next[part] += len(rs)
		more = more || len(rs) == w.fetchMost
		for _, r := range rs {
			if b.n.dice.chance(w.lost) {
				b.tell(r.bytes, "misses")
				continue
			}
			bytes := b.spoil(part, r.bytes)
			sink.Record(part, bytes)
			if b.n.dice.chance(w.late) {
				b.late = append(b.late, lateRecord{now + b.n.dice.upTo(w.lateBy), part, bytes})
			}
		}
	}
	return more
}

// tell notes what a record would have said.
func (b *nodeBus) tell(record []byte, what string) {
	r, err := rowtide.DecodeBatch(record)
	if err != nil {
		panic(err)
	}
	for _, it := range r.Items {
		b.n.w.trace.note(atoi(it.Key.ID), what, b.n.id, 0, it.Version)
	}
}

// spoil is where protections are switched off.
func (b *nodeBus) spoil(part int32, record []byte) []byte {
	o := &b.n.w.off
	if !o.floors && !o.gaps && !o.pace {
		return record
	}
	r, err := rowtide.DecodeBatch(record)
	if err != nil {
		panic(err)
	}
	if o.floors {
		b.strip(&r)
	}
	if o.pace {
		r.SentAt = time.Now()
	}
	if o.gaps {
		b.renumber(part, &r)
	}
	return r.AppendBatch(nil)
}
