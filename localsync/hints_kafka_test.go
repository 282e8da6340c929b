package localsync_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/localsync"
)

// hintedBus is a node on a broker that counts its fetches. Hints come all the time.
func hintedBus(t *testing.T) (b *broker, h *heard, fetches *atomic.Int64) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	fetches = &atomic.Int64{}
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		fetches.Add(1)
		return nil, nil, false
	})
	b = newBroker(t, k.ListenAddrs(), topic)
	b.create(1)
	h = &heard{applied: make(chan rowtide.Version, 10_000), suspect: make(chan error, 100)}
	rdb := smallRedis(t)
	c := openKafka(t, localsync.Options{Redis: rdb, Brokers: k.ListenAddrs(), Observer: h, ReportEvery: -1, ControlTopic: "none"})
	tell(t, rdb)
	eventually(t, "a hint", func() bool { return c.Stats().Bus.Hinted > 0 })
	return b, h, fetches
}

// tell gives hints until the test's end.
func tell(t *testing.T, rdb *redis.Client) {
	t.Helper()
	r := rowtide.Batch{Items: []rowtide.Invalidation{{Key: eventKey(9), Version: 1}}}
	record := r.AppendBatch(nil)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				rdb.Publish(t.Context(), hints.Channel(rdb, "rowtide"), record)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
}

// Sixteen nodes that fetch after each of 500 broadcasts a second are most of what a
// broker does. Those that have heard it already may wait for the next.
func TestHints_NodesThatHaveThemFetchLessOften(t *testing.T) {
	b, h, fetches := hintedBus(t)
	before, began := fetches.Load(), time.Now()
	const sends = 400
	for v := range rowtide.Version(sends) {
		b.invalidate(0, v+1)
		<-time.After(time.Millisecond)
	}
	h.want(t, 1)
	for range sends - 1 {
		<-h.applied
	}
	// One for each pause, and some at the edges.
	most := int64(time.Since(began)/(25*time.Millisecond)) + 10
	if got := fetches.Load() - before; got > most {
		t.Errorf("%d fetches for %d records, want at most %d", got, sends, most)
	}
}

// What has piled up is taken without a pause.
func TestHints_BacklogIsTakenAtFullSpeed(t *testing.T) {
	b, h, _ := hintedBus(t)
	const backlog = 5000
	var all []*sarama.ProducerMessage
	for n := range uint64(backlog) {
		r := rowtide.Batch{Producer: 7, Sequence: n + 1, SentAt: time.Now(), Items: []rowtide.Invalidation{{Key: eventKey(1), Version: rowtide.Version(n + 1)}}}
		all = append(all, &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(r.AppendBatch(nil))})
	}
	if err := b.producer.SendMessages(all); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := range rowtide.Version(backlog) {
		h.want(t, n+1)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("%d records took %s", backlog, took)
	}
}
