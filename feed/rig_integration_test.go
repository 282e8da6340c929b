//go:build integration

package feed

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// topicRig is a topic of its own and who writes to it.
type topicRig struct {
	t        *testing.T
	brokers  []string
	topic    string
	producer sarama.SyncProducer
	admin    sarama.ClusterAdmin
}

func newTopic(t *testing.T, partitions int32) *topicRig {
	t.Helper()
	return newTopicAt(t, testenv.Kafka(t), partitions)
}

func newTopicAt(t *testing.T, brokers []string, partitions int32) *topicRig {
	t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Return.Successes = true
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := sarama.NewClient(brokers, cfg)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	r := &topicRig{t: t, brokers: brokers, topic: testenv.UniqueName(t, "feed"), admin: admin}
	if err := admin.CreateTopic(r.topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	if r.producer, err = sarama.NewSyncProducerFromClient(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.producer.Close(); _ = admin.DeleteTopic(r.topic); _ = client.Close() })
	return r
}

func (r *topicRig) send(partition int32, values ...string) {
	r.t.Helper()
	for _, v := range values {
		if _, _, err := r.producer.SendMessage(&sarama.ProducerMessage{Topic: r.topic, Partition: partition, Value: sarama.StringEncoder(v)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *topicRig) source(format string, change func(*Config)) *Source {
	r.t.Helper()
	cfg := Config{Format: format, Brokers: r.brokers, Topics: []string{r.topic}}.WithDefaults()
	if change != nil {
		change(&cfg)
	}
	s := New(cfg, []string{"shop.event"}, slog.New(slog.DiscardHandler), NopObserver{})
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

// until collects what a source hands over and stops it after n changes. The
// positions of all of them are acknowledged.
type until struct {
	n    int
	stop context.CancelFunc
	ids  []string
	seen []string
}

func (u *until) HandleTx(_ context.Context, tx *rowtide.Tx) error {
	u.ids = append(u.ids, tx.Position.GTID)
	for _, c := range tx.Changes {
		u.seen = append(u.seen, fmt.Sprint(c.After[0]))
	}
	if len(u.seen) >= u.n {
		u.stop()
	}
	return nil
}

// read runs a source until it has handed over n changes.
func read(t *testing.T, s *Source, store Store, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Preflight(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := s.Resume(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	u := &until{n: n, stop: cancel}
	if err := s.Run(ctx, u); err != nil {
		t.Fatal(err)
	}
	if len(u.seen) < n {
		t.Fatalf("%d changes in 30 s, want %d", len(u.seen), n)
	}
	if err := p.Save(t.Context(), rowtide.Position{}, u.ids); err != nil {
		t.Fatal(err)
	}
	return u.seen
}

func row(id int) string {
	return maxwellRow(id, fmt.Sprintf(`,"position":"b.000001:%d"`, 100+id))
}

type handlerFunc func(context.Context, *rowtide.Tx) error

func (f handlerFunc) HandleTx(ctx context.Context, tx *rowtide.Tx) error { return f(ctx, tx) }

// links notes what a source says of its connection.
type links struct {
	NopObserver
	up   chan struct{}
	down chan error
}

func (l *links) Connected()             { l.up <- struct{}{} }
func (l *links) Disconnected(err error) { l.down <- err }

func wait[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}
