package simulation

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var errDown = errors.New("dial: connection refused")

// wire stands in for the network between a client and memRedis.
type wire struct {
	r      *memRedis
	dice   *dice
	pauses float64
	by     int
	seen   map[string]glimpse // off.look
}

// Who asks, beside the nodes.
const (
	byDaemon = -1
	byZombie = -2
)

// client is a go-redis client that never dials.
func (r *memRedis) client(d *dice, pauses float64, by int) *redis.Client {
	rdb := redis.NewClient(&redis.Options{
		Addr: "memory:0", MaxRetries: -1, Protocol: 2, DisableIdentity: true,
		// Only subscriptions get here: what Publish tells goes by a real channel.
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return r.channels.Dial() },
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}, // starts a goroutine
	})
	rdb.AddHook(wire{r, d, pauses, by, map[string]glimpse{}})
	return rdb
}

func (wire) DialHook(next redis.DialHook) redis.DialHook { return next }

func (w wire) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error { return w.call(cmd) }
}

func (w wire) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error { return w.call(cmds...) }
}

// call is one round trip: the commands run together in its middle.
func (w wire) call(cmds ...redis.Cmder) error {
	world := w.r.w
	pass(w.dice.upTo(world.redisTime))
	var first error
	w.r.mu.Lock()
	down := world.now() < w.r.down
	for _, cmd := range cmds {
		err := errDown
		if !down {
			err = w.r.do(cmd, w.by)
			w.spoil(cmd)
		}
		if cmd.SetErr(err); err != nil && first == nil {
			first = err
		}
	}
	w.r.mu.Unlock()
	back := w.dice.upTo(world.redisTime)
	if w.pauses > 0 && w.dice.chance(w.pauses) {
		back += w.dice.upTo(world.redisPause)
	}
	pass(back)
	return first
}

// The checkpoint's key and the term's; they share the fate of the data.
const (
	saved   = prefix + ":checkpoint"
	termKey = prefix + ":term:{main}"
)
