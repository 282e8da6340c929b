//go:build integration

package changes_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/changes"
)

// bus remembers what it is told.
type bus struct {
	mu    sync.Mutex
	ours  map[int32]bool
	marks map[int32]rowtide.Version
}

func newBus() *bus { return &bus{ours: map[int32]bool{}, marks: map[int32]rowtide.Version{}} }

func (b *bus) Claim(_ context.Context, p int32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ours[p] = true
	return nil
}

func (b *bus) Applied(p int32, v rowtide.Version) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.marks[p] = max(b.marks[p], v)
}

func (b *bus) Release(p int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.ours, p)
}

// applier is a group's member and its aggregator in one.
type applier struct {
	*changes.Group
	bus  *bus
	done chan error
	stop context.CancelFunc

	mute bool // saves nothing
	news chan struct{}

	mu  sync.Mutex
	txs []rowtide.Tx
}

func (a *applier) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	if !a.mute {
		// Before it is shown: a test may end the group as soon as it sees the last one.
		if err := a.Save(ctx, tx.Position, []string{tx.Position.GTID}); err != nil {
			return err
		}
	}
	kept := *tx
	kept.Changes = slices.Clone(tx.Changes)
	a.mu.Lock()
	a.txs = append(a.txs, kept)
	a.mu.Unlock()
	select {
	case a.news <- struct{}{}:
	default:
	}
	return nil
}

func (r *rig) join(mute bool) *applier {
	r.t.Helper()
	client := r.client(changes.ConsumerConfig())
	a := &applier{bus: newBus(), done: make(chan error, 1), mute: mute, news: make(chan struct{}, 1)}
	a.Group = changes.NewGroup(r.cfg, client, a.bus, slog.New(slog.DiscardHandler), changes.NopObserver{})
	ctx, cancel := context.WithCancel(r.t.Context())
	a.stop = cancel
	go func() {
		a.done <- a.Run(ctx, a)
		client.Close()
	}()
	r.t.Cleanup(cancel)
	return a
}

// until waits for the handler's news until ok.
func (a *applier) until(t *testing.T, what string, ok func([]rowtide.Tx) bool) {
	t.Helper()
	ctx := testContext(t)
	for {
		a.mu.Lock()
		fine := ok(a.txs)
		n := len(a.txs)
		a.mu.Unlock()
		if fine {
			return
		}
		select {
		case <-a.news:
		case err := <-a.done:
			t.Fatalf("%s: the group ended: %v", what, err)
		case <-ctx.Done():
			t.Fatalf("%s: never; %d transactions", what, n)
		}
	}
}

func changesOf(txs []rowtide.Tx) int {
	n := 0
	for _, tx := range txs {
		n += len(tx.Changes)
	}
	return n
}

func (a *applier) leave(t *testing.T) {
	t.Helper()
	a.stop()
	select {
	case err := <-a.done:
		if err != nil {
			t.Fatal(err)
		}
	case <-testContext(t).Done():
		t.Fatal("the group does not end")
	}
}

// What is saved is not handed over again, what is not is; a member that leaves
// makes room at once.
func TestGroup_GoesOnAfterWhatIsSaved(t *testing.T) {
	r := newRig(t)
	var txs []*rowtide.Tx
	for n := range 100 {
		txs = append(txs, txAt(n+1, put(n, fmt.Sprint(n))))
	}
	r.write(newSaver(), txs[:50]...)
	a := r.join(false)
	a.until(t, "the first half", func(got []rowtide.Tx) bool { return changesOf(got) == 50 })
	a.mu.Lock()
	one := a.txs[0]
	a.mu.Unlock()
	if id := changes.SourceGTID(one.Position.GTID); !strings.HasPrefix(id, "0-1-") || one.Position.File != "binlog.000001" || !one.CommittedAt.Equal(at) {
		t.Errorf("transaction %+v, source's id %q", one, id)
	}
	a.leave(t)
	if len(a.bus.ours) != 0 {
		t.Errorf("partitions %v are not released", a.bus.ours)
	}
	for p := range int32(partitions) {
		if a.bus.marks[p] != txs[49].Version {
			t.Errorf("partition %d is applied up to %s, want %s", p, a.bus.marks[p], txs[49].Version)
		}
	}
	r.write(newSaver(), txs[50:]...)
	mute := r.join(true)
	mute.until(t, "the second half", func(got []rowtide.Tx) bool { return changesOf(got) == 50 })
	mute.leave(t)
	b := r.join(false)
	b.until(t, "the second half again", func(got []rowtide.Tx) bool { return changesOf(got) == 50 })
	b.leave(t)
}

