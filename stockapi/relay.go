package stockapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// Relay moves events from the outboxes in Redis to Kafka, per cell in order. A
// cell's events are in Kafka before its mark in Redis says so, and nothing above
// the mark is ever trimmed; so a crash anywhere repeats events and loses none.
//
// Two relays on one Redis are safe: each sends a cell's events in order from an
// acknowledged place, so the first occurrence of an event always follows that of
// the one before, and readers drop what they have.
type Relay struct {
	cfg  Config
	deps Deps
	base *sarama.Config
	lua  *scripts

	// afterSend is a test's way to crash between the acknowledgement of Kafka and
	// the mark in Redis.
	afterSend func(Batch) error
}

// NewRelay returns a Relay. It does no I/O. base may be nil, see SaramaConfig.
func NewRelay(cfg Config, deps Deps, base *sarama.Config) (*Relay, error) {
	cfg = cfg.WithDefaults()
	if err := errors.Join(cfg.Validate(), cfg.needBrokers()); err != nil {
		return nil, err
	}
	if deps.Redis == nil {
		return nil, errors.New("stock: relay: no redis client")
	}
	return &Relay{
		cfg: cfg, deps: deps.withDefaults(), base: base, lua: newScripts(),
		afterSend: func(Batch) error { return nil },
	}, nil
}

// Run relays every loaded event, also those loaded later, until ctx is done; then
// it returns nil. Kafka or Redis being away makes it wait. It returns an error only
// for what waiting cannot mend: an outbox entry that it cannot read.
func (r *Relay) Run(ctx context.Context) (err error) {
	client, err := openKafka(ctx, r.cfg, r.base, func(err error) { r.deps.Observer.RelayFailed(Cell{}, err) })
	if err != nil {
		return nil // only ctx ends the attempts
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		running := make(map[Cell]bool)
		tick := time.NewTicker(r.cfg.DiscoverEvery)
		defer tick.Stop()
		for {
			list, err := cells(gctx, r.deps, r.cfg.Prefix)
			if err != nil && gctx.Err() == nil {
				r.deps.Observer.RelayFailed(Cell{}, err)
			}
			for _, c := range list {
				if !running[c] {
					running[c] = true
					g.Go(func() error { return r.runCell(gctx, client, c) })
				}
			}
			select {
			case <-gctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return g.Wait()
}

// runCell relays one cell until ctx is done. Whatever fails, it begins again from
// the mark in Redis with a new producer: an idempotent producer that has given up
// on a message is in no state to go on.
func (r *Relay) runCell(ctx context.Context, client sarama.Client, c Cell) error {
	wait := backoff{min: 50 * time.Millisecond, max: kafkaTimeout}
	failing := false
	for ctx.Err() == nil {
		err := r.relayCell(ctx, client, c, func() {
			wait.reset()
			if failing {
				r.deps.Logger.Info("relay works again", "cell", c.String())
			}
			failing = false
		})
		if ctx.Err() != nil {
			break // the fault is the stop's
		}
		switch {
		case errors.Is(err, ErrBadEvent):
			return fmt.Errorf("relay %s: %w", c, err)
		case !failing:
			r.deps.Logger.Warn("relay is failing; events wait in the outbox", "cell", c.String(), "error", err)
		}
		failing = true
		r.deps.Observer.RelayFailed(c, err)
		wait.wait(ctx)
	}
	return nil //nolint:nilerr // what fails because of the stop is no fault
}

// relayCell returns at the first fault; sent is called after each acknowledged run.
func (r *Relay) relayCell(ctx context.Context, client sarama.Client, c Cell, sent func()) (err error) {
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return fmt.Errorf("start producer: %w", err)
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	k := keysOf(r.cfg.Prefix, c)
	from, err := r.published(ctx, k)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		entries, err := r.read(ctx, k, from)
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		if len(entries) == 0 {
			// The mark may have moved: forward by a second relay, back by a Redis that
			// lost writes, whose new events would never be above our own idea of it.
			if from, err = r.published(ctx, k); err != nil {
				return err
			}
		}
		for len(entries) > 0 && ctx.Err() == nil {
			start := time.Now()
			b, n, err := batchOf(c, entries)
			if err != nil {
				return err
			}
			if err := r.send(producer, c, b); err != nil {
				return err
			}
			from = mark{b.Epoch, b.Events[n-1].Seq}
			pending, err := r.publish(ctx, k, from)
			if err != nil {
				return err
			}
			r.deps.Observer.Relayed(c, n, pending, time.Since(start))
			sent()
			entries = entries[n:]
		}
	}
	return ctx.Err()
}

// published is the mark: the newest event that Kafka has acknowledged.
func (r *Relay) published(ctx context.Context, k cellKeys) (mark, error) {
	s, err := r.deps.Redis.HGet(ctx, k.meta(), "pub").Result()
	if errors.Is(err, redis.Nil) {
		return mark{}, nil // registered, not loaded yet
	}
	if err != nil {
		return mark{}, fmt.Errorf("read mark: %w", err)
	}
	return parseMark(s)
}

// read blocks for RelayBlock at most: go-redis does not end a blocking read when
// ctx is done.
func (r *Relay) read(ctx context.Context, k cellKeys, from mark) ([]redis.XMessage, error) {
	streams, err := r.deps.Redis.XRead(ctx, &redis.XReadArgs{
		Streams: []string{k.outbox(), from.String()}, Count: int64(r.cfg.RelayBatch), Block: r.cfg.RelayBlock,
	}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

// send returns nil once Kafka has the batch on all in-sync replicas. The next batch
// is not sent before.
func (r *Relay) send(p sarama.SyncProducer, c Cell, b Batch) error {
	value, err := EncodeBatch(b)
	if err != nil {
		return err
	}
	_, _, err = p.SendMessage(&sarama.ProducerMessage{
		Topic: r.cfg.Kafka.Topic, Key: sarama.StringEncoder(c.String()), Value: sarama.ByteEncoder(value),
	})
	if err != nil {
		return fmt.Errorf("produce %d events from seq %d: %w", len(b.Events), b.Events[0].Seq, err)
	}
	return r.afterSend(b)
}

// publish moves the mark and trims what is far enough below it.
func (r *Relay) publish(ctx context.Context, k cellKeys, to mark) (pending int64, err error) {
	reply, err := run(ctx, r.deps.Redis, r.lua.publish, k.head(), to.epoch, to.seq, r.cfg.OutboxKeep)
	if err == nil && reply[0] != "OK" {
		err = refusal(reply)
	}
	if err != nil {
		return 0, fmt.Errorf("move mark to %s: %w", to, err)
	}
	return atoi(reply[1])
}
