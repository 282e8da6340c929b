package localsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/overwrite"
)

// Cache is one node's caches: the local store that all modules share, the way to
// Redis, and the bus that turns the store over. Modules are made with
// [NewModule]. It is safe for use by many goroutines.
type Cache struct {
	opt        Options
	bus        Bus
	partitions int32       // by which keys are divided into parts; settled at Open
	parts      []partition // of the keys
	layout     atomic.Pointer[layout]
	laying     sync.Mutex // one change of layout at a time
	store      *store
	remote     *remote
	leases     *leases
	marks      marks
	bs         busStats
	hintedAt   atomic.Int64 // when the last hint came
	clock      clock
	instance   uint64 // tells nodes of one name apart
	ready      chan struct{}

	life    context.Context // ends when Close stops waiting for loads
	end     context.CancelFunc
	stopBus context.CancelFunc
	busDone chan struct{}

	// mu orders the setting of closed against spawn, so that no flight starts
	// once Close waits. What a flight starts goes to wg directly.
	mu     sync.Mutex
	closed atomic.Bool
	wg     sync.WaitGroup // flights, loader calls, Redis calls

	modules  atomic.Pointer[map[moduleID]*core]
	controls map[string]announced // what the daemon said last, by module; mu guards it

	closeOnce sync.Once
	closeErr  error
}

type moduleID struct {
	name    string
	version uint16
}

// Open connects a node. It returns once Redis has answered, every partition of
// the topic is pinned at its present end and delivery runs. The errors name the
// address and what to do; Options.Away can put waiting or serving in their place.
// The caller closes the cache, not the Redis client.
func Open(ctx context.Context, opt Options) (*Cache, error) {
	opt = opt.WithDefaults()
	if err := opt.Validate(); err != nil {
		return nil, fmt.Errorf("open localsync: %w", err)
	}
	bus := opt.Bus
	if bus == nil {
		bus = newKafkaBus(&opt)
	}
	var c *Cache
	open := func(ctx context.Context) error {
		if err := ping(ctx, opt.Redis); err != nil {
			return err
		}
		// The bus before the store: whatever is read from now on is either newer than
		// the pinned ends or will be invalidated by what follows them (race R11).
		_, err := connect(ctx, bus, func(n int32) *Cache {
			c = newCache(opt, bus, n)
			c.repartition(n, false)
			return c
		})
		return err
	}
	var err error
	switch opt.Away {
	case AwayFail:
		err = open(ctx)
	case AwayWait:
		err = persist(ctx, &opt, open)
	case AwayDegraded:
		c = newCache(opt, bus, unknownPartitions)
	}
	if err != nil {
		return nil, fmt.Errorf("open localsync: %w", err)
	}
	opt.Observer.Opened(c)
	c.run()
	return c, nil
}

// newCache makes a cache that has not heard of any partition yet.
func newCache(opt Options, bus Bus, partitions int32) *Cache {
	c := &Cache{
		opt: opt, bus: bus, partitions: partitions,
		clock: clock{start: opt.Now()}, instance: rand.Uint64(), ready: make(chan struct{}), busDone: make(chan struct{}),
	}
	if !opt.realTime {
		c.clock.own = opt.Now
	}
	c.hintedAt.Store(int64(-time.Second)) // none yet
	c.parts = newPartitions(partitions, int64(-opt.Silence)-1)
	c.layout.Store(&layout{})
	c.marks.lag = opt.ReplicaLag
	c.modules.Store(&map[moduleID]*core{})
	c.controls = map[string]announced{}
	c.life, c.end = context.WithCancel(context.Background())
	c.remote = &remote{
		rdb: opt.Redis, script: redis.NewScript(overwrite.Script), lease: redis.NewScript(leaseScript),
		timeout: opt.RedisTimeout, now: c.now, spawn: c.wg.Go,
	}
	c.leases = newLeases(c)
	c.store = newStore(&opt, c.parts, c.now())
	return c
}

func (c *Cache) run() {
	ctx, stop := context.WithCancel(c.life)
	c.stopBus = stop
	if c.opt.ReportEvery > 0 {
		c.wg.Go(func() { (&reporter{c: c}).run(ctx) })
	}
	c.wg.Go(func() { c.hearHints(ctx) })
	if b, ok := c.bus.(*kafkaBus); ok {
		b.ahead = c.hintsCome
	}
	go func() {
		defer close(c.busDone)
		if c.opt.Away == AwayDegraded && !c.reach(ctx) {
			return
		}
		close(c.ready)
		if err := c.bus.Run(ctx, intake{c}); err != nil && ctx.Err() == nil {
			// Nothing will be heard again: reads notice the silence by themselves.
			c.opt.Logger.Error("bus gave up; the node is degraded until restarted", "error", err)
		}
	}()
}

// now is nanoseconds since Open, monotonic.
func (c *Cache) now() int64 { return c.clock.now() }

// Ready is closed when the node hears the bus: from then on no change is missed
// without being noticed. It says nothing about the daemon's health (Stats does), and
// stays open if the cache is closed before.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// spawn starts a flight, which Close waits for; false once closed.
func (c *Cache) spawn(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	c.wg.Go(fn)
	return true
}

// Close ends the node's part: reads return ErrClosed, delivery stops, loads that
// are under way may finish until ctx ends and are then cancelled. It returns
// ctx's error if a load or a connection outlived it. Further calls wait for the
// first and return the same.
func (c *Cache) Close(ctx context.Context) error {
	c.closeOnce.Do(func() { c.closeErr = c.close(ctx) })
	return c.closeErr
}

func (c *Cache) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed.Store(true)
	c.mu.Unlock()

	// Delivery first: nothing needs to be newer any more.
	c.stopBus()
	err := within(ctx, "the bus", func() error {
		<-c.busDone
		return c.bus.Close()
	})
	err = errors.Join(err, within(ctx, "loads", func() error {
		c.wg.Wait()
		return nil
	}))
	c.end()
	return errors.Join(err, within(ctx, "the subscription", func() error {
		c.leases.wakes.close()
		return nil
	}))
}

// within waits for what is left to end, but not beyond ctx. What a client library
// is still waiting for then ends by its own timeouts.
func within(ctx context.Context, what string, wait func() error) error {
	done := make(chan error, 1)
	go func() { done <- wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // it had ended before
		return err
	default:
		return fmt.Errorf("close localsync: %s still running: %w", what, ctx.Err())
	}
}

func ping(ctx context.Context, rdb redis.UniversalClient) error {
	if err := rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("reach redis at %s: %w; is it running, and are address, user and password right?", redisAddr(rdb), err)
	}
	return nil
}

func redisAddr(rdb redis.UniversalClient) string {
	switch r := rdb.(type) {
	case *redis.Client:
		return r.Options().Addr
	case *redis.ClusterClient:
		return fmt.Sprint(r.Options().Addrs)
	}
	return "the given address"
}
