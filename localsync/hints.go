package localsync

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
	"github.com/rowtide/rowtide/internal/hints"
)

// hearHints takes in news of changes that Redis passes on ahead of the bus, until ctx
// ends. Nothing depends on them (ADR 0022): go-redis subscribes again after failures,
// and what is missed meanwhile the bus tells.
func (c *Cache) hearHints(ctx context.Context) {
	if _, cluster := c.opt.Redis.(*redis.ClusterClient); cluster || c.opt.NoHints {
		return // in a cluster the daemon gives none
	}
	channel := hints.Channel(c.opt.Redis, c.opt.Prefix)
	wait := backoff.New(time.Second, time.Minute)
	for told := false; ctx.Err() == nil; {
		ps := c.opt.Redis.Subscribe(ctx, channel)
		stop := context.AfterFunc(ctx, func() { _ = ps.Close() })
		_, err := ps.ReceiveTimeout(ctx, c.opt.RedisTimeout)
		if err == nil {
			wait.Reset()
			for msg := range ps.Channel() {
				c.hint([]byte(msg.Payload))
			}
		} else if !told && strings.HasPrefix(err.Error(), "NOPERM") {
			told = true
			c.opt.Logger.Warn("redis does not let this user subscribe; changes are heard some milliseconds later, over the bus alone",
				"channel", channel, "error", err, "remedy", "docs/operations.md, Redis rights")
		}
		stop()
		_ = ps.Close()
		if wait.Wait(ctx) != nil {
			return
		}
	}
}

// hintsCome reports whether they do at present.
func (c *Cache) hintsCome() bool { return c.now()-c.hintedAt.Load() < int64(time.Second) }

// hint raises floors, and nothing else: it may be older than what the bus has told, or
// tell of what the bus is about to, and must not stand for either. So the worst that
// it does is a look at Redis.
func (c *Cache) hint(record []byte) {
	b, err := rowtide.DecodeBatch(record)
	if err != nil {
		return // of a newer daemon; the bus has more to say about that
	}
	now := c.now()
	c.hintedAt.Store(now)
	for i := range b.Items {
		c.raise(&b.Items[i], now)
		c.bs.hinted.Add(1)
		c.opt.Observer.Hinted(b.Items[i])
	}
}
