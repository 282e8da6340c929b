package localsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide/internal/backoff"
)

// Away says what [Open] does while Redis or the bus cannot be used: unreachable,
// no right, no topic yet.
type Away uint8

const (
	// AwayFail has Open return the error.
	AwayFail Away = iota + 1
	// AwayWait has Open try again until its context ends, and log what it waits for.
	AwayWait
	// AwayDegraded has Open return at once and look for the bus behind the readers.
	// Until it is found (Ready), the node is as one whose bus is silent: reads say
	// Degraded, an entry is checked against Redis once it is older than MaxStale,
	// and what a loader gives stays on this node. Then all that was kept so far is
	// checked before it is trusted.
	AwayDegraded
)

// The pauses between attempts to reach what was away at Open.
const (
	reachAgain     = 250 * time.Millisecond
	reachAgainMost = 5 * time.Second
)

// persist calls try until it succeeds, and returns its last error together with
// ctx's once ctx ends. It logs an error when it is another than the one before.
func persist(ctx context.Context, opt *Options, try func(context.Context) error) error {
	wait := backoff.New(reachAgain, reachAgainMost)
	for said := ""; ; {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			opt.Logger.Warn("trying again until it can be reached", "error", err)
		}
		if ended := wait.Wait(ctx); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

// connect pins the bus, and takes over what the daemon said of its modules into
// the cache that pinned gives. After an error the bus is closed.
func connect(ctx context.Context, bus Bus, pinned func(partitions int32) *Cache) (partitions int32, err error) {
	n, err := bus.Open(ctx)
	if err != nil {
		return 0, err
	}
	if n < 1 {
		return 0, errors.Join(fmt.Errorf("bus has %d partitions", n), bus.Close())
	}
	c := pinned(n)
	if cb, ok := bus.(ControlBus); ok {
		if err := cb.Control(ctx, c.control); err != nil {
			return 0, errors.Join(err, bus.Close())
		}
	}
	return n, nil
}

// reach waits for the bus that was away at Open; false when ctx ended first.
func (c *Cache) reach(ctx context.Context) bool {
	err := persist(ctx, &c.opt, func(ctx context.Context) error {
		n, err := connect(ctx, c.bus, func(int32) *Cache { return c })
		if err != nil {
			return err
		}
		// After the pin: what was kept before may have missed a change (race R11).
		c.repartition(n, false)
		return nil
	})
	if err != nil {
		return false
	}
	c.opt.Logger.Info("bus is reached; the node is no longer degraded")
	return true
}
