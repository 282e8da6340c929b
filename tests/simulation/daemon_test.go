package simulation

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/publisher"
)

// daemon joins the real stages as cmd/rowtide does: aggregator, publisher, and the
// watch for failovers that fences the checkpoint.
type daemon struct {
	w     *world
	dice  *dice
	rdb   *redis.Client
	watch *publisher.Failover[int]
	agg   *aggregator.Aggregator
	bus   *publisher.Kafka
	hints *publisher.Hints
	from  int
	term  uint64
	mod   *aggregator.Module
}

var (
	errKilled = errors.New("killed")
	busConfig = publisher.Config{Topic: "t"}.WithDefaults()
)

// compile makes the module; every other world pushes values.
func (w *world) compile(space uint16) []*aggregator.Module {
	mods, err := aggregator.Compile([]aggregator.ModuleConfig{{
		Name: module, Version: space, Key: "{id}", TTL: time.Hour, Push: w.seed%2 == 0, From: &aggregator.FromConfig{Table: table.String(), Columns: []string{"id", "seq"}},
	}})
	if err != nil {
		panic(err)
	}
	return mods
}

// runDaemon starts a daemon again and again until the world ends.
func (w *world) runDaemon() {
	d := w.dice(diceDaemon)
	for w.life.Err() == nil {
		w.trace.note(everyKey, "daemon starts", -1, 0, 0)
		one := &daemon{w: w, dice: d, rdb: w.redis.client(d, 0, byDaemon)}
		err := one.open()
		if err == nil {
			err = one.run()
		}
		var lost *publisher.RewoundError[int]
		switch {
		case errors.As(err, &lost):
			w.trace.note(everyKey, "daemon: redis lost writes", -1, 0, 0)
			if lost.Point != nil {
				ignore(one.rdb.Set(w.life, saved, *lost.Point, 0).Err())
			}
		case errors.Is(err, errKilled):
			w.trace.note(everyKey, "daemon is killed", -1, 0, 0)
		}
		one.rdb.Close()
		pass(d.between(w.downFor))
	}
}

// ignore drops an error on purpose: whoever gets it tries again, or dies.
func ignore(error) {}

// elect raises the term, as cmd's lease does. Whoever was elected before is a zombie
// from here on, if it is not dead.
func (d *daemon) elect(ctx context.Context) error {
	former, err := d.rdb.Get(ctx, termKey).Uint64()
	if err != nil {
		return err
	}
	d.term = former + 1
	if err := d.rdb.Set(ctx, termKey, d.term, 0).Err(); err != nil {
		return err
	}
	d.w.deposed.Store(former)
	return nil
}

func (d *daemon) open() error {
	ctx := d.w.life
	if err := d.elect(ctx); err != nil {
		return err
	}
	d.watch = publisher.NewFailover[int](d.rdb, quiet)
	if err := d.watch.Check(ctx); err != nil {
		return err
	}
	at, err := d.rdb.Get(ctx, saved).Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	d.from = at
	if d.w.off.repair {
		d.from = max(at, d.w.remembered) // as from a file, which a failover does not set back
	}
	d.bus = publisher.NewKafkaOver(busConfig, producer{t: d.w.topic}, d.w.topic.sequences(), quiet, publisher.NopObserver{})
	d.hints = publisher.NewHints(d.rdb, prefix, quiet)
	d.bus.TellBehind(func() time.Duration { return d.agg.Held() })
	store := publisher.NewRedis(d.rdb, prefix, quiet, publisher.NopObserver{},
		publisher.WithFence(termKey, d.term), publisher.WithHints(d.hints), publisher.WithForewarning(d.bus.Forewarn))
	sink := aggregator.Sink(publisher.New(store, d.bus))
	if d.w.off.order {
		sink = &hasty{Sink: sink, w: d.w}
	}
	mods := d.w.compile(spaceAt(d.w.bumps, d.w.now()))
	d.mod = mods[0]
	d.announce()
	d.agg = aggregator.New(aggregator.Config{}.WithDefaults(), mods, aggregator.Outside{Sink: sink, Checkpoint: d}, quiet, aggregator.NopObserver{})
	if d.w.remembered > at { // only a failover sets it back
		d.agg.Hold(d.w.db.version(d.w.remembered))
	}
	return nil
}

