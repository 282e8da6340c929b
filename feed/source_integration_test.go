//go:build integration

package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// Several partitions, read to their ends and then on: the checkpoint holds each
// one's place.
func TestSource_ResumesEveryPartitionWhereItWasAcknowledged(t *testing.T) {
	r := newTopic(t, 3)
	store := &memory{}
	r.send(0, row(1), row(2))
	r.send(2, row(3))
	if got := read(t, r.source(FormatMaxwell, nil), store, 3); len(got) != 3 {
		t.Fatalf("first run saw %v", got)
	}
	r.send(0, row(4))
	r.send(1, row(5))
	r.send(2, row(6), row(7))
	got := strings.Join(read(t, r.source(FormatMaxwell, nil), store, 4), " ")
	for _, id := range []string{"4", "5", "6", "7"} {
		if strings.Count(got, id) != 1 {
			t.Errorf("second run saw %s, want 4, 5, 6 and 7 once each", got)
		}
	}
}

func TestSource_StartsAtTheEndWhenToldTo(t *testing.T) {
	r := newTopic(t, 1)
	r.send(0, row(1))
	s := r.source(FormatMaxwell, func(c *Config) { c.StartAt = StartLatest })
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	store := &memory{}
	p, err := s.Resume(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Current().Partitions[r.topic+":0"].Next; got != 1 {
		t.Errorf("begins at offset %d, want 1", got)
	}
	// Stopped before the first record, it begins there again and not at a later end.
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(stopped, &until{}); err != nil {
		t.Fatal(err)
	}
	r.send(0, row(2))
	if got := read(t, r.source(FormatMaxwell, func(c *Config) { c.StartAt = StartLatest }), store, 1); got[0] != "2" {
		t.Errorf("begins with row %s, want 2", got[0])
	}
}

func TestSource_RecordsThatAreGoneArePositionLost(t *testing.T) {
	r := newTopic(t, 1)
	store := &memory{}
	r.send(0, row(1), row(2))
	read(t, r.source(FormatMaxwell, nil), store, 2)
	r.send(0, row(3), row(4), row(5))
	if err := r.admin.DeleteRecords(r.topic, map[int32]int64{0: 4}); err != nil {
		t.Fatal(err)
	}
	s := r.source(FormatMaxwell, nil)
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), store); !errors.Is(err, rowtide.ErrPositionLost) {
		t.Errorf("error %v, want ErrPositionLost", err)
	}
}

func TestSource_StopsAtARecordThatCannotBeRead(t *testing.T) {
	r := newTopic(t, 1)
	r.send(0, row(1), `{"type":"insert"`, row(2))
	s := r.source(FormatMaxwell, nil)
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), &memory{}); err != nil {
		t.Fatal(err)
	}
	u := &until{n: 2, stop: func() {}}
	err := s.Run(t.Context(), u)
	if err == nil || !strings.Contains(err.Error(), "topic "+r.topic+" partition 0 offset 1") {
		t.Errorf("error %v, want topic, partition and offset", err)
	}
	if len(u.seen) != 1 {
		t.Errorf("handed over %v, want what is before it", u.seen)
	}
}

