package localsync

import (
	"context"
	"time"

	"github.com/IBM/sarama"
)

// watch follows the topic's number of partitions until ctx ends. Partitions are
// added by hand, and a topic that is made anew may have fewer.
func (b *kafkaBus) watch(ctx context.Context, sink Sink, start func(p int32)) {
	tick := time.NewTicker(b.recount)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := b.resize(sink, start); err != nil {
			b.log.Debug("count the topic's partitions", "topic", b.topic, "error", err)
		}
	}
}

// resize counts the partitions, and follows those that are there. Those that are
// new are pinned at their ends, and the sink hears of them only then: before, more
// could still be missed.
func (b *kafkaBus) resize(sink Sink, start func(p int32)) error {
	if err := b.client.RefreshMetadata(b.topic); err != nil {
		return err
	}
	ids, err := b.client.Partitions(b.topic)
	if err != nil || len(ids) == 0 || len(ids) == len(b.parts) {
		return err
	}
	had := len(b.parts)
	for p := int32(had); p < int32(len(ids)); p++ { //nolint:gosec // partitions are counted in int32
		if err := b.add(p); err != nil {
			b.drop(had)
			return err
		}
	}
	b.drop(len(ids))
	sink.Partitions(int32(len(ids)))      //nolint:gosec // partitions are counted in int32
	for p := had; p < len(b.parts); p++ { // none when there are fewer
		start(int32(p)) //nolint:gosec // partitions are counted in int32
	}
	return nil
}

// drop ends the following of all partitions from the nth on.
func (b *kafkaBus) drop(n int) {
	if n >= len(b.parts) {
		return
	}
	var parts []sarama.PartitionConsumer
	for _, f := range b.parts[n:] {
		if f.stop != nil { // started
			f.stop()
			<-f.done
		}
		parts = append(parts, f.pc)
	}
	closeAll(parts)
	b.parts = b.parts[:n]
}
