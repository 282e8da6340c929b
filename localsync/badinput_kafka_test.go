package localsync_test

import (
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

func TestPartitions_AddedToTheTopicAreFollowed(t *testing.T) { partitionsAdded(t, fakeKafka(t), topic) }

func TestPartitions_TopicMadeAnewWithFewerIsFollowed(t *testing.T) {
	madeAnewWithFewer(t, fakeKafka(t), topic)
}

// hasty looks for another number of partitions every 100 ms.
func hasty(t *testing.T, brokers []string, topic string, h *heard) *localsync.Cache {
	t.Helper()
	return openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: brokers, Topic: topic, Observer: h, Silence: 300 * time.Millisecond})
}

func wantResized(t *testing.T, c *localsync.Cache, h *heard, partitions int) {
	t.Helper()
	select {
	case err := <-h.suspect:
		t.Log(err)
	case <-time.After(patience):
		t.Fatal("the change went unseen")
	}
	eventually(t, "the new number is told", func() bool { return c.Stats().Bus.Partitions == partitions })
	if s := c.Stats().Bus; s.Resized == 0 {
		t.Fatalf("%+v, want the change counted", s)
	}
}

// hears sends the key's invalidations as a daemon does that counts n partitions,
// one key to each, and waits until the node has applied them.
func (b *broker) hears(t *testing.T, h *heard, n int32, v rowtide.Version) {
	t.Helper()
	told := map[int32]bool{}
	for id := int64(0); len(told) < int(n); id++ {
		p := eventKey(id).Partition(n)
		if told[p] {
			continue
		}
		told[p] = true
		b.send(p, rowtide.Invalidation{Key: eventKey(id), Version: v})
		h.want(t, v)
	}
}

func partitionsAdded(t *testing.T, brokers []string, topic string) {
	b := newBroker(t, brokers, topic)
	b.create(2)
	h := newHeard()
	c := hasty(t, brokers, topic, h)
	b.hears(t, h, 2, 10)
	if err := b.admin.CreatePartitions(topic, 5, nil, false); err != nil {
		t.Fatal(err)
	}
	wantResized(t, c, h, 5)
	newBroker(t, brokers, topic).hears(t, h, 5, 20) // as a daemon that restarted
}

func madeAnewWithFewer(t *testing.T, brokers []string, topic string) {
	b := newBroker(t, brokers, topic)
	b.create(4)
	h := newHeard()
	c := hasty(t, brokers, topic, h)
	b.hears(t, h, 4, 10)
	if err := b.admin.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic can be made anew", func() bool {
		return b.admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false) == nil
	})
	eventually(t, "the new number is told", func() bool { return c.Stats().Bus.Partitions == 2 })
	wantResized(t, c, h, 2)
	b = newBroker(t, brokers, topic) // as a daemon that restarted
	// A record that came before the node went on from the new ends is made up for by
	// the doubt; from some moment on all are heard.
	eventually(t, "both partitions are heard", func() bool {
		for p := range int32(2) {
			b.send(p)
		}
		for _, p := range c.Stats().Bus.ByPartition {
			if p.Silent {
				return false
			}
		}
		return true
	})
	for v := rowtide.Version(20); v < 22; v++ {
		b.hears(t, h, 2, v)
	}
}
