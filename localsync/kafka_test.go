package localsync_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const topic = "rowtide.invalidations"

// heard passes on what the bus brings, as signals.
type heard struct {
	localsync.NopObserver
	applied chan rowtide.Version
	suspect chan error
}

func newHeard() *heard {
	return &heard{applied: make(chan rowtide.Version, 100), suspect: make(chan error, 100)}
}

func (h *heard) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) { h.applied <- inv.Version }

func (h *heard) Suspect(_ int32, cause error) { h.suspect <- cause }

func (h *heard) want(t *testing.T, v rowtide.Version) {
	t.Helper()
	select {
	case got := <-h.applied:
		if got != v {
			t.Fatalf("heard %d, want %d", got, v)
		}
	case <-time.After(patience):
		t.Fatalf("waited %v to hear %d", patience, v)
	}
}

type broker struct {
	t        *testing.T
	brokers  []string
	topic    string
	admin    sarama.ClusterAdmin
	producer sarama.SyncProducer

	mu       sync.Mutex
	sequence map[int32]uint64
}

func newBroker(t *testing.T, brokers []string, topic string) *broker {
	t.Helper()
	conf := sarama.NewConfig()
	conf.Producer.Return.Successes = true
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Retry.Max = 50
	b := &broker{t: t, brokers: brokers, topic: topic, sequence: map[int32]uint64{}}
	var err error
	if b.admin, err = sarama.NewClusterAdmin(brokers, conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.admin.Close() })
	if b.producer, err = sarama.NewSyncProducer(brokers, conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.producer.Close() })
	return b
}

func (b *broker) create(partitions int32) {
	b.t.Helper()
	err := b.admin.CreateTopic(b.topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false)
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) send(part int32, items ...rowtide.Invalidation) {
	b.t.Helper()
	if err := b.produce(part, items...); err != nil {
		b.t.Fatal(err)
	}
}

// skip makes the partition lack a record.
func (b *broker) skip(part int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence[part]++
}

func (b *broker) produce(part int32, items ...rowtide.Invalidation) error {
	b.mu.Lock() // in the order of the sequence
	defer b.mu.Unlock()
	if len(items) > 0 {
		b.sequence[part]++
	}
	r := rowtide.Batch{Producer: 7, Sequence: b.sequence[part], Watermark: 1, SentAt: time.Now(), Items: items}
	_, _, err := b.producer.SendMessage(&sarama.ProducerMessage{
		Topic: b.topic, Partition: part, Value: sarama.ByteEncoder(r.AppendBatch(nil)),
	})
	return err
}

func (b *broker) invalidate(part int32, v rowtide.Version) {
	b.t.Helper()
	b.send(part, rowtide.Invalidation{Key: eventKey(1), Version: v})
}

func fakeKafka(t *testing.T) []string {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k.ListenAddrs()
}

func silentLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func smallRedis(t *testing.T) *redis.Client {
	t.Helper()
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func openKafka(t *testing.T, opt localsync.Options) *localsync.Cache {
	t.Helper()
	opt.MaxBytes, opt.Logger = 1<<20, silentLog()
	c, err := localsync.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	await(t, "ready", c.Ready())
	return c
}

func TestKafka_DeliversEveryPartitionFromItsPinnedEnd(t *testing.T) {
	brokers := fakeKafka(t)
	b := newBroker(t, brokers, topic)
	b.create(3)
	for p := range int32(3) {
		b.invalidate(p, 1) // before the pin: not ours
	}
	h := newHeard()
	c := openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: brokers, Observer: h})
	for p := range int32(3) {
		b.invalidate(p, rowtide.Version(10+p))
		h.want(t, rowtide.Version(10+p))
	}
	if s := c.Stats().Bus; s.Partitions != 3 || s.Applied != 3 || s.Gaps != 0 {
		t.Fatalf("%+v, want three partitions, three applied, no gap", s)
	}
}

// record writes one record of the control topic.
func (b *broker) record(topic, key string, value []byte) {
	b.t.Helper()
	_, _, err := b.producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value)})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) generation(n uint32) {
	b.t.Helper()
	c := rowtide.ModuleControl{Name: "event", Generation: n}
	b.record("rowtide.control", c.Name, c.AppendControl(nil))
}

