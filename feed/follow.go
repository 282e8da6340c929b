package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// linger is how long a transaction whose end no record has told waits for its
// next record: long beside the gap between two records of one fetch.
const linger = 5 * time.Millisecond

// probeEvery is how often a partition that could not be read is asked for, to
// know that it is back even when nothing new is in it.
const probeEvery = time.Second

// follower reads one partition.
type follower struct {
	partition partition
	client    sarama.Client
	consumer  sarama.Consumer
	log       *slog.Logger
	here      *presence
	asm       *assembler

	away bool
}

// run delivers until ctx ends or a record cannot be read.
func (f *follower) run(ctx context.Context) error {
	wait := backoff.New(100*time.Millisecond, 5*time.Second)
	for {
		pc, err := f.consumer.ConsumePartition(f.partition.topic, f.partition.id, f.asm.mark.Next)
		if err == nil {
			f.back()
			err = f.deliver(ctx, pc)
			shut(pc)
			if err != nil {
				return err
			}
		}
		if lost := f.lost(err); lost != nil {
			return lost
		}
		f.gone(err)
		if wait.Wait(ctx) != nil {
			return ctx.Err()
		}
	}
}

// shut ends a partition's consumer; what was fetched ahead is dropped.
func shut(pc sarama.PartitionConsumer) {
	pc.AsyncClose()
	for range pc.Messages() {
	}
	for range pc.Errors() {
	}
}

// lost turns "no such offset" into the decision that it calls for.
func (f *follower) lost(err error) error {
	if !errors.Is(err, sarama.ErrOffsetOutOfRange) {
		return nil
	}
	return fmt.Errorf("%s at offset %d: %w: %w", f.partition.name(), f.asm.mark.Next, rowtide.ErrPositionLost, err)
}

// deliver returns nil when the library has given the partition up for now.
func (f *follower) deliver(ctx context.Context, pc sarama.PartitionConsumer) error {
	quiet := time.NewTimer(linger)
	defer quiet.Stop()
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	messages, errs := pc.Messages(), pc.Errors()
	for messages != nil || errs != nil {
		select {
		case m, ok := <-messages:
			if !ok {
				messages = nil
				continue
			}
			if f.away {
				f.back()
			}
			if err := f.asm.record(ctx, recordOf(m)); err != nil {
				return err
			}
			if f.asm.tx != nil {
				quiet.Reset(linger)
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			if lost := f.lost(err.Err); lost != nil {
				return lost
			}
			f.gone(err.Err) // the library goes on from the same offset
		case <-quiet.C:
			if err := f.asm.flush(ctx); err != nil {
				return err
			}
		case <-probe.C:
			if f.away {
				if _, err := f.client.GetOffset(f.partition.topic, f.partition.id, sarama.OffsetNewest); err == nil {
					f.back()
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func recordOf(m *sarama.ConsumerMessage) *Record {
	return &Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Timestamp}
}

func (f *follower) gone(err error) {
	if !f.away {
		f.away = true
		f.log.Warn("partition cannot be read, trying again", "partition", f.partition.name(), "err", err)
		f.here.gone(f.partition.name(), err)
	}
}

func (f *follower) back() {
	if f.away {
		f.away = false
		f.log.Info("partition is read again", "partition", f.partition.name())
	}
	f.here.back(f.partition.name())
}

// presence counts the partitions that are being read.
type presence struct {
	obs Observer
	all int

	mu      sync.Mutex
	reading map[string]bool
}

func newPresence(all int, obs Observer) *presence {
	return &presence{obs: obs, all: all, reading: map[string]bool{}}
}

func (p *presence) back(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reading[name] {
		p.reading[name] = true
		if len(p.reading) == p.all {
			p.obs.Connected()
		}
	}
}

func (p *presence) gone(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.reading) == p.all {
		p.obs.Disconnected(err)
	}
	delete(p.reading, name)
}