func TestSource_PreflightRefusals(t *testing.T) {
	r := newTopic(t, 2)
	for _, tt := range []struct {
		name, format string
		change       func(*Config)
		want         string
	}{
		{"canal over two partitions", FormatCanal, nil, "source.keyed"},
		{"a topic that is not there", FormatMaxwell, func(c *Config) { c.Topics = []string{"nowhere_" + r.topic} }, "nowhere_"},
		{"no broker", FormatMaxwell, func(c *Config) { c.Brokers = []string{"127.0.0.1:1"} }, "source.brokers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := r.source(tt.format, tt.change).Preflight(t.Context())
			if !errors.Is(err, ErrPreflight) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrPreflight with %q", err, tt.want)
			}
		})
	}
	for format, change := range map[string]func(*Config){FormatCanal: func(c *Config) { c.Keyed = true }, FormatDebezium: nil} {
		if err := r.source(format, change).Preflight(t.Context()); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// An epoch below the checkpoint's would make everything look old; a higher one
// begins at the checkpoint's place and forgets the positions before it.
func TestSource_EpochOnlyGrows(t *testing.T) {
	r := newTopic(t, 1)
	store := &memory{}
	r.send(0, row(500))
	read(t, r.source(FormatMaxwell, func(c *Config) { c.Epoch = 5 }), store, 1)
	s := r.source(FormatMaxwell, func(c *Config) { c.Epoch = 4 })
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), store); err == nil || !strings.Contains(err.Error(), "source.epoch 4") {
		t.Errorf("error %v, want a refusal of the lower epoch", err)
	}
	r.send(0, strings.Replace(row(1), `"ts":100`, `"ts":900`, 1)) // a lower position, later
	s = r.source(FormatMaxwell, func(c *Config) { c.Epoch = 5 })
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), &until{n: 9, stop: func() {}}); !errors.Is(err, ErrPositionsRestart) {
		t.Errorf("error %v, want ErrPositionsRestart also after a restart", err)
	}
	if got := read(t, r.source(FormatMaxwell, func(c *Config) { c.Epoch = 6 }), store, 1); got[0] != "1" {
		t.Errorf("epoch 6 begins with row %s, want 1", got[0])
	}
}

func TestSource_StopsWhenATopicGrows(t *testing.T) {
	r := newTopic(t, 1)
	s := r.source(FormatMaxwell, nil)
	s.recount = 20 * time.Millisecond
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	store := &memory{}
	if _, err := s.Resume(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if err := r.admin.CreatePartitions(r.topic, 2, nil, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Run(ctx, &until{n: 1, stop: func() {}}); err == nil || !strings.Contains(err.Error(), "start again") {
		t.Fatalf("error %v, want one with the remedy", err)
	}
	r.send(1, row(1))
	if got := read(t, r.source(FormatMaxwell, nil), store, 1); got[0] != "1" {
		t.Errorf("the new partition begins with row %s, want 1", got[0])
	}
}

// A handler that blocks holds the reading back: what waits in memory is bounded by
// what the client fetched ahead.
func TestSource_BackPressure(t *testing.T) {
	r := newTopic(t, 1)
	for i := range 20 {
		r.send(0, row(i))
	}
	s := r.source(FormatMaxwell, nil)
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := s.Resume(t.Context(), &memory{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan string, 20)
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, handlerFunc(func(ctx context.Context, tx *rowtide.Tx) error {
			blocked <- tx.Position.String()
			<-ctx.Done()
			return ctx.Err()
		}))
	}()
	select {
	case <-blocked:
	case err := <-done:
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v, want nil", err)
	}
	if len(blocked) != 0 || p.Current().Partitions[r.topic+":0"].Next != 0 {
		t.Errorf("went on behind a handler that blocks: %d more, checkpoint %v", len(blocked), p.Current().Partitions)
	}
}

// A broker that is away is waited for: the source says so, says when it is back
// (also when nothing new is there) and goes on where it was.
func TestSource_WaitsForABrokerThatIsAway(t *testing.T) {
	kafka, err := testenv.StartKafka(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kafka.Stop(context.Background()) })
	r := newTopicAt(t, kafka.Brokers(), 2)
	s := r.source(FormatMaxwell, nil)
	l := &links{up: make(chan struct{}, 9), down: make(chan error, 9)}
	s.obs = l
	if err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), &memory{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, done := make(chan string, 9), make(chan error, 1)
	go func() {
		done <- s.Run(ctx, handlerFunc(func(_ context.Context, tx *rowtide.Tx) error {
			seen <- fmt.Sprint(tx.Changes[0].After[0])
			return nil
		}))
	}()
	await := func(what string, got bool) {
		t.Helper()
		if !got {
			t.Fatalf("no %s within a minute", what)
		}
	}
	await("connection", wait(ctx, l.up))
	r.send(0, row(1))
	await("change", wait(ctx, seen))
	if err := kafka.Kill(); err != nil {
		t.Fatal(err)
	}
	await("word of the loss", wait(ctx, l.down))
	if err := kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await("word of the return", wait(ctx, l.up))
	r.send(1, row(2))
	await("change after the return", wait(ctx, seen))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v, want nil", err)
	}
	if len(seen) != 0 {
		t.Errorf("%d changes came twice", len(seen))
	}
}
