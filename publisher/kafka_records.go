package publisher

import (
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
)

// One record is bounded in items and in bytes before compression: well below the
// broker's default limit of 1 MB. A topic with a lower limit lowers ours.
const (
	maxRecordItems = 4000
	maxRecordBytes = 256 << 10
	recordBytes    = 48 // a record without items
	itemBytes      = 20 // an item without its texts, at most
)

// MaxPush is the largest value, in bytes, that travels with an invalidation.
const MaxPush = 1 << 10

// records makes one record per partition (more only when one would grow too
// large), with the partition's next sequence.
func (k *Kafka) records(entries []rowtide.Entry, watermark rowtide.Version, oldest, now time.Time) []*sarama.ProducerMessage {
	n := int32(len(k.sequence)) //nolint:gosec // partitions are counted in int32
	byPart := make([][]rowtide.Invalidation, n)
	size := make([]int, n)
	var out []*sarama.ProducerMessage
	behind := k.behind()
	flush := func(p int32) {
		k.sequence[p]++
		b := rowtide.Batch{
			Producer: k.producer[p], Sequence: k.sequence[p], Watermark: k.known(p, watermark), SentAt: now, CommittedAt: oldest, Behind: behind, Items: byPart[p],
		}
		out = append(out, k.message(p, &b, size[p]))
		byPart[p], size[p] = nil, 0
	}
	for i := range entries {
		inv := k.invalidation(&entries[i])
		p, bytes := inv.Key.Partition(n), itemSize(&inv)
		if len(byPart[p]) > 0 && recordBytes+size[p]+bytes > k.limit {
			flush(p)
		}
		if byPart[p] == nil {
			byPart[p] = make([]rowtide.Invalidation, 0, min(len(entries)*5/4/len(byPart)+4, maxRecordItems))
		}
		byPart[p] = append(byPart[p], inv)
		size[p] += bytes
		if len(byPart[p]) == maxRecordItems {
			flush(p)
		}
	}
	for p := range n {
		if len(byPart[p]) > 0 {
			flush(p)
		}
	}
	return out
}

// invalidation announces an entry, with its value where the module asks for it
// and it fits.
func (k *Kafka) invalidation(e *rowtide.Entry) rowtide.Invalidation {
	inv := rowtide.Invalidation{Key: e.Key, Version: e.Version, Empty: e.Empty()}
	if pushed(e) {
		inv.Value = e.Payload
		if recordBytes+itemSize(&inv) > k.limit {
			inv.Value = nil // nodes read Redis, as without push
		}
	}
	return inv
}

// pushed reports whether an entry's value is to travel with its invalidation.
func pushed(e *rowtide.Entry) bool { return e.Push && !e.Empty() && len(e.Payload) <= MaxPush }

// itemSize is an item's length in the record, or a little more.
func itemSize(i *rowtide.Invalidation) int {
	return itemBytes + len(i.Key.Module) + len(i.Key.ID) + len(i.Value)
}

func (k *Kafka) message(p int32, b *rowtide.Batch, size int) *sarama.ProducerMessage {
	return &sarama.ProducerMessage{Topic: k.cfg.Topic, Partition: p, Value: sarama.ByteEncoder(b.AppendBatch(make([]byte, 0, recordBytes+size)))}
}

// refusal is a message that the topic does not take for its size. It is not
// repeated as it is.
type refusal struct{ msg *sarama.ProducerMessage }

func (r *refusal) Error() string {
	return fmt.Sprintf("topic %s refuses a record of %d bytes", r.msg.Topic, r.msg.Value.Length())
}

// refused finds the smallest message in err that was refused for its size.
func refused(err error) *refusal {
	var all sarama.ProducerErrors
	if !errors.As(err, &all) {
		return nil
	}
	var found *refusal
	for _, one := range all {
		var client sarama.ConfigurationError // sarama's own limit, Producer.MaxMessageBytes
		if !errors.Is(one.Err, sarama.ErrMessageSizeTooLarge) && !errors.As(one.Err, &client) {
			continue
		}
		if found == nil || one.Msg.Value.Length() < found.msg.Value.Length() {
			found = &refusal{one.Msg}
		}
	}
	return found
}

// shrink makes the next records small enough to try again, or says that nothing
// more can be done: records are halved, then a lone value is left out.
func (k *Kafka) shrink(r *refusal) error {
	bytes := r.msg.Value.Length()
	b, err := rowtide.DecodeBatch(r.msg.Value.(sarama.ByteEncoder))
	if err != nil {
		return err
	}
	switch {
	case len(b.Items) > 1:
		k.limit = min(k.limit-1, bytes/2)
	case b.Items[0].Value != nil:
		k.limit = min(k.limit-1, bytes-1)
	default:
		return fmt.Errorf("%w: one invalidation, of %s: raise max.message.bytes of the topic, nothing was skipped", r, b.Items[0].Key)
	}
	k.log.Warn("topic refuses records for their size, sending smaller ones from now on; raise its max.message.bytes to 1 MB",
		"topic", k.cfg.Topic, "refused_bytes", bytes, "limit_bytes", k.limit)
	return nil
}