func TestGroup_PartitionsMoveWithoutStoppingTheOthers(t *testing.T) {
	r := newRig(t)
	var all []rowtide.Change // some for each partition
	for n := range 30 {
		all = append(all, put(n, ""))
	}
	a := r.join(false)
	r.write(newSaver(), txAt(1, all...))
	a.until(t, "the changes", func(got []rowtide.Tx) bool { return changesOf(got) == 30 })
	b := r.join(false)
	for n := 2; ; n++ {
		r.write(newSaver(), txAt(n, all...))
		b.mu.Lock()
		some := changesOf(b.txs) > 0
		b.mu.Unlock()
		if some {
			break
		}
		if n > 1000 {
			t.Fatal("the second member gets nothing")
		}
	}
	b.leave(t)
	a.leave(t)
}

func TestGroup_RecordsThatAreGoneAreALostPosition(t *testing.T) {
	r := newRig(t)
	r.write(newSaver(), txAt(1, put(1, ""), put(2, ""), put(3, ""), put(4, ""), put(5, "")))
	a := r.join(false)
	a.until(t, "the changes", func(got []rowtide.Tx) bool { return changesOf(got) == 5 })
	a.leave(t)
	r.write(newSaver(), txAt(2, put(1, ""), put(2, ""), put(3, "")), txAt(3, put(1, ""), put(2, ""), put(3, "")))
	client := r.client(changes.ConsumerConfig())
	defer client.Close()
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int32]int64{}
	for p := range int32(partitions) {
		if ends[p], err = client.GetOffset(r.cfg.Topic, p, sarama.OffsetNewest); err != nil {
			t.Fatal(err)
		}
	}
	if err := admin.DeleteRecords(r.cfg.Topic, ends); err != nil {
		t.Fatal(err)
	}
	b := r.join(false)
	select {
	case err := <-b.done:
		if !errors.Is(err, rowtide.ErrPositionLost) {
			t.Errorf("%v, want ErrPositionLost", err)
		}
	case <-testContext(t).Done():
		t.Fatal("the group goes on over records that are gone")
	}
}

func TestGroup_RecordThatCannotBeReadStopsIt(t *testing.T) {
	r := newRig(t)
	client := r.client(changes.ProducerConfig())
	defer client.Close()
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: r.cfg.Topic, Partition: 1, Value: sarama.StringEncoder("what is this")}); err != nil {
		t.Fatal(err)
	}
	a := r.join(false)
	select {
	case err := <-a.done:
		if !errors.Is(err, rowtide.ErrCorrupt) || !strings.Contains(err.Error(), "partition 1 offset 0") {
			t.Errorf("%v, want ErrCorrupt with its place", err)
		}
	case <-testContext(t).Done():
		t.Fatal("the group goes on over a record that it cannot read")
	}
}

// Offsets that were set back are where the next owner begins.
func TestGroup_RewindIsWhereTheNextOwnerBegins(t *testing.T) {
	r := newRig(t)
	r.write(newSaver(), txAt(1, put(1, ""), put(2, ""), put(3, ""), put(4, ""), put(5, "")))
	a := r.join(false)
	a.until(t, "the changes", func(got []rowtide.Tx) bool { return changesOf(got) == 5 })
	if err := a.Rewind(map[int32]int64{0: 0, 1: 0, 2: 0}); err != nil {
		t.Fatal(err)
	}
	a.leave(t)
	b := r.join(false)
	b.until(t, "the changes again", func(got []rowtide.Tx) bool { return changesOf(got) == 5 })
	b.leave(t)
}
