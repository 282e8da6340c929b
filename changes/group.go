package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// drainFor is how long a partition that moves away waits for what was handed over
// to be acknowledged. It saves its next owner a replay; nothing depends on it.
const drainFor = 5 * time.Second

// Handler takes transactions, one at a time. It may block, and must not keep tx
// or its Changes slice after it returns.
type Handler interface {
	HandleTx(ctx context.Context, tx *rowtide.Tx) error
}

// Bus is told what this applier may claim of a partition, which is the same
// number for changes and for invalidations.
type Bus interface {
	// Claim comes before the first transaction of a partition that is ours now.
	Claim(ctx context.Context, partition int32) error
	// Applied says that everything in the partition up to the watermark is
	// acknowledged everywhere.
	Applied(partition int32, watermark rowtide.Version)
	// Release comes when the partition is no longer ours.
	Release(partition int32)
}

// Group is the applier's end: a member of the consumer group that shares the
// partitions. It is also the Checkpointer of the aggregator that it feeds.
type Group struct {
	cfg    Config
	client sarama.Client
	bus    Bus
	log    *slog.Logger
	obs    Observer
	dec    *Decoder
	turn   chan struct{} // whoever has put its token in may call the handler

	mu      sync.Mutex
	session sarama.ConsumerGroupSession
	places  map[int32]*place
	saved   chan struct{} // closed at the next Save
	fault   error
	rewound bool // offsets were set back, for good
	end     context.CancelFunc
	away    bool
}

// place is how far a claimed partition is.
type place struct {
	claim sarama.ConsumerGroupClaim
	// handed is the offset past the last record that was handed over, done past the
	// last that is acknowledged everywhere.
	handed, done int64
}

// NewGroup makes a member over a client made with [ConsumerConfig] that nothing
// else uses. It does no I/O.
func NewGroup(cfg Config, client sarama.Client, bus Bus, log *slog.Logger, obs Observer) *Group {
	return &Group{
		cfg: cfg, client: client, bus: bus, log: log, obs: obs, dec: NewDecoder(), turn: make(chan struct{}, 1),
		places: map[int32]*place{}, saved: make(chan struct{}), end: func() {},
	}
}

// Run hands the transactions of the partitions that are ours to h until ctx ends
// (nil), or h fails, or a record cannot be read. Before it returns it waits, for
// up to 5 s, for what it handed over. The error wraps rowtide.ErrPositionLost when
// the topic no longer has the records that come next.
func (g *Group) Run(ctx context.Context, h Handler) error {
	group, err := sarama.NewConsumerGroupFromClient(g.cfg.Group, g.client)
	if err != nil {
		return fmt.Errorf("make consumer group %s: %w", g.cfg.Group, err)
	}
	gctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	g.end = cancel
	g.mu.Unlock()
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		for err := range group.Errors() {
			g.told(err)
		}
	}()
	wait := backoff.New(100*time.Millisecond, 2*time.Second)
	for gctx.Err() == nil {
		began := time.Now()
		err := group.Consume(gctx, []string{g.cfg.Topic}, &member{g, h})
		if gctx.Err() != nil {
			break
		}
		if err != nil {
			g.trouble(err)
		}
		if time.Since(began) > time.Minute {
			wait.Reset()
		}
		_ = wait.Wait(gctx) // the loop looks
	}
	err = group.Close()
	<-listening
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault != nil {
		return g.fault
	}
	if err != nil {
		g.log.Warn("left the group without a word, which it will notice by itself", "group", g.cfg.Group, "err", err)
	}
	return nil
}

// told takes an error of the library's.
func (g *Group) told(err error) {
	if errors.Is(err, sarama.ErrOffsetOutOfRange) {
		where := g.cfg.Topic
		if c, ok := errors.AsType[*sarama.ConsumerError](err); ok {
			where = fmt.Sprintf("%s:%d", c.Topic, c.Partition)
		}
		g.fail(fmt.Errorf("%w: topic %s no longer holds the changes that come next; keep them for longer (kafka.retention)", rowtide.ErrPositionLost, where))
		return
	}
	if errors.Is(err, sarama.ErrOutOfBrokers) {
		g.trouble(err)
		return
	}
	g.log.Debug("consumer group", "err", err)
}

