package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
)

const (
	// recordBytes is the size from which a record is full: large enough to pay for
	// its way, well below the broker's default limit of 1 MB.
	recordBytes = 256 << 10
	// maxPending is how many bytes may wait for their acknowledgement.
	maxPending = 16 << 20
	// ticketBytes is what a transaction weighs by itself.
	ticketBytes = 256
	// heartbeatEvery is how soon a partition without changes hears how far the log
	// was read.
	heartbeatEvery = 250 * time.Millisecond
	// saveEvery is the least time between two checkpoints.
	saveEvery = 10 * time.Millisecond
	// maxUnsaved is how many transactions may be acknowledged and not yet in the
	// checkpoint.
	maxUnsaved = 100_000
)

// Checkpointer remembers what has been acknowledged.
type Checkpointer interface {
	// Save records that everything up to last is done; gtids are the ids of the
	// transactions since the previous Save, in order.
	Save(ctx context.Context, last rowtide.Position, gtids []string) error
}

// Writer is the reader's end. HandleTx is for one goroutine, Run for another.
type Writer struct {
	cfg   Config
	route func(*rowtide.Tx) ([]rowtide.Routed, error)
	save  Checkpointer
	log   *slog.Logger
	obs   Observer
	sync  sarama.SyncProducer

	mu      sync.Mutex
	parts   []outgoing
	tickets []rowtide.Position // of transactions that are in no round yet
	bytes   int                // not yet acknowledged
	changes int                // not yet taken
	last    rowtide.Version    // newest transaction taken over
	unsaved progress
	closed  bool
	fault   error
	work    chan struct{} // holds a token when there is something to send
	space   chan struct{} // holds a token when there may be room again
	acked   chan struct{} // holds a token when there is something to save
	saved   chan struct{} // holds a token when there was a checkpoint
}

// progress is what was acknowledged since the last checkpoint.
type progress struct {
	last  rowtide.Position
	gtids []string
	txs   int
}

// outgoing is one partition's.
type outgoing struct {
	full    []sealed // oldest first
	filling *builder
	told    rowtide.Version // watermark of its last record
	toldAt  time.Time
}

// sealed is a full record and the watermark that it may claim.
type sealed struct {
	b         *builder
	watermark rowtide.Version
}

// NewWriter makes a writer over a client made with [ProducerConfig]. route splits
// a transaction by keys, with at most one change for each; it is called from
// HandleTx. The topic must exist: see [EnsureTopic].
func NewWriter(cfg Config, client sarama.Client, route func(*rowtide.Tx) ([]rowtide.Routed, error), save Checkpointer, log *slog.Logger, obs Observer) (*Writer, error) {
	n, err := topicPartitions(client, cfg.Topic)
	if err != nil {
		return nil, err
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	w := &Writer{
		cfg: cfg, route: route, save: save, log: log, obs: obs, sync: p, parts: make([]outgoing, n),
		work: make(chan struct{}, 1), space: make(chan struct{}, 1), acked: make(chan struct{}, 1), saved: make(chan struct{}, 1),
	}
	for i := range w.parts {
		w.parts[i].filling = newBuilder()
	}
	return w, nil
}

// HandleTx takes tx over and returns at once, unless too much is under way: then
// it blocks until Kafka has acknowledged some. An error means that tx cannot be
// sent and the stream must stop before it.
func (w *Writer) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	routed, err := w.route(tx)
	if err != nil {
		return err
	}
	for {
		w.mu.Lock()
		if w.fault != nil {
			w.mu.Unlock()
			return w.fault
		}
		if w.bytes < maxPending {
			err := w.add(tx, routed)
			full := w.bytes >= maxPending
			w.mu.Unlock()
			if len(routed) > 0 || full {
				signal(w.work)
			}
			return err
		}
		w.mu.Unlock()
		select {
		case <-w.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// add puts tx into the records of its partitions; w.mu is held.
func (w *Writer) add(tx *rowtide.Tx, routed []rowtide.Routed) error {
	n := int32(len(w.parts)) //nolint:gosec // partitions are counted in int32
	touched := map[int32]bool{}
	for i := range routed {
		p := routed[i].Key.Partition(n)
		o := &w.parts[p]
		before := o.filling.size()
		if err := o.filling.add(&routed[i]); err != nil {
			w.fault = fmt.Errorf("transaction at %s: %w", tx.Position, err)
			return w.fault
		}
		touched[p] = true
		w.bytes += o.filling.size() - before
		if o.filling.size() >= recordBytes {
			o.filling.end(tx.Version, tx.CommittedAt, tx.Position)
			o.full = append(o.full, sealed{o.filling, w.last})
			o.filling = newBuilder()
			delete(touched, p)
		}
	}
	for p := range touched {
		w.parts[p].filling.end(tx.Version, tx.CommittedAt, tx.Position)
	}
	w.last = tx.Version
	w.changes += len(routed)
	w.bytes += ticketBytes
	w.tickets = append(w.tickets, tx.Position)
	return nil
}

// Run sends until the intake is closed and everything has left, or until ctx
// ends, or until something fails that repeating cannot mend.
func (w *Writer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	sent := make(chan struct{})
	g.Go(func() error {
		defer close(sent)
		return w.send(ctx)
	})
	g.Go(func() error { return w.checkpoint(ctx, sent) })
	err := g.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault = err; err == nil {
		w.fault = errors.New("the writer of changes has stopped")
	}
	signal(w.space)
	return err
}

// CloseIntake says that no more transactions will come; Run sends the rest and
// returns. Only the goroutine that calls HandleTx may call it.
func (w *Writer) CloseIntake() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	signal(w.work)
}

// Close ends the producer, once Run has returned. It does not close the client.
func (w *Writer) Close() error {
	if err := w.sync.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
		return fmt.Errorf("close producer: %w", err)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