func wantGeneration(t *testing.T, c *localsync.Cache, n uint32) {
	t.Helper()
	eventually(t, "the generation is known", func() bool { return c.Stats().Modules[0].Generation == n })
}

func declare(t *testing.T, c *localsync.Cache) {
	t.Helper()
	if _, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}), nil); err != nil {
		t.Fatal(err)
	}
}

func TestKafka_ControlTopicIsReadFromItsStartAndFollowed(t *testing.T) {
	brokers := fakeKafka(t)
	b := newBroker(t, brokers, topic)
	b.create(1)
	if err := b.admin.CreateTopic("rowtide.control", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	for n := range uint32(5) {
		b.generation(n)
	}
	c := openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: brokers})
	declare(t, c)
	if got := c.Stats().Modules[0].Generation; got != 4 {
		t.Fatalf("generation %d at once, want 4", got)
	}
	b.generation(5)
	wantGeneration(t, c, 5)
	// Made anew, as by an operator: read from its new start.
	if err := b.admin.DeleteTopic("rowtide.control"); err != nil {
		t.Fatal(err)
	}
	if err := b.admin.CreateTopic("rowtide.control", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	b.generation(6)
	wantGeneration(t, c, 6)
}

func TestKafka_ControlTopicThatComesLaterIsFound(t *testing.T) {
	brokers := fakeKafka(t)
	b := newBroker(t, brokers, topic)
	b.create(1)
	began := time.Now()
	c := openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: brokers})
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("Open took %s without a control topic", took)
	}
	declare(t, c)
	if err := b.admin.CreateTopic("rowtide.control", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	b.generation(1)
	wantGeneration(t, c, 1)
}

// The topic is made anew: our offset lies past its end. What was kept before is
// suspect, and delivery goes on.
func TestKafka_OffsetOutOfRangeTurnsSuspectAndGoesOn(t *testing.T) {
	brokers := fakeKafka(t)
	b := newBroker(t, brokers, topic)
	b.create(1)
	for v := range rowtide.Version(5) {
		b.invalidate(0, v+1)
	}
	h := newHeard()
	openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: brokers, Observer: h})
	if err := b.admin.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	b.create(1)
	select {
	case err := <-h.suspect:
		if !errors.Is(err, sarama.ErrOffsetOutOfRange) {
			t.Fatalf("suspect because of %v, want offset out of range", err)
		}
	case <-time.After(patience):
		t.Fatal("never suspect")
	}
	b.invalidate(0, 50)
	h.want(t, 50)
}

func TestOpen_TopicMissing(t *testing.T) {
	brokers := fakeKafka(t)
	_, err := localsync.Open(t.Context(), localsync.Options{Redis: smallRedis(t), Brokers: brokers, Topic: "nope", Logger: silentLog()})
	if !errors.Is(err, localsync.ErrTopicMissing) || !strings.Contains(err.Error(), "daemon creates it") || !strings.Contains(err.Error(), `"nope"`) {
		t.Fatalf("got %v, want ErrTopicMissing with the remedy", err)
	}
}

// deadAddr is an address that refuses connections.
func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestOpen_KafkaAway(t *testing.T) {
	addr := deadAddr(t)
	_, err := localsync.Open(t.Context(), localsync.Options{Redis: smallRedis(t), Brokers: []string{addr}, Logger: silentLog()})
	if err == nil || !strings.Contains(err.Error(), "reach kafka at ["+addr+"]") || !strings.Contains(err.Error(), "is it running") {
		t.Fatalf("got %v, want the address and the remedy", err)
	}
}

func TestOpen_RedisAway(t *testing.T) {
	addr := deadAddr(t)
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	bus := newFakeBus()
	_, err := localsync.Open(t.Context(), localsync.Options{Redis: rdb, Bus: bus})
	if err == nil || !strings.Contains(err.Error(), "reach redis at "+addr) || !strings.Contains(err.Error(), "is it running") {
		t.Fatalf("got %v, want the address and the remedy", err)
	}
}
