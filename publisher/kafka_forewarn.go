package publisher

import (
	"context"
	"slices"
	"time"

	"github.com/rowtide/rowtide"
)

// earlyWaiting bounds the flushes to forewarn of.
const earlyWaiting = 64

// Forewarn announces entries that Redis does not take for now: their keys and versions,
// for nodes to know that what Redis holds of them is old (race R22). It does not block;
// [Kafka.Run] sends, and while too many wait, further ones are left out: records say
// that the daemon is behind all the same. Broadcast must follow once Redis has them.
func (k *Kafka) Forewarn(entries []rowtide.Entry) {
	bare := slices.Clone(entries)
	for i := range bare {
		bare[i].Push, bare[i].Payload = false, nil
	}
	select {
	case k.early <- bare:
	default:
	}
}

// forewarn sends what Forewarn was given until ctx ends.
func (k *Kafka) forewarn(ctx context.Context) {
	for {
		select {
		case entries := <-k.early:
			if err := k.ahead(ctx, entries); err != nil && ctx.Err() == nil {
				k.log.Warn("nodes could not be told of what redis does not take", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// ahead announces entries with the watermark of the broadcast before.
func (k *Kafka) ahead(ctx context.Context, entries []rowtide.Entry) error {
	if err := k.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer k.turn.Release(1)
	k.mu.Lock()
	watermark := k.watermark
	k.mu.Unlock()
	return k.tell(ctx, entries, watermark, time.Time{})
}
