package simulation

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
)

// topic is the log of the invalidations.
type topic struct {
	w    *world
	dice *dice

	mu    sync.Mutex
	parts []logPart
	buses map[*nodeBus]bool
}

type logPart struct {
	first   int // offset of records[0]
	records []record
}

type record struct {
	at    time.Duration
	bytes []byte
}

func newTopic(w *world) *topic {
	return &topic{w: w, dice: w.dice(diceKafka), parts: make([]logPart, w.partitions), buses: map[*nodeBus]bool{}}
}

func (p *logPart) end() int { return p.first + len(p.records) }

func (t *topic) append(part int32, bytes []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.w.now()
	p := &t.parts[part]
	p.records = append(p.records, record{now, bytes})
	if len(p.records) > 1000 && p.records[500].at < now-keepStates {
		p.records, p.first = slices.Clone(p.records[500:]), p.first+500
	}
	t.ring()
}

// ring wakes the nodes; mu is held.
func (t *topic) ring() {
	for b := range t.buses {
		b.ring()
	}
}

// ends are the offsets behind the last records.
func (t *topic) ends() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]int, len(t.parts))
	for i := range t.parts {
		out[i] = t.parts[i].end()
	}
	return out
}

// fetch gives up to most records of a partition from an offset on.
func (t *topic) fetch(part int32, from, most int) ([]record, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.parts[part]
	if from < p.first {
		return nil, false
	}
	rest := p.records[from-p.first:]
	return slices.Clone(rest[:min(most, len(rest))]), true
}

// sequences are those of the last records, as publisher.NewKafka reads them.
func (t *topic) sequences() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]uint64, len(t.parts))
	for i := range t.parts {
		if n := len(t.parts[i].records); n > 0 {
			b, err := rowtide.DecodeBatch(t.parts[i].records[n-1].bytes)
			if err != nil {
				panic(err)
			}
			out[i] = b.Sequence
		}
	}
	return out
}

// producer is the library's side of publisher.Kafka. What it does not implement
// is not used.
type producer struct {
	sarama.SyncProducer
	t *topic
}

var errNoAck = errors.New("the acknowledgement is lost")

// SendMessage implements sarama.SyncProducer.
func (p producer) SendMessage(m *sarama.ProducerMessage) (int32, int64, error) {
	return m.Partition, 0, p.SendMessages([]*sarama.ProducerMessage{m})
}

// SendMessages implements sarama.SyncProducer.
func (p producer) SendMessages(ms []*sarama.ProducerMessage) error {
	pass(p.t.dice.upTo(p.t.w.sendTime))
	for _, m := range ms {
		p.t.append(m.Partition, m.Value.(sarama.ByteEncoder))
	}
	pass(p.t.dice.upTo(p.t.w.sendTime))
	if p.t.dice.chance(p.t.w.acksLost) {
		return errNoAck
	}
	return nil
}

// Close implements sarama.SyncProducer.
func (producer) Close() error { return nil }
