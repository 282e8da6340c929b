//go:build integration

package publisher_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

func TestMain(m *testing.M) {
	sarama.Logger = log.New(io.Discard, "", 0)
	goleak.VerifyTestMain(m,
		// sarama's metrics library starts one ticker per process and never ends it.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
		// Sarama's breakers sleep their ten seconds whatever has become of the producer.
		goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
}

const patience = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// observer counts, and signals when the other side goes away or comes back.
type observer struct {
	mu    sync.Mutex
	wrote map[overwrite.Result]int
	told  int
	redis chan error
	kafka chan error
}

func newObserver() *observer {
	return &observer{wrote: map[overwrite.Result]int{}, redis: make(chan error, 100), kafka: make(chan error, 100)}
}

func (o *observer) Overwrote(_ string, r overwrite.Result, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wrote[r] += n
}

func (o *observer) Broadcast(n int, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told += n
}

func (o *observer) RedisAway(err error) { o.redis <- err }
func (o *observer) KafkaAway(err error) { o.kafka <- err }

func (o *observer) count(r overwrite.Result) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wrote[r]
}

// signal waits for the next word of a channel of the observer.
func signal(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
		return nil
	}
}

func entry(id any, v rowtide.Version) rowtide.Entry {
	return rowtide.Entry{
		Key: rowtide.Key{Module: "event", Version: 1, ID: fmt.Sprint(id)}, Version: v, BuiltAt: time.UnixMilli(1).UTC(), TTL: time.Hour,
		Payload: fmt.Appendf(nil, `{"v":%d}`, v),
	}
}

func dial(t *testing.T, opts *redis.Options) *redis.Client {
	t.Helper()
	opts.MaxRetries = -1
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func privateRedis(t *testing.T, o testenv.Options) *testenv.RedisServer {
	t.Helper()
	s, err := testenv.StartRedis(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

// holds demands that a key holds this version.
func holds(t *testing.T, rdb *redis.Client, prefix string, k rowtide.Key, want rowtide.Version) {
	t.Helper()
	b, err := rdb.Get(testContext(t), k.Redis(prefix)).Bytes()
	if err != nil {
		t.Fatalf("%s: %v", k, err)
	}
	e, err := rowtide.DecodeEnvelope(k, b)
	if err != nil || e.Version != want {
		t.Errorf("%s holds version %d, %v; want %d", k, e.Version, err, want)
	}
}

// topic is a bus of the test's own with a producer on it.
type topic struct {
	t      *testing.T
	cfg    publisher.Config
	client sarama.Client
	bus    *publisher.Kafka
	obs    *observer
}

func openTopic(t *testing.T, brokers []string, partitions int32) *topic {
	t.Helper()
	return openTopicWith(t, brokers, partitions, nil)
}

// openTopicWith opens a topic that has these settings.
func openTopicWith(t *testing.T, brokers []string, partitions int32, settings map[string]*string) *topic {
	t.Helper()
	cfg := publisher.Config{Brokers: brokers, Topic: testenv.UniqueName(t, "k"), Partitions: partitions, Heartbeat: 20 * time.Millisecond}.WithDefaults()
	sc := publisher.ProducerConfig()
	sc.Producer.Retry.Max = 2 // so that the publisher's own repeating is seen
	sc.Producer.Retry.Backoff = 20 * time.Millisecond
	sc.Metadata.Retry.Backoff = 20 * time.Millisecond
	sc.Metadata.Retry.Max = 1
	client, err := sarama.NewClient(brokers, sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if settings != nil {
		admin, err := sarama.NewClusterAdminFromClient(client)
		if err != nil {
			t.Fatal(err)
		}
		if err := admin.CreateTopic(cfg.Topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: -1, ConfigEntries: settings}, false); err != nil {
			t.Fatal(err)
		}
	}
	n, err := publisher.EnsureTopic(client, cfg)
	if err != nil || n != partitions {
		t.Fatalf("topic with %d partitions, %v; want %d", n, err, partitions)
	}
	obs := newObserver()
	bus, err := publisher.NewKafka(cfg, client, quiet(), obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return &topic{t: t, cfg: cfg, client: client, bus: bus, obs: obs}
}

// records reads everything that is in the topic now, by partition.
func (p *topic) records() map[int32][]rowtide.Batch {
	p.t.Helper()
	out := map[int32][]rowtide.Batch{}
	p.raw(func(m *sarama.ConsumerMessage) {
		b, err := rowtide.DecodeBatch(m.Value)
		if err != nil {
			p.t.Fatal(err)
		}
		out[m.Partition] = append(out[m.Partition], b)
	})
	return out
}

// raw calls fn with every record that is in the topic now.
func (p *topic) raw(fn func(*sarama.ConsumerMessage)) {
	p.t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient(p.cfg.Brokers, cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		p.t.Fatal(err)
	}
	defer consumer.Close()
	for part := range p.cfg.Partitions {
		end, err := client.GetOffset(p.cfg.Topic, part, sarama.OffsetNewest)
		if err != nil {
			p.t.Fatal(err)
		}
		if end == 0 {
			continue
		}
		pc, err := consumer.ConsumePartition(p.cfg.Topic, part, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		for at := int64(0); at < end; {
			select {
			case m := <-pc.Messages():
				fn(m)
				at = m.Offset + 1
			case <-time.After(patience):
				p.t.Fatalf("partition %d: no record at offset %d of %d", part, at, end)
			}
		}
		pc.Close()
	}
}

// checkBus demands what a node relies on: data sequences dense from 1 and in
// order (a repeat of an earlier one is harmless), heartbeats that never announce
// what is not there, and every entry somewhere.
func (p *topic) checkBus(want []rowtide.Entry) map[int32][]rowtide.Batch {
	p.t.Helper()
	all := p.records()
	type told struct {
		key     rowtide.Key
		version rowtide.Version
		empty   bool
	}
	got := map[told]bool{}
	for part, batches := range all {
		var next uint64 = 1
		var producer uint64
		for i, b := range batches {
			if producer == 0 {
				producer = b.Producer
			}
			if b.Producer != producer {
				p.t.Errorf("partition %d: producer %d after %d", part, b.Producer, producer)
			}
			if b.Heartbeat() {
				if b.Sequence >= next {
					p.t.Errorf("partition %d record %d: heartbeat of sequence %d, but only %d is there", part, i, b.Sequence, next-1)
				}
				continue
			}
			if b.Sequence > next {
				p.t.Errorf("partition %d record %d: sequence %d, want %d", part, i, b.Sequence, next)
			}
			next = max(next, b.Sequence+1)
			for _, item := range b.Items {
				if item.Key.Partition(p.cfg.Partitions) != part {
					p.t.Errorf("%s is in partition %d", item.Key, part)
				}
				got[told{item.Key, item.Version, item.Empty}] = true
			}
		}
	}
	for _, e := range want {
		if !got[told{e.Key, e.Version, e.Empty()}] {
			p.t.Errorf("%s at %s was never announced", e.Key, e.Version)
		}
	}
	return all
}
