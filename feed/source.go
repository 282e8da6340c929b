package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// ErrPreflight means the topics cannot be read as they are set up. The joined
// errors each name what to change. Nothing has been written; exit code 1.
var ErrPreflight = errors.New("the source is not ready")

// Handler takes transactions one by one. It may keep them.
type Handler interface {
	HandleTx(ctx context.Context, tx *rowtide.Tx) error
}

// Source reads the topics. Use: New, Preflight, Resume, Run, Close.
type Source struct {
	// Client, if set before [Source.Preflight], gives its TLS and login to the
	// connections.
	Client *sarama.Config

	cfg     Config
	watched map[string]bool
	log     *slog.Logger
	obs     Observer

	client   sarama.Client
	consumer sarama.Consumer
	parts    []partition
	progress *Progress
	recount  time.Duration // how often the partitions are counted
}

// partition is one to be read, and where to begin.
type partition struct {
	topic string
	id    int32
	mark  Mark
}

func (p *partition) name() string { return partitionName(p.topic, p.id) }

// New makes a source for the watched tables ("schema.table"). It does no I/O.
func New(cfg Config, watched []string, log *slog.Logger, obs Observer) *Source {
	s := &Source{cfg: cfg, watched: map[string]bool{}, log: log, obs: obs, recount: time.Minute}
	for _, t := range watched {
		s.watched[t] = true
	}
	return s
}

func consumerConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "rowtide"
	c.Version = sarama.V2_8_0_0
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = 5*time.Second, 10*time.Second, 5*time.Second
	c.Metadata.AllowAutoTopicCreation = false
	c.Metadata.Retry.Max = 2
	c.Consumer.Return.Errors = true
	// What a capture wrote in a transaction that it gave up never happened.
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	return c
}

// Preflight connects and checks the topics. It writes nothing. Every fault is
// reported, joined under [ErrPreflight].
func (s *Source) Preflight(context.Context) error {
	conf := consumerConfig()
	if s.Client != nil {
		conf.Net.TLS, conf.Net.SASL = s.Client.Net.TLS, s.Client.Net.SASL
	}
	client, err := sarama.NewClient(s.cfg.Brokers, conf)
	if err != nil {
		return fmt.Errorf("%w: cannot talk to kafka at %s (source.brokers); is it up and reachable from here? %w",
			ErrPreflight, strings.Join(s.cfg.Brokers, ","), err)
	}
	s.client = client
	var faults []error
	s.parts = nil
	for _, topic := range s.cfg.Topics {
		ids, err := client.Partitions(topic)
		if err != nil {
			faults = append(faults, fmt.Errorf("topic %s (source.topics): %w", topic, err))
			continue
		}
		slices.Sort(ids)
		for _, id := range ids {
			s.parts = append(s.parts, partition{topic: topic, id: id})
		}
	}
	if s.cfg.Format == FormatCanal && !s.ordered() {
		faults = append(faults, fmt.Errorf("topics %s have %d partitions together, and canal-json carries no source position to order them by; "+
			"use one topic with one partition, or set source.keyed if Canal sends all records of a row to one partition (canal.mq.partitionHash)",
			strings.Join(s.cfg.Topics, ", "), len(s.parts)))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrPreflight, errors.Join(faults...))
	}
	return nil
}

// ordered reports whether offsets order all the records of a row.
func (s *Source) ordered() bool { return s.cfg.Keyed || len(s.parts) <= 1 }

// Resume finds where to go on: after the checkpoint, or without one at
// Config.StartAt. It must follow [Source.Preflight] and writes nothing. The error
// wraps rowtide.ErrPositionLost when records between the checkpoint and now are
// gone.
func (s *Source) Resume(ctx context.Context, store Store) (*Progress, error) {
	doc, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	o := Offsets{Kind: offsetsKind, Epoch: s.cfg.Epoch, SavedAt: time.Now().UTC()}
	if doc != nil {
		if o, err = decodeOffsets(doc); err != nil {
			return nil, err
		}
	}
	if o.Epoch > s.cfg.Epoch {
		return nil, fmt.Errorf("source.epoch %d is below the checkpoint's %d: what is written would look old; raise it", s.cfg.Epoch, o.Epoch)
	}
	if o.Partitions == nil {
		o.Partitions = map[string]Mark{}
	}
	for i := range s.parts {
		p := &s.parts[i]
		mark, known := o.Partitions[p.name()]
		if mark, err = s.begin(p, mark, known, doc == nil); err != nil {
			return nil, err
		}
		if o.Epoch < s.cfg.Epoch {
			mark.Newest, mark.At = 0, 0
		}
		p.mark = mark
		o.Partitions[p.name()] = mark
	}
	o.Epoch = s.cfg.Epoch
	s.progress = &Progress{store: store, log: s.log, obs: s.obs, o: o}
	return s.progress, nil
}