// run works until it is killed or fails; a kill waits for nothing.
func (d *daemon) run() error {
	ctx, kill := context.WithCancelCause(d.w.life)
	defer kill(nil)
	life := min(d.dice.gap(d.w.killEvery), untilNext(d.w.bumps, d.w.now()))
	defer time.AfterFunc(life, func() { kill(errKilled) }).Stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.follow(ctx) })
	g.Go(func() error { return d.agg.Run(ctx) })
	g.Go(func() error { return d.bus.Run(ctx) })
	g.Go(func() error { return d.hints.Run(ctx) })
	g.Go(func() error { return d.watch.Run(ctx) })
	err := g.Wait()
	if errors.Is(context.Cause(ctx), errKilled) {
		return errKilled
	}
	return err
}

// follow reads the log.
func (d *daemon) follow(ctx context.Context) error {
	for at := d.from; ; {
		es := d.w.db.after(at)
		if len(es) == 0 {
			select {
			case <-d.w.db.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			pass(d.dice.upTo(4 * time.Millisecond)) // from the source to us
			continue
		}
		for _, e := range es {
			if e.mass {
				d.raise(e)
			}
			if err := d.agg.HandleTx(ctx, e.tx); err != nil {
				return err
			}
			at = e.seq
			if d.w.off.checkpoint {
				ignore(d.rdb.Set(ctx, saved, at, 0).Err())
			}
		}
	}
}

// Save implements aggregator.Checkpointer like cmd's fenced store: only while no
// primary has lost what it acknowledged.
func (d *daemon) Save(ctx context.Context, last rowtide.Position, _ []string) error {
	seq, err := strconv.Atoi(last.GTID)
	if err != nil {
		return err
	}
	for {
		if err = d.save(ctx, seq); !errors.Is(err, errDown) {
			return err
		}
		pass(20 * time.Millisecond)
	}
}

func (d *daemon) save(ctx context.Context, seq int) error {
	if d.w.off.checkpoint {
		return nil // follow has saved more than that
	}
	if err := d.watch.Check(ctx); err != nil {
		return err
	}
	if err := d.rdb.Set(ctx, saved, seq, 0).Err(); err != nil {
		return err
	}
	d.w.remembered = max(d.w.remembered, seq)
	d.watch.Saved(seq)
	return nil
}

// zombie is the daemon that was elected before the one at work, and thought dead: it
// wakes up with a flush in its hands and goes on with it.
type zombie struct {
	w     *world
	dice  *dice
	rdb   *redis.Client
	kafka *publisher.Kafka
	turn  chan struct{}
}

func newZombie(w *world) *zombie {
	d := w.dice(diceZombie)
	return &zombie{
		w: w, dice: d, turn: make(chan struct{}, 1), rdb: w.redis.client(d, 0, byZombie),
		kafka: publisher.NewKafkaOver(busConfig, producer{t: w.topic}, make([]uint64, w.partitions), quiet, publisher.NopObserver{}),
	}
}

// later writes and broadcasts e's changes under the term of the zombie's election;
// every other time they were written before it fell asleep.
func (z *zombie) later(e *event, d time.Duration) {
	term, wrote, space := z.w.deposed.Load(), z.dice.chance(0.5), uint16(z.w.space.Load())
	z.w.wg.Go(func() {
		pass(d)
		z.turn <- struct{}{}
		defer func() { <-z.turn }()
		var out []rowtide.Entry
		for i := range e.tx.Changes {
			out = append(out, entryOf(e, i, space))
			z.w.trace.note(e.ids[i], "zombie", -1, e.seq, e.tx.Version)
		}
		r := publisher.NewRedis(z.rdb, prefix, quiet, publisher.NopObserver{}, publisher.WithFence(termKey, term))
		if wrote || r.Overwrite(z.w.life, out) == nil {
			ignore(z.kafka.Broadcast(z.w.life, out, e.tx.Version-1, e.tx.CommittedAt))
		}
	})
}

func entryOf(e *event, i int, space uint16) rowtide.Entry {
	out := rowtide.Entry{Key: keyIn(e.ids[i], space), Version: e.tx.Version, BuiltAt: e.tx.CommittedAt, TTL: time.Hour}
	if after := e.tx.Changes[i].After; after == nil {
		out.Flags, out.TTL = rowtide.FlagEmpty|rowtide.FlagDeleted, 10*time.Minute
	} else {
		out.Payload = payloadOf(after[0].(int64), after[1].(int64))
	}
	return out
}
