//go:build integration

package publisher_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// A broadcaster that shares the partitions goes on where the owner before it
// ended, tells only what it knows of each, and lets the others go silent.
func TestKafka_SharedTellsOnlyWhatItHasClaimed(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 3)
	shared, err := publisher.NewKafka(p.cfg, p.client, quiet(), p.obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.Close(); err != nil {
			t.Error(err)
		}
	})
	shared.Share()

	e := entry(1, 5)
	mine := e.Key.Partition(3)
	p.broadcast(testContext(t), []rowtide.Entry{e}, 5) // after the shared one has looked
	if err := shared.Claim(testContext(t), mine); err != nil {
		t.Fatal(err)
	}
	send := func(v rowtide.Version) {
		t.Helper()
		if err := shared.Broadcast(testContext(t), []rowtide.Entry{entry(1, v)}, 99, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	send(6)
	shared.Applied(mine, 6)
	shared.Applied((mine+1)%3, 6) // not its own to say
	send(7)
	before := p.records()
	batches := before[mine]
	if n := len(batches); n != 3 || batches[1].Sequence != batches[0].Sequence+1 || batches[2].Sequence != batches[0].Sequence+2 ||
		rowtide.ProducerBase(batches[1].Producer) != batches[0].Sequence {
		t.Errorf("records %+v, want the claimed partition's sequence to go on", batches)
	}
	if batches[1].Watermark != 0 || batches[2].Watermark != 6 {
		t.Errorf("watermarks %d and %d, want those of Applied, 0 and 6", batches[1].Watermark, batches[2].Watermark)
	}

	ctx, stop := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- shared.Run(ctx) }()
	beats := time.NewTicker(p.cfg.Heartbeat)
	defer beats.Stop()
	for len(p.records()[mine]) < len(batches)+3 {
		select {
		case <-beats.C:
		case <-ctx.Done():
			t.Fatal("no heartbeats in the claimed partition")
		}
	}
	shared.Release(mine)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for part, got := range p.records() {
		if part != mine && len(got) != len(before[part]) {
			t.Errorf("heartbeats in partition %d, which is not claimed", part)
		}
	}
}
