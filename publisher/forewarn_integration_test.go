//go:build integration

package publisher_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// R22: nodes are told of what Redis does not take, once, without values, and of how far
// behind the daemon is; the sequence stays dense, and the broadcast follows.
func TestR22_NodesAreToldOfWhatRedisDoesNotTake(t *testing.T) {
	s := privateRedis(t, testenv.Options{})
	p := openTopic(t, testenv.Kafka(t), 2)
	var behind atomic.Int64
	p.bus.TellBehind(func() time.Duration { return time.Duration(behind.Load()) })
	r := publisher.NewRedis(dial(t, &redis.Options{Addr: s.Addr}), "p", quiet(), p.obs, publisher.WithForewarning(p.bus.Forewarn))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	beating := make(chan error, 1)
	go func() { beating <- p.bus.Run(ctx) }()
	before := []rowtide.Entry{entry(1, 1)}
	if err := r.Overwrite(testContext(t), before); err != nil {
		t.Fatal(err)
	}
	p.broadcast(testContext(t), before, 1)

	if _, err := s.Do(testContext(t), "CONFIG", "SET", "maxmemory", "1"); err != nil {
		t.Fatal(err)
	}
	after := []rowtide.Entry{entry(1, 2), entry(2, 2), entry(3, 2)}
	for i := range after {
		after[i].Push = true
	}
	after[1].Flags, after[1].Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
	behind.Store(int64(12 * time.Second))
	done, began := make(chan error, 1), time.Now()
	go func() { done <- r.Overwrite(testContext(t), after) }()
	told := func() (items []rowtide.Invalidation) {
		for _, batches := range p.records() {
			for _, b := range batches {
				if len(b.Items) > 0 && b.Items[0].Version == 2 {
					items = append(items, b.Items...)
					if b.Watermark != 1 || b.Behind != 12*time.Second {
						t.Errorf("watermark %d, %s behind; want 1 and 12s", b.Watermark, b.Behind)
					}
				}
			}
		}
		return items
	}
	for len(told()) < len(after) {
		if time.Since(began) > patience {
			t.Fatalf("told of %d entries, want %d", len(told()), len(after))
		}
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("told after %s: a short trouble is none of the nodes' business", took)
	}
	<-time.After(3 * time.Second) // it is tried again meanwhile
	items := told()
	if len(items) != len(after) {
		t.Errorf("told of %d entries, want each once", len(items))
	}
	for _, inv := range items {
		n := slices.IndexFunc(after, func(e rowtide.Entry) bool { return e.Key == inv.Key })
		if n < 0 || inv.Value != nil || inv.Empty != after[n].Empty() {
			t.Errorf("told %+v, want a key and version of the flush", inv)
		}
	}
	if _, err := s.Do(testContext(t), "CONFIG", "SET", "maxmemory", "0"); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the end of the wait", done); err != nil {
		t.Fatal(err)
	}
	behind.Store(0)
	p.broadcast(testContext(t), after, 2)
	stop()
	if err := signal(t, "the end of the heartbeats", beating); err != nil {
		t.Fatal(err)
	}
	p.checkBus(append(before, after...))
}
