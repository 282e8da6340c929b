//go:build integration

package publisher_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// again is the next run of the daemon on the same topic.
func (p *topic) again() *publisher.Kafka {
	p.t.Helper()
	bus, err := publisher.NewKafka(p.cfg, p.client, quiet(), p.obs)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return bus
}

// onPartition is n entries with ids from first on that belong to one partition.
func onPartition(part, partitions int32, n int, v rowtide.Version) []rowtide.Entry {
	var out []rowtide.Entry
	for id := 0; len(out) < n; id++ {
		if e := entry(id, v); e.Key.Partition(partitions) == part {
			out = append(out, e)
		}
	}
	return out
}

func TestKafka_SequenceGoesOnAfterARestart(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 3)
	busy, quietPart := onPartition(0, 3, 1, 1), onPartition(1, 3, 1, 2)
	for range 5 {
		p.broadcast(testContext(t), busy, 1)
	}
	began := time.Now()
	second := p.again()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("reading three partitions took %s", took)
	}
	zombie := p.again() // both go on from the same record
	for _, bus := range []*publisher.Kafka{second, second, zombie, second} {
		if err := bus.Broadcast(testContext(t), append(busy, quietPart...), 2, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	type told struct {
		base, sequence uint64
	}
	got := map[int32][]told{}
	runs := map[int32]map[uint64]bool{}
	for part, batches := range p.records() {
		runs[part] = map[uint64]bool{}
		for _, b := range batches {
			got[part] = append(got[part], told{rowtide.ProducerBase(b.Producer), b.Sequence})
			runs[part][b.Producer] = true
		}
	}
	want := []told{{0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {5, 6}, {5, 7}, {5, 6}, {5, 8}}
	if len(got[0]) != len(want) || len(runs[0]) != 3 {
		t.Fatalf("records %v of %d producers, want %v of 3", got[0], len(runs[0]), want)
	}
	for i, w := range want {
		if got[0][i] != w {
			t.Errorf("records %v, want %v", got[0], want)
			break
		}
	}
	if len(got[1]) != 4 || got[1][0] != (told{0, 1}) || len(got[2]) != 0 {
		t.Errorf("the partitions that were empty have %v and %v, want 4 from 1 on, and none", got[1], got[2])
	}
}

func TestKafka_UnreadableLastRecordStartsItsPartitionAnew(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 1)
	p.broadcast(testContext(t), onPartition(0, 1, 1, 1), 1)
	foreign, err := sarama.NewSyncProducerFromClient(p.client)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if _, _, err := foreign.SendMessage(&sarama.ProducerMessage{Topic: p.cfg.Topic, Value: sarama.StringEncoder("who goes there")}); err != nil {
		t.Fatal(err)
	}
	bus := p.again()
	if err := bus.Broadcast(testContext(t), onPartition(0, 1, 1, 2), 2, time.Time{}); err != nil {
		t.Fatal(err)
	}
	var last rowtide.Batch
	p.raw(func(m *sarama.ConsumerMessage) {
		if b, err := rowtide.DecodeBatch(m.Value); err == nil {
			last = b
		}
	})
	if last.Sequence != 1 || rowtide.ProducerBase(last.Producer) != 0 {
		t.Errorf("sequence %d from base %d, want 1 from 0", last.Sequence, rowtide.ProducerBase(last.Producer))
	}
}

func TestNewKafka_LeaderAwayIsAnErrorInTime(t *testing.T) {
	fake, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := openTopic(t, fake.Brokers(), 1)
	p.broadcast(testContext(t), onPartition(0, 1, 1, 1), 1)
	fake.Close()
	_, err = publisher.NewKafka(p.cfg, p.client, quiet(), p.obs)
	if err == nil || !strings.Contains(err.Error(), "read partition 0 of topic "+p.cfg.Topic) || !strings.Contains(err.Error(), "are its brokers up") {
		t.Errorf("err=%v, want the partition and the remedy", err)
	}
}

func TestKafka_PushSendsSmallValues(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 2)
	small, limit, large, unasked, gone, none := entry("small", 1), entry("limit", 1), entry("large", 1), entry("unasked", 1), entry("gone", 1), entry("none", 1)
	limit.Payload = []byte(strings.Repeat("x", publisher.MaxPush))
	large.Payload = []byte(strings.Repeat("x", publisher.MaxPush+1))
	gone.Flags, gone.Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
	none.Payload = []byte{}
	for _, e := range []*rowtide.Entry{&small, &limit, &large, &gone, &none} {
		e.Push = true
	}
	all := []rowtide.Entry{small, limit, large, unasked, gone, none}
	p.broadcast(testContext(t), all, 1)
	got := map[string][]byte{}
	for _, batches := range p.checkBus(all) {
		for _, b := range batches {
			for _, i := range b.Items {
				got[i.Key.ID] = i.Value
			}
		}
	}
	for _, tt := range []struct {
		e    rowtide.Entry
		want bool
	}{{small, true}, {limit, true}, {large, false}, {unasked, false}, {gone, false}, {none, true}} {
		v := got[tt.e.Key.ID]
		if (v != nil) != tt.want || tt.want && string(v) != string(tt.e.Payload) {
			t.Errorf("%s: value of %d bytes, want one: %t", tt.e.Key.ID, len(v), tt.want)
		}
	}
}