func (g *Group) trouble(err error) {
	g.mu.Lock()
	news := !g.away
	g.away = true
	g.mu.Unlock()
	if news {
		g.log.Warn("changes cannot be read, trying again", "topic", g.cfg.Topic, "group", g.cfg.Group, "err", err)
		g.obs.ChangesAway(err)
	}
}

func (g *Group) well() {
	g.mu.Lock()
	news := g.away
	g.away = false
	g.mu.Unlock()
	if news {
		g.log.Info("changes are read again", "topic", g.cfg.Topic)
		g.obs.ChangesAway(nil)
	}
}

// fail ends Run with err, unless it has failed already.
func (g *Group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault == nil {
		g.fault = err
	}
	g.end()
}

// Save records that the transactions with these ids are acknowledged everywhere.
// Their offsets are committed within 250 ms if their partitions are still ours;
// else their next owner applies them again.
func (g *Group) Save(_ context.Context, _ rowtide.Position, ids []string) error {
	newest := map[int32]token{}
	for _, id := range ids {
		t, err := parseToken(id)
		if err != nil {
			return err
		}
		old := newest[t.partition]
		newest[t.partition] = token{t.partition, max(old.next, t.next), max(old.watermark, t.watermark)}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rewound {
		return errors.New("the offsets were set back; start again")
	}
	for p, t := range newest {
		at := g.places[p]
		if at == nil {
			continue
		}
		at.done = max(at.done, t.next)
		if g.session != nil {
			g.session.MarkOffset(g.cfg.Topic, p, at.done, "")
		}
		g.bus.Applied(p, t.watermark)
		g.obs.Behind(p, max(at.claim.HighWaterMarkOffset()-at.done, 0))
	}
	close(g.saved)
	g.saved = make(chan struct{})
	return nil
}

// Places is, by claimed partition, the offset of the first record that is not
// acknowledged everywhere, as far as it is known.
func (g *Group) Places() map[int32]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[int32]int64, len(g.places))
	for p, at := range g.places {
		if at.done > 0 {
			out[p] = at.done
		}
	}
	return out
}

// Rewind sets the offsets of partitions that are still ours back, for their next
// owner to apply again what came since. The group saves nothing from then on; Run
// is to be ended. The error says that no partition is ours any more.
func (g *Group) Rewind(places map[int32]int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rewound {
		return nil
	}
	if g.session == nil {
		return errors.New("the offsets cannot be set back: no partition is ours any more")
	}
	g.rewound = true
	for p, at := range places {
		if g.places[p] != nil {
			g.session.ResetOffset(g.cfg.Topic, p, at, "")
		}
	}
	g.session.Commit()
	return nil
}

// token travels through the aggregator as a transaction's id, so that the ids of
// what is acknowledged say how far each partition is.
type token struct {
	partition int32
	// next: every record of the partition before this offset is done with the
	// transaction.
	next      int64
	watermark rowtide.Version
}

func (t token) with(gtid string) string {
	return fmt.Sprintf("%d:%d:%d %s", t.partition, t.next, uint64(t.watermark), gtid)
}

func parseToken(id string) (t token, err error) {
	place, _, _ := strings.Cut(id, " ")
	part, rest, _ := strings.Cut(place, ":")
	next, mark, _ := strings.Cut(rest, ":")
	p, err1 := strconv.ParseInt(part, 10, 32)
	n, err2 := strconv.ParseInt(next, 10, 64)
	w, err3 := strconv.ParseUint(mark, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return t, fmt.Errorf("place %q: want partition:offset:watermark: %w", id, err)
	}
	return token{int32(p), n, rowtide.Version(w)}, nil
}

// SourceGTID is the source's own id of a transaction that a [Group] handed over,
// from its Position.GTID; empty when the source has none.
func SourceGTID(id string) string {
	_, gtid, _ := strings.Cut(id, " ")
	return gtid
}
