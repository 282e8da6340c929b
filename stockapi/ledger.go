package stockapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// Ledger applies the stock events to MySQL, each once. It reads partitions
// directly and keeps the offsets in the transactions that they belong to, so there
// is no consumer group whose offset could tell another story. Two ledgers are
// safe: the second waits at a locked position and then finds its events applied.
type Ledger struct {
	cfg  Config
	db   *sql.DB
	deps Deps
	base *sarama.Config

	// beforeCommit is a test's way to crash between the last statement and the
	// commit.
	beforeCommit func() error
}

// NewLedger returns a Ledger on db (see OpenDB). It does no I/O and needs no Redis.
// base may be nil, see SaramaConfig.
func NewLedger(cfg Config, db *sql.DB, deps Deps, base *sarama.Config) (*Ledger, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("stock: ledger: no database")
	}
	return &Ledger{
		cfg: cfg, db: db, deps: deps.withDefaults(), base: base,
		beforeCommit: func() error { return nil },
	}, nil
}

// Run applies events until ctx is done; then it returns nil. Kafka or MySQL being
// away makes it wait. It returns ErrGap, ErrDivergence, ErrFenced, ErrBadEvent or
// ErrSchemaMissing at once, with nothing of the batch applied: these need a person.
func (l *Ledger) Run(ctx context.Context) (err error) {
	if err := l.cfg.needBrokers(); err != nil {
		return err
	}
	client, err := openKafka(ctx, l.cfg, l.base, func(err error) { l.deps.Observer.LedgerRetry(-1, err) })
	if err != nil {
		return nil // only ctx ends the attempts
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("start consumer: %w", err)
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		running := make(map[int32]bool)
		tick := time.NewTicker(l.cfg.DiscoverEvery)
		defer tick.Stop()
		for {
			// The topic may be created after us, so this asks until it is there.
			parts, err := client.Partitions(l.cfg.Kafka.Topic)
			if err != nil {
				l.deps.Observer.LedgerRetry(-1, fmt.Errorf("list partitions of %s: %w", l.cfg.Kafka.Topic, err))
				_ = client.RefreshMetadata() // its fault shows in the next round
			}
			for _, p := range parts {
				if !running[p] {
					running[p] = true
					g.Go(func() error { return l.runPartition(gctx, consumer, p) })
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

// runPartition consumes one partition until ctx is done or a fault is final.
func (l *Ledger) runPartition(ctx context.Context, consumer sarama.Consumer, part int32) error {
	wait := backoff{min: 50 * time.Millisecond, max: kafkaTimeout}
	failing := false
	for ctx.Err() == nil {
		err := l.consume(ctx, consumer, part, func() {
			wait.reset()
			if failing {
				l.deps.Logger.Info("ledger works again", "partition", part)
			}
			failing = false
		})
		if ctx.Err() != nil {
			break // the fault is the stop's
		}
		switch {
		case !retryable(err):
			l.deps.Observer.LedgerStopped(part, err)
			return fmt.Errorf("ledger: %w", err)
		case !failing:
			l.deps.Logger.Warn("ledger is failing; events wait in kafka", "partition", part, "error", err)
		}
		failing = true
		l.deps.Observer.LedgerRetry(part, err)
		wait.wait(ctx)
	}
	return nil //nolint:nilerr // what fails because of the stop is no fault
}

// consume opens the partition where MySQL says and applies what comes, until the
// first fault. done is called after each commit.
func (l *Ledger) consume(ctx context.Context, consumer sarama.Consumer, part int32, done func()) (err error) {
	from, err := l.start(ctx, part)
	if err != nil {
		return err
	}
	topic := l.cfg.Kafka.Topic
	pc, err := consumer.ConsumePartition(topic, part, from)
	if errors.Is(err, sarama.ErrOffsetOutOfRange) {
		// The topic was made anew or cut. From its beginning on, what is known is
		// dropped and what is missing is a gap: arithmetic decides, not the offset.
		l.deps.Logger.Warn("stored offset is not in the topic, reading from its beginning", "partition", part, "offset", from)
		pc, err = consumer.ConsumePartition(topic, part, sarama.OffsetOldest)
	}
	if err != nil {
		return fmt.Errorf("read partition %d of %s: %w", part, topic, err)
	}
	defer func() { err = errors.Join(err, pc.Close()) }()
	var next *Record
	for {
		recs, rest, err := l.gather(ctx, pc, next)
		if err != nil {
			return err
		}
		next = rest
		begin := time.Now()
		a, err := l.Apply(ctx, part, recs)
		if err != nil {
			return err
		}
		var lag time.Duration
		if !a.Oldest.IsZero() {
			lag = time.Since(a.Oldest)
		}
		l.deps.Observer.LedgerBatch(part, a.Events, a.New, lag, time.Since(begin))
		done()
	}
}

// start is the offset after the newest that any transaction of the partition
// stored; every transaction stores it with each of its cells.
func (l *Ledger) start(ctx context.Context, part int32) (int64, error) {
	var off sql.NullInt64
	err := l.db.QueryRowContext(ctx, `SELECT MAX(off) FROM cell_pos WHERE topic=? AND part=?`, l.cfg.Kafka.Topic, part).Scan(&off)
	if err != nil {
		return 0, fmt.Errorf("read offset of partition %d: %w", part, classify(err))
	}
	if !off.Valid {
		return sarama.OffsetOldest, nil
	}
	return off.Int64 + 1, nil
}

// gather waits for one record and takes what else is there, up to LedgerBatch
// events: no delay when idle, large transactions under load. A record that does not
// fit any more is the first of the next batch.
func (l *Ledger) gather(ctx context.Context, pc sarama.PartitionConsumer, first *Record) (recs []Record, rest *Record, err error) {
	events := 0
	if first != nil {
		recs, events = append(recs, *first), len(first.Batch.Events)
	}
	for {
		m, err := l.next(ctx, pc, len(recs) == 0)
		if err != nil || m == nil {
			return recs, nil, err
		}
		b, err := DecodeBatch(m.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("offset %d of partition %d: %w", m.Offset, m.Partition, err)
		}
		r := Record{Offset: m.Offset, Batch: b}
		if len(recs) > 0 && events+len(b.Events) > l.cfg.LedgerBatch {
			return recs, &r, nil
		}
		recs, events = append(recs, r), events+len(b.Events)
	}
}

// next is the next message; without block it is nil when none is there.
func (l *Ledger) next(ctx context.Context, pc sarama.PartitionConsumer, block bool) (*sarama.ConsumerMessage, error) {
	if !block {
		select {
		case m, ok := <-pc.Messages():
			if !ok {
				return nil, errConsumerClosed
			}
			return m, nil
		default:
			return nil, nil
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case m, ok := <-pc.Messages():
			if !ok {
				return nil, errConsumerClosed
			}
			return m, nil
		case e, ok := <-pc.Errors():
			if ok {
				// Sarama goes on by itself; what it cannot mend closes Messages.
				l.deps.Observer.LedgerRetry(e.Partition, e.Err)
			}
		}
	}
}

// errConsumerClosed: the partition consumer gave up, for example because its offset
// went out of range.
var errConsumerClosed = errors.New("partition consumer closed")
