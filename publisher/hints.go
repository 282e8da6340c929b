package publisher

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
)

const (
	// hintMost bounds the flush that is worth a hint: in a larger one nobody waits for
	// a single row, and nodes would take in everything twice.
	hintMost = 100
	// hintWaiting bounds those that wait for Redis to take them; further ones are left
	// out.
	hintWaiting = 64
	// hintTimeout is for Redis to take them, where the client heeds deadlines; nothing is
	// told to one that does not for as long as hintPause.
	hintTimeout = time.Second
	hintPause   = time.Second
)

// Hints tell nodes of small flushes by Redis's publish and subscribe, a few
// milliseconds before Kafka does. Nobody depends on one: it may be lost, late or
// repeated, and says only that a key has at least this version, which is in Redis
// already. Entries with [rowtide.Entry.Push] have none: their values come with Kafka's
// record. See ADR 0022.
//
// The methods are safe to call on nil, which tells nothing.
type Hints struct {
	rdb     redis.UniversalClient
	channel string
	log     *slog.Logger
	waiting chan []byte
}

// NewHints makes hints for the nodes of a prefix; nil for a cluster, in which every
// message would go to all of its servers. It does no I/O.
func NewHints(rdb redis.UniversalClient, prefix string, log *slog.Logger) *Hints {
	if _, cluster := rdb.(*redis.ClusterClient); cluster {
		return nil
	}
	return &Hints{rdb: rdb, channel: hints.Channel(rdb, prefix), log: log, waiting: make(chan []byte, hintWaiting)}
}

// tell does not block.
func (h *Hints) tell(entries []rowtide.Entry) {
	if h == nil || len(entries) > hintMost || len(h.waiting) == cap(h.waiting) {
		return
	}
	b := rowtide.Batch{SentAt: time.Now()}
	for i := range entries {
		if e := &entries[i]; !pushed(e) {
			b.Items = append(b.Items, rowtide.Invalidation{Key: e.Key, Version: e.Version, Empty: e.Empty()})
		}
	}
	if len(b.Items) == 0 {
		return
	}
	select {
	case h.waiting <- b.AppendBatch(nil):
	default:
	}
}

// Run sends until ctx ends, then returns nil.
func (h *Hints) Run(ctx context.Context) error {
	if h == nil {
		return nil
	}
	for told := false; ; {
		select {
		case first := <-h.waiting:
			err := h.send(ctx, first)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if !told && strings.HasPrefix(err.Error(), "NOPERM") {
				told = true
				h.log.Warn("redis does not let this user publish; nodes hear of changes some milliseconds later, over kafka alone",
					"channel", h.channel, "err", err, "remedy", "docs/operations.md, Redis rights")
			}
			select {
			case <-time.After(hintPause):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// send takes along what else waits.
func (h *Hints) send(ctx context.Context, next []byte) error {
	ctx, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	pipe := h.rdb.Pipeline()
	for more := true; more; {
		pipe.Publish(ctx, h.channel, next)
		select {
		case next = <-h.waiting:
		default:
			more = false
		}
	}
	_, err := pipe.Exec(ctx)
	return err
}
