package localsynctest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// Node is one web node.
type Node struct {
	*localsync.Cache
	name string
	bus  *bus
}

// Node opens another node, as after a start of the application some time ago: its
// watermark is known, so that loaded values are proven; the clock moves on by 3 s for
// that. It is closed with the test.
func (h *Harness) Node() *Node {
	h.t.Helper()
	opt := h.Options()
	cache, err := localsync.Open(context.Background(), opt)
	if err != nil {
		h.t.Fatalf("localsynctest: %v", err)
	}
	n := &Node{Cache: cache, bus: opt.Bus.(*bus)}
	h.mu.Lock()
	n.name = fmt.Sprintf("node %d", len(h.nodes))
	h.nodes = append(h.nodes, n)
	h.mu.Unlock()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := cache.Close(ctx); err != nil {
			h.t.Errorf("localsynctest: close %s: %v", n.name, err)
		}
	})
	select {
	case <-n.bus.running:
	case <-time.After(patience):
		h.t.Fatalf("localsynctest: the bus of %s does not run", n.name)
	}
	h.Advance(localsync.DefaultReplicaLag + beat)
	return n
}

// Observe has AssertConverged and Idle look into a cache that was opened with
// Options.
func (h *Harness) Observe(c *localsync.Cache) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes = append(h.nodes, &Node{Cache: c, name: fmt.Sprintf("node %d", len(h.nodes))})
}

// DropMessages loses the next n messages on the way to this node only.
func (n *Node) DropMessages(count int) {
	n.bus.h.mu.Lock()
	defer n.bus.h.mu.Unlock()
	n.bus.drop += count
}

// DropMessages loses the next n messages on the way to every node. Heartbeats are
// not counted: the next one shows the nodes that something is missing.
func (h *Harness) DropMessages(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop += n
}

// Silence holds back everything that the nodes would hear, or ends that: then they
// get what they missed, as from Kafka's log.
func (h *Harness) Silence(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = on
	for _, b := range h.buses {
		b.flush()
	}
}

// send is the partition's next record; h.mu is held.
func (h *Harness) send(part int32, items ...rowtide.Invalidation) {
	b := rowtide.Batch{Producer: producer, Sequence: h.sequence[part], Watermark: h.applied, SentAt: h.Now(), CommittedAt: h.Now(), Items: items}
	record := b.AppendBatch(nil)
	lost := false
	if len(items) > 0 && h.drop > 0 {
		h.drop--
		lost = true
	}
	for _, bus := range h.buses {
		switch {
		case lost:
		case len(items) > 0 && bus.drop > 0:
			bus.drop--
		default:
			bus.waiting = append(bus.waiting, message{part, record})
			bus.flush()
		}
	}
}

// heartbeat is one on every partition; h.mu is held.
func (h *Harness) heartbeat() {
	for part := range int32(partitions) {
		h.send(part)
	}
}

// producer is one daemon that began with the topic.
const producer = 1 << 40

// bus delivers within the call that sends. The harness's lock guards it.
type bus struct {
	h       *Harness
	running chan struct{}
	once    sync.Once
	sink    localsync.Sink // nil until it runs
	waiting []message
	drop    int
}

type message struct {
	part   int32
	record []byte
}

// flush delivers what waits; the harness's lock is held.
func (b *bus) flush() {
	if b.sink == nil || b.h.silent {
		return
	}
	for _, m := range b.waiting {
		b.sink.Record(m.part, m.record)
	}
	b.waiting = nil
}

// Open implements localsync.Bus.
func (b *bus) Open(context.Context) (int32, error) {
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	b.h.buses = append(b.h.buses, b)
	b.h.heartbeat() // the first thing to be heard: from here on a missing message shows
	return partitions, nil
}

// Run implements localsync.Bus.
func (b *bus) Run(ctx context.Context, sink localsync.Sink) error {
	b.h.mu.Lock()
	b.sink = sink
	b.flush()
	b.h.mu.Unlock()
	b.once.Do(func() { close(b.running) })
	<-ctx.Done()
	return nil
}

// Close implements localsync.Bus.
func (b *bus) Close() error {
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	b.h.buses = slices.DeleteFunc(b.h.buses, func(o *bus) bool { return o == b })
	return nil
}

// Diverged lists, for people, the values that AssertConverged objects to.
func (h *Harness) Diverged() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wrong []string
	for _, n := range h.nodes {
		for key, want := range h.truth {
			got, ok := n.Peek(key)
			if ok && (got.Empty() != want.Empty() || !sameValue(got.Payload, want.Payload)) {
				wrong = append(wrong, fmt.Sprintf("%s serves %s as %s, version %s; the newest commit is %s, version %s",
					n.name, key, show(&got), got.Version, show(&want), want.Version))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func show(e *rowtide.Entry) string {
	if e.Empty() {
		return "absent"
	}
	return fmt.Sprintf("%.60q", e.Payload)
}

// sameValue compares documents by what they say: a loader's value may be spelt in
// another way than the daemon's.
func sameValue(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
