package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// hop is one leg of the way, measured with nothing else under way.
type hop struct {
	name string
	d    []time.Duration
}

const hopSamples = 1000

func (b *bench) latencyHops(ctx context.Context, db *sql.DB) ([]hop, error) {
	log, err := b.hopLog(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("hop to the log: %w", err)
	}
	set, err := b.hopRedis(ctx)
	if err != nil {
		return nil, fmt.Errorf("hop to redis: %w", err)
	}
	bus, err := b.hopKafka(ctx)
	if err != nil {
		return nil, fmt.Errorf("hop over kafka: %w", err)
	}
	return []hop{{"COMMIT returned -> row event here", log}, {"set-if-newer round trip", set}, {"produce -> consumer has it", bus}}, nil
}

// hopLog is COMMIT -> the row's event, at the same rate as the whole.
func (b *bench) hopLog(ctx context.Context, db *sql.DB) ([]time.Duration, error) {
	head, err := b.head(ctx)
	if err != nil {
		return nil, err
	}
	at, err := rowtide.ParsePosition(head)
	if err != nil {
		return nil, err
	}
	a := newArrivals()
	s, err := b.syncer(rowListener{a})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.StartSync(mysql.Position{Name: at.File, Pos: uint32(at.Pos)}); err != nil {
		return nil, err
	}
	if _, err := b.commit(ctx, db, audience{a}, nodeRate, hopSamples/nodeRate+1); err != nil {
		return nil, err
	}
	return a.d, a.settled(ctx)
}

type rowListener struct{ a *arrivals }

// HandleEvent implements replication.EventHandler.
func (l rowListener) HandleEvent(e *replication.BinlogEvent) error {
	if r, ok := e.Event.(*replication.RowsEvent); ok && len(r.Rows) > 0 {
		l.a.hear(fmt.Sprint(r.Rows[0][0]))
	}
	return nil
}

func (b *bench) hopRedis(ctx context.Context) ([]time.Duration, error) {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	script := redis.NewScript(overwrite.Script)
	if err := script.Load(ctx, rdb).Err(); err != nil {
		return nil, err
	}
	e := rowtide.Entry{Key: rowtide.Key{Module: "hop", Version: 1, ID: "1"}, TTL: time.Hour, Payload: make([]byte, 150)}
	var out []time.Duration
	for i := range hopSamples {
		e.Version = rowtide.Version(i + 1)
		began := time.Now()
		if err := script.EvalSha(ctx, rdb, []string{e.Key.Redis("hop")}, string(overwrite.CDC), e.AppendEnvelope(nil), e.TTL.Milliseconds()).Err(); err != nil {
			return nil, err
		}
		out = append(out, time.Since(began))
		pace(ctx, nodeRate, began)
	}
	return out, nil
}

func pace(ctx context.Context, rate int, began time.Time) {
	if ctx.Err() == nil {
		time.Sleep(time.Second/time.Duration(rate) - time.Since(began))
	}
}

func (b *bench) hopKafka(ctx context.Context) ([]time.Duration, error) {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Idempotent, cfg.Net.MaxOpenRequests = true, 1
	cfg.Producer.RequiredAcks, cfg.Producer.Return.Successes = sarama.WaitForAll, true
	client, err := sarama.NewClient(b.brokers, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, err
	}
	topic := fmt.Sprintf("hop.%d", time.Now().UnixNano())
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		return nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer func() { _ = producer.Close() }()
	// A client of its own: on the producer's connection, with one request in
	// flight, every produce would wait for a fetch's long poll.
	consumer, err := sarama.NewConsumer(b.brokers, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = consumer.Close() }()
	pc, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pc.Close() }()
	var out []time.Duration
	for range hopSamples {
		began := time.Now()
		go producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(make([]byte, 120))}) //nolint:errcheck // a lost one shows as a missing message
		select {
		case <-pc.Messages():
		case <-time.After(5 * time.Second):
			return nil, errors.New("no message in 5 s")
		}
		out = append(out, time.Since(began))
		pace(ctx, nodeRate, began)
	}
	return out, nil
}
