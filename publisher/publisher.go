package publisher

import (
	"context"
	"time"

	"github.com/rowtide/rowtide"
)

// Publisher joins the two ways out; it is what the aggregator calls a sink.
type Publisher struct {
	redis *Redis
	kafka *Kafka
}

// New joins a store and a broadcaster.
func New(r *Redis, k *Kafka) *Publisher { return &Publisher{redis: r, kafka: k} }

// Overwrite stores entries in Redis; see [Redis.Overwrite].
func (p *Publisher) Overwrite(ctx context.Context, entries []rowtide.Entry) error {
	return p.redis.Overwrite(ctx, entries)
}

// Broadcast announces entries on Kafka; see [Kafka.Broadcast].
func (p *Publisher) Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	return p.kafka.Broadcast(ctx, entries, watermark, oldest)
}