// ends are a partition's oldest offset and the one after its newest. A leader
// that is being elected, as of a topic that was just made, is waited for.
func (s *Source) ends(p *partition) (oldest, newest int64, err error) {
	wait := backoff.New(50*time.Millisecond, time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), electionWait)
	defer cancel()
	for {
		if oldest, err = s.client.GetOffset(p.topic, p.id, sarama.OffsetOldest); err == nil {
			newest, err = s.client.GetOffset(p.topic, p.id, sarama.OffsetNewest)
		}
		electing := errors.Is(err, sarama.ErrNotLeaderForPartition) || errors.Is(err, sarama.ErrLeaderNotAvailable)
		if !electing || wait.Wait(ctx) != nil {
			return oldest, newest, err
		}
		if err := s.client.RefreshMetadata(p.topic); err != nil {
			return 0, 0, err
		}
	}
}

// electionWait is how long the election of a leader is waited for at the start.
const electionWait = 10 * time.Second

// begin is the place of a partition's first record.
func (s *Source) begin(p *partition, mark Mark, known, fresh bool) (Mark, error) {
	oldest, newest, err := s.ends(p)
	if err != nil {
		return mark, fmt.Errorf("read offsets of %s: %w", p.name(), err)
	}
	switch {
	case known && (mark.Next < oldest || mark.Next > newest):
		return mark, fmt.Errorf("%s: the checkpoint is at offset %d, the topic holds %d to %d: %w", p.name(), mark.Next, oldest, newest, rowtide.ErrPositionLost)
	case known:
	case fresh && s.cfg.StartAt == StartLatest:
		mark.Next = newest
	default: // also a partition that was added since
		mark.Next = oldest
	}
	return mark, nil
}

// Run hands transactions to h until ctx ends (nil), h fails, or a record cannot
// be read. It reads every partition at once and calls h from one goroutine, so a
// handler that blocks holds the reading back. It must follow [Source.Resume].
func (s *Source) Run(ctx context.Context, h Handler) error {
	// Before the first record: a crash must not move a start at the latest offset.
	err := s.progress.Save(ctx, rowtide.Position{}, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop
		}
		return err
	}
	if s.consumer, err = sarama.NewConsumerFromClient(s.client); err != nil {
		return fmt.Errorf("make consumer: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	txs := make(chan *rowtide.Tx)
	here := newPresence(len(s.parts), s.obs)
	for i := range s.parts {
		f, err := s.follower(&s.parts[i], txs, here)
		if err != nil {
			return err
		}
		g.Go(func() error { return f.run(gctx) })
	}
	g.Go(func() error {
		for {
			select {
			case tx := <-txs:
				if err := h.HandleTx(gctx, tx); err != nil {
					return err
				}
				s.obs.Received(tx)
			case <-gctx.Done():
				return gctx.Err()
			}
		}
	})
	g.Go(func() error { return s.countPartitions(gctx) })
	err = g.Wait()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to stop
	}
	return err
}

// countPartitions returns an error when a topic has grown: what is in the new
// partition would go unread.
func (s *Source) countPartitions(ctx context.Context) error {
	tick := time.NewTicker(s.recount)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.client.RefreshMetadata(s.cfg.Topics...); err != nil {
			continue // the followers tell of brokers that are away
		}
		n := 0
		for _, topic := range s.cfg.Topics {
			ids, _ := s.client.Partitions(topic)
			n += len(ids)
		}
		if n > len(s.parts) {
			return fmt.Errorf("topics %s have %d partitions now, and %d are read; start again to read them all", strings.Join(s.cfg.Topics, ", "), n, len(s.parts))
		}
	}
}

func (s *Source) follower(p *partition, txs chan<- *rowtide.Tx, here *presence) (*follower, error) {
	dec, err := newDecoder(s.cfg, s.watched)
	if err != nil {
		return nil, err
	}
	return &follower{
		partition: *p, client: s.client, consumer: s.consumer, log: s.log, here: here,
		asm: &assembler{
			dec: dec, epoch: s.cfg.Epoch, ordered: s.ordered(), obs: s.obs, name: p.name(), mark: p.mark,
			emit: func(ctx context.Context, tx *rowtide.Tx) error {
				select {
				case txs <- tx:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		},
	}, nil
}

// Partitions is the number of partitions read; 0 before [Source.Preflight].
func (s *Source) Partitions() int { return len(s.parts) }

// Close releases the connections, once Run has returned. It may be called twice.
func (s *Source) Close() error {
	var errs []error
	if s.consumer != nil {
		errs = append(errs, s.consumer.Close())
	}
	if s.client != nil && !s.client.Closed() {
		errs = append(errs, s.client.Close())
	}
	return errors.Join(errs...)
}