// A flush of pushed values is bounded in bytes, not only in items.
func TestKafka_PushedValuesCountForTheSizeOfARecord(t *testing.T) {
	p := openTopic(t, testenv.Kafka(t), 1)
	var all []rowtide.Entry
	for n := range 1000 {
		e := entry(n, 5)
		e.Push, e.Payload = true, []byte(strings.Repeat("x", publisher.MaxPush))
		all = append(all, e)
	}
	p.broadcast(testContext(t), all, 5)
	p.checkBus(all)
	n := 0
	p.raw(func(m *sarama.ConsumerMessage) {
		if n++; len(m.Value) > 256<<10 {
			t.Errorf("a record of %d bytes", len(m.Value))
		}
	})
	if n != 5 {
		t.Errorf("%d records, want 5", n)
	}
}

// small is a topic that takes few bytes.
func small(t *testing.T, maxBytes string) *topic {
	t.Helper()
	return openTopicWith(t, testenv.Kafka(t), 2, map[string]*string{"max.message.bytes": &maxBytes})
}

func TestKafka_TopicWithASmallLimitGetsSmallRecords(t *testing.T) {
	p := small(t, "3000")
	var all []rowtide.Entry
	for n := range 9000 {
		all = append(all, entry(n, 5))
	}
	p.broadcast(testContext(t), all, 5)
	more := []rowtide.Entry{entry(1, 6), entry(2, 6)}
	p.broadcast(testContext(t), more, 6)
	p.checkBus(append(all, more...))
}

func TestKafka_ValueTooLargeForTheTopicIsLeftOut(t *testing.T) {
	p := small(t, "700")
	fits, large := entry("fits", 1), entry("large", 1)
	for _, e := range []*rowtide.Entry{&fits, &large} {
		e.Push = true
	}
	large.Payload = noise(1000)
	p.broadcast(testContext(t), []rowtide.Entry{large, fits}, 1)
	for _, batches := range p.checkBus([]rowtide.Entry{large, fits}) {
		for _, b := range batches {
			for _, i := range b.Items {
				if has := i.Value != nil; has != (i.Key.ID == "fits") {
					t.Errorf("%s has a value: %t", i.Key.ID, has)
				}
			}
		}
	}
}

func TestKafka_InvalidationTooLargeIsAnErrorThatNamesTheRemedy(t *testing.T) {
	p := small(t, "500")
	first := entry("first", 1)
	p.broadcast(testContext(t), []rowtide.Entry{first}, 1)
	e := entry(string(noise(2000)), 2)
	err := p.bus.Broadcast(testContext(t), []rowtide.Entry{e}, 2, time.Time{})
	if err == nil || !strings.Contains(err.Error(), "topic "+p.cfg.Topic+" refuses a record of ") || !strings.Contains(err.Error(), "raise max.message.bytes of the topic") {
		t.Errorf("err=%v, want the topic and the remedy", err)
	}
	p.checkBus([]rowtide.Entry{first}) // nothing is announced as there that is not
}

// noise is what no codec makes smaller.
func noise(n int) []byte {
	out, x := make([]byte, n), uint32(1)
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[x>>16%62]
	}
	return out
}

// Kafka away for a minute (ROWTIDE_TEST_OUTAGE=10m makes it ten): what feeds the
// publisher is held back with bounded memory, and all goes on by itself.
func TestKafka_LongOutageHoldsTheSourceBackAndIsCaughtUp(t *testing.T) {
	if testenv.Degraded("kafka") {
		t.Skip("Apache Kafka could not be installed on this machine")
	}
	server, err := testenv.StartKafka(testContext(t), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(t.Context()) })
	p := openTopic(t, server.Brokers(), 3)
	beating := make(chan error, 1)
	go func() { beating <- p.bus.Run(t.Context()) }()

	// The aggregator's part: flushes of 1,000 entries, one after the other, fed
	// from a queue that is as bounded as aggregator.max_pending.
	queue := make(chan []rowtide.Entry, 4)
	done := make(chan error, 1)
	fed := 0
	go func() {
		for flush := range queue {
			if err := p.bus.Broadcast(t.Context(), flush, flush[0].Version, time.Time{}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var all []rowtide.Entry
	feed := func() (sent bool) {
		n := fed
		var flush []rowtide.Entry
		for i := range 1000 {
			flush = append(flush, entry(n*1000+i, rowtide.Version(n+1)))
		}
		select {
		case queue <- flush:
			fed++
			all = append(all, flush...)
			return true
		case <-time.After(time.Second):
			return false
		}
	}
	for range 20 {
		feed()
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for feed() {
		if fed > 1000 {
			t.Fatal("never held back")
		}
	}
	if err := signal(t, "the outage", p.obs.kafka); err == nil {
		t.Error("all-clear before the outage")
	}
	before, held := heap(), fed
	end := time.After(testenv.Outage())
	for away := true; away; {
		select {
		case <-end:
			away = false
		default:
			if feed() {
				t.Fatal("fed while Kafka is away and the queue is full")
			}
		}
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("heap grew from %d to %d bytes during the outage", before, after)
	}
	if err := server.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the all-clear", p.obs.kafka); err != nil {
		t.Errorf("told %v, want the all-clear", err)
	}
	for fed < held+20 {
		feed()
	}
	close(queue)
	if err := signal(t, "the last flush", done); err != nil {
		t.Fatal(err)
	}
	p.checkBus(all)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
