package publisher

import (
	"context"
	"math/rand/v2"

	"github.com/rowtide/rowtide"
)

// Share makes k one of several broadcasters that share the partitions, one owner
// each. From then on it sends heartbeats only in those that it has claimed, and
// tells the watermarks that Applied gives, not those of Broadcast. It must precede
// Run and Broadcast.
func (k *Kafka) Share() { k.claimed = map[int32]rowtide.Version{} }

// Claim makes the partition ours, with nothing known to be applied. It reads the
// partition's last record and goes on with its sequence, so that nodes see no gap
// between two owners. It waits for a Broadcast that is under way.
func (k *Kafka) Claim(ctx context.Context, partition int32) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	sequence, err := lastSequences(ctx, k.client, k.cfg.Topic, []int32{partition}, k.log)
	if err != nil {
		return err
	}
	if err := k.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer k.turn.Release(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.claimed[partition] = 0
	k.sequence[partition], k.acked[partition] = sequence[0], sequence[0]
	k.producer[partition] = rowtide.NewProducer(rand.Uint32(), sequence[0]) //nolint:gosec // a label, not a secret
	return nil
}

// Applied says that every transaction up to watermark is in Redis and in records,
// as far as the partition's keys are concerned.
func (k *Kafka) Applied(partition int32, watermark rowtide.Version) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ours := k.claimed[partition]; ours {
		k.claimed[partition] = max(old, watermark)
	}
}

// Release gives the partition up.
func (k *Kafka) Release(partition int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.claimed, partition)
}

// mark is the watermark to tell in a partition, and whether the partition is ours;
// k.mu is held.
func (k *Kafka) mark(partition int32, common rowtide.Version) (rowtide.Version, bool) {
	if k.claimed == nil {
		return common, true
	}
	own, ours := k.claimed[partition]
	return own, ours
}

// known is mark for a record of a broadcast.
func (k *Kafka) known(partition int32, common rowtide.Version) rowtide.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	own, _ := k.mark(partition, common)
	return own
}
