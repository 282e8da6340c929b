//go:build integration

package changes_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/changes"
	"github.com/rowtide/rowtide/internal/testenv"
)

const partitions = 3

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// rig is a topic of its own.
type rig struct {
	t   *testing.T
	cfg changes.Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, cfg: changes.Config{
		Brokers: testenv.Kafka(t), Topic: testenv.UniqueName(t, "changes"), Group: testenv.UniqueName(t, "group"), Replication: 1, Retention: time.Hour,
	}}
	client := r.client(changes.ProducerConfig())
	defer client.Close()
	if err := changes.EnsureTopic(client, r.cfg, partitions); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) client(cfg *sarama.Config) sarama.Client {
	r.t.Helper()
	c, err := sarama.NewClient(r.cfg.Brokers, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// saver is a checkpoint that can be held.
type saver struct {
	mu    sync.Mutex
	last  rowtide.Position
	gtids []string
	err   error
	saved chan struct{} // gets a token when there is something new
}

func newSaver() *saver { return &saver{saved: make(chan struct{}, 1)} }

func (s *saver) Save(_ context.Context, last rowtide.Position, gtids []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = last
	s.gtids = append(s.gtids, gtids...)
	select {
	case s.saved <- struct{}{}:
	default:
	}
	return s.err
}

func txAt(n int, all ...rowtide.Change) *rowtide.Tx {
	v, err := rowtide.NewVersion(1, 1, uint64(n)*100)
	if err != nil {
		panic(err)
	}
	return &rowtide.Tx{
		Version: v, CommittedAt: at, Changes: all,
		Position: rowtide.Position{File: "binlog.000001", Pos: uint64(n) * 100, GTID: fmt.Sprintf("0-1-%d", n)},
	}
}

func put(id int, title string) rowtide.Change {
	return rowtide.Change{Table: event, Op: rowtide.OpInsert, After: []rowtide.Value{int64(id), title}, Module: "event"}
}

// byID routes by the first column; an id below zero is an error.
func byID(tx *rowtide.Tx) ([]rowtide.Routed, error) {
	var out []rowtide.Routed
	for _, c := range tx.Changes {
		id := c.After[0].(int64)
		if id < 0 {
			return nil, errors.New("no such key")
		}
		out = append(out, rowtide.Routed{Key: key("event", fmt.Sprint(id)), Change: c})
	}
	return out, nil
}

// write sends transactions to the end.
func (r *rig) write(s *saver, txs ...*rowtide.Tx) {
	r.t.Helper()
	client := r.client(changes.ProducerConfig())
	defer client.Close()
	w, err := changes.NewWriter(r.cfg, client, byID, s, slog.New(slog.DiscardHandler), changes.NopObserver{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.Close()
	done := make(chan error, 1)
	go func() { done <- w.Run(testContext(r.t)) }()
	for _, tx := range txs {
		if err := w.HandleTx(testContext(r.t), tx); err != nil {
			r.t.Fatal(err)
		}
	}
	w.CloseIntake()
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// records reads the whole topic, by partition.
func (r *rig) records() [][]changes.Record {
	r.t.Helper()
	client := r.client(sarama.NewConfig())
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		r.t.Fatal(err)
	}
	defer consumer.Close()
	dec := changes.NewDecoder()
	out := make([][]changes.Record, partitions)
	for p := range int32(partitions) {
		end, err := client.GetOffset(r.cfg.Topic, p, sarama.OffsetNewest)
		if err != nil {
			r.t.Fatal(err)
		}
		pc, err := consumer.ConsumePartition(r.cfg.Topic, p, sarama.OffsetOldest)
		if err != nil {
			r.t.Fatal(err)
		}
		for int64(len(out[p])) < end {
			select {
			case m := <-pc.Messages():
				rec, err := dec.Decode(m.Value)
				if err != nil {
					r.t.Fatal(err)
				}
				out[p] = append(out[p], rec)
			case <-testContext(r.t).Done():
				r.t.Fatalf("partition %d: %d of %d records", p, len(out[p]), end)
			}
		}
		pc.Close()
	}
	return out
}

func TestWriter_EveryChangeIsInItsKeysPartitionInOrder(t *testing.T) {
	r, s := newRig(t), newSaver()
	var txs []*rowtide.Tx
	for n := range 500 {
		txs = append(txs, txAt(n+1, put(n%50, fmt.Sprint(n)), put(50+n%7, fmt.Sprint(n))))
	}
	txs = append(txs, txAt(501)) // no watched table: it moves the checkpoint all the same
	r.write(s, txs...)
	if s.last != txs[500].Position || len(s.gtids) != 501 || s.gtids[500] != "0-1-501" {
		t.Errorf("checkpoint at %s after %d ids", s.last, len(s.gtids))
	}
	seen, count := map[string]rowtide.Version{}, 0
	for p, recs := range r.records() {
		for _, rec := range recs {
			for _, part := range rec.Parts {
				for _, c := range part.Changes {
					count++
					if got := c.Key.Partition(partitions); int(got) != p {
						t.Errorf("%s is in partition %d, want %d", c.Key, p, got)
					}
					if part.Version <= seen[c.Key.ID] {
						t.Errorf("%s: version %s after %s", c.Key, part.Version, seen[c.Key.ID])
					}
					seen[c.Key.ID] = part.Version
				}
			}
		}
		if last := recs[len(recs)-1]; last.Watermark != txs[500].Version {
			t.Errorf("partition %d ends with watermark %s, want %s", p, last.Watermark, txs[500].Version)
		}
	}
	if count != 1000 {
		t.Errorf("%d changes, want 1000", count)
	}
}

// A transaction that is larger than a record goes on in the next; no record claims
// more than it completes.
func TestWriter_LargeTransactionIsSplitAndTheWatermarkWaits(t *testing.T) {
	r := newRig(t)
	var large []rowtide.Change
	for n := range 3000 {
		large = append(large, put(n, strings.Repeat("x", 1000)))
	}
	r.write(newSaver(), txAt(1, put(1, "a")), txAt(2, large...), txAt(3, put(1, "b")))
	split, total := 0, 0
	for p, recs := range r.records() {
		left := 0 // changes of transaction 2 in this partition that are still to come
		for _, c := range large {
			if key("event", fmt.Sprint(c.After[0])).Partition(partitions) == int32(p) {
				left++
			}
		}
		for _, rec := range recs {
			for _, part := range rec.Parts {
				if part.Version == txAt(2).Version {
					left -= len(part.Changes)
					total += len(part.Changes)
					split++
				}
			}
			if left > 0 && rec.Watermark >= txAt(2).Version {
				t.Errorf("partition %d claims %s with %d changes to come", p, rec.Watermark, left)
			}
		}
	}
	if split < 6 || total != 3000 {
		t.Errorf("%d changes in %d parts, want 3000 in several per partition", total, split)
	}
}

func TestWriter_FaultsEndIt(t *testing.T) {
	r := newRig(t)
	client := r.client(changes.ProducerConfig())
	defer client.Close()
	s := newSaver()
	s.err = errors.New("no room")
	w, err := changes.NewWriter(r.cfg, client, byID, s, slog.New(slog.DiscardHandler), changes.NopObserver{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.HandleTx(testContext(t), txAt(1, put(-1, ""))); err == nil || err.Error() != "no such key" {
		t.Errorf("%v, want the router's error", err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(testContext(t)) }()
	if err := w.HandleTx(testContext(t), txAt(2, put(1, ""))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, s.err) {
		t.Fatalf("%v, want the checkpoint's error", err)
	}
	if err := w.HandleTx(testContext(t), txAt(3, put(1, ""))); !errors.Is(err, s.err) {
		t.Errorf("%v, want the error that Run ended with", err)
	}
}
