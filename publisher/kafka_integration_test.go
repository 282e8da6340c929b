//go:build integration

package publisher_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

func (p *topic) broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version) {
	p.t.Helper()
	if err := p.bus.Broadcast(ctx, entries, watermark, time.UnixMicro(77)); err != nil {
		p.t.Fatal(err)
	}
}

func TestEnsureTopic(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 3)
	other := p.cfg
	other.Partitions = 7 // an existing topic keeps its own
	if n, err := publisher.EnsureTopic(p.client, other); err != nil || n != 3 {
		t.Errorf("existing topic: %d partitions, %v; want 3", n, err)
	}
	bad := p.cfg
	bad.Topic, bad.Replication = p.cfg.Topic+"x", 30
	if _, err := publisher.EnsureTopic(p.client, bad); err == nil || !strings.Contains(err.Error(), "create topic "+bad.Topic+" with 3 partitions and replication 30") || !strings.Contains(err.Error(), "check kafka.replication") {
		t.Errorf("err=%v, want the topic and the remedy", err)
	}
}

func TestKafka_DenseSequencesAndHeartbeats(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 3)
	ctx, cancel := context.WithCancel(t.Context())
	beating := make(chan error, 1)
	go func() { beating <- p.bus.Run(ctx) }()
	var all []rowtide.Entry
	for n := range 150 {
		part := []rowtide.Entry{entry(n, rowtide.Version(n+1)), entry(n+1000, rowtide.Version(n+1))}
		if n%10 == 0 {
			part[0].Flags, part[0].Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
		}
		all = append(all, part...)
		p.broadcast(testContext(t), part, rowtide.Version(n+1))
	}
	p.broadcast(testContext(t), nil, 999) // unwatched transactions move the watermark only
	// Until the last heartbeat carries the last watermark everywhere.
	timeout := time.After(patience)
	for {
		done := true
		records := p.records()
		for part := range p.cfg.Partitions {
			b := records[part]
			done = done && len(b) > 0 && b[len(b)-1].Heartbeat() && b[len(b)-1].Watermark == 999
		}
		if done {
			break
		}
		select {
		case <-timeout:
			t.Fatal("never: heartbeats with the last watermark")
		default:
		}
	}
	cancel()
	if err := signal(t, "the end of the heartbeats", beating); err != nil {
		t.Fatal(err)
	}
	for part, batches := range p.checkBus(all) {
		beats, last := 0, uint64(0)
		for _, b := range batches {
			if b.Heartbeat() {
				beats++
			} else {
				last = b.Sequence
				if !b.CommittedAt.Equal(time.UnixMicro(77)) {
					t.Errorf("committed at %s", b.CommittedAt)
				}
			}
		}
		if got := batches[len(batches)-1].Sequence; beats == 0 || got != last {
			t.Errorf("partition %d: %d heartbeats, the last repeats %d, want %d", part, beats, got, last)
		}
	}
	if p.obs.told != len(all) {
		t.Errorf("%d told, want %d", p.obs.told, len(all))
	}
}

func TestKafka_LargeFlushIsSplitIntoRecords(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 1)
	var all []rowtide.Entry
	for n := range 9000 {
		all = append(all, entry(n, 5))
	}
	p.broadcast(testContext(t), all, 5)
	batches := p.checkBus(all)[0]
	var sizes []int
	for _, b := range batches {
		sizes = append(sizes, len(b.Items))
	}
	if len(sizes) != 3 || sizes[0] != 4000 || sizes[1] != 4000 || sizes[2] != 1000 {
		t.Errorf("records of %v items, want 4000, 4000, 1000", sizes)
	}
}

func TestKafka_WaitsThroughARestart(t *testing.T) {
	if testenv.Degraded("kafka") {
		t.Skip("Apache Kafka could not be installed on this machine")
	}
	server, err := testenv.StartKafka(testContext(t), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	p := openTopic(t, server.Brokers(), 3)
	ctx, cancel := context.WithCancel(t.Context())
	beating := make(chan error, 1)
	go func() { beating <- p.bus.Run(ctx) }()
	var all []rowtide.Entry
	more := func(from, to int) {
		for n := from; n < to; n++ {
			part := []rowtide.Entry{entry(n, rowtide.Version(n+1)), entry(n+1000, rowtide.Version(n+1)), entry(n+2000, rowtide.Version(n+1))}
			all = append(all, part...)
			p.broadcast(testContext(t), part, rowtide.Version(n+1))
		}
	}
	more(0, 20)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	during := []rowtide.Entry{entry(5000, 21), entry(5001, 21), entry(5002, 21)}
	all = append(all, during...)
	done := make(chan error, 1)
	go func() { done <- p.bus.Broadcast(testContext(t), during, 21, time.Time{}) }()
	if err := signal(t, "the outage", p.obs.kafka); err == nil {
		t.Error("all-clear before the outage")
	}
	if err := server.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the end of the wait", done); err != nil {
		t.Fatal(err)
	}
	more(21, 40)
	cancel()
	if err := signal(t, "the end of the heartbeats", beating); err != nil {
		t.Fatal(err)
	}
	p.checkBus(all)
}

// Against an in-process broker: a record that is refused keeps the heartbeats at
// what was acknowledged before it.
func TestKafka_ContextEndsTheWait(t *testing.T) {
	fake, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := openTopic(t, fake.Brokers(), 1)
	p.broadcast(testContext(t), []rowtide.Entry{entry(1, 1)}, 1)
	fake.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.bus.Broadcast(ctx, []rowtide.Entry{entry(2, 2)}, 2, time.Time{}) }()
	if err := signal(t, "the outage", p.obs.kafka); err == nil {
		t.Error("no outage told")
	}
	cancel()
	if err := signal(t, "the end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("err=%v, want %v", err, context.Canceled)
	}
}
