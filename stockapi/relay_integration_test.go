//go:build integration

package stockapi_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// pipeConfig is a topic of the test's own on the given brokers, and quick polls.
func pipeConfig(t testing.TB, brokers []string) stockapi.Config {
	t.Helper()
	cfg := stockapi.Config{
		Grace: -1, RelayBlock: 20 * time.Millisecond, DiscoverEvery: 20 * time.Millisecond, SweepEvery: 10 * time.Millisecond,
		Kafka: stockapi.KafkaConfig{Brokers: brokers, Topic: testenv.UniqueName(t, "stock"), Partitions: 3},
	}
	if err := stockapi.EnsureTopic(cfg, nil); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newRelay(t testing.TB, s *shop, obs stockapi.Observer) *stockapi.Relay {
	t.Helper()
	r, err := stockapi.NewRelay(s.cfg, stockapi.Deps{Redis: s.rdb, Observer: obs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// traffic makes buyers that hold, confirm, cancel or forget, and returns when they
// are done.
func traffic(t *testing.T, s *shop, event string, buyers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for b := range buyers {
		wg.Go(func() {
			for i := range each {
				req := stockapi.HoldRequest{Event: event, User: fmt.Sprint("u", b), Key: fmt.Sprint(i), Items: []stockapi.Item{item("A", 1)}}
				if i%3 == 0 {
					req.Items = append(req.Items, item("B", 2))
				}
				if i%5 == 4 {
					req.TTL = time.Millisecond
				}
				h, err := s.Hold(t.Context(), req)
				if stockapi.RefusalCode(err) != "" {
					continue
				}
				if err == nil {
					switch i % 5 {
					case 0, 1:
						_, err = s.Confirm(t.Context(), h.ID, "p")
					case 2:
						_, err = s.Cancel(t.Context(), h.ID, "mind")
					}
				}
				if err != nil {
					t.Errorf("buyer %d: %v", b, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLoop_RedisToMySQLEndsInQuiescence(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, pipeConfig(t, testenv.Kafka(t)))
		obs := newSignals()
		start(t, newRelay(t, s, obs).Run)
		start(t, newLedger(t, s.cfg, db, obs).Run)
		start(t, s.Run)
		for _, e := range []string{"E1", "E2", "E3"} {
			s.load(t, e, map[string]int64{"A": 150, "B": 90})
		}
		var wg sync.WaitGroup
		for _, e := range []string{"E1", "E2", "E3"} {
			wg.Go(func() { traffic(t, s, e, 8, 60) })
		}
		c := newChecker(t, s, db)
		for range 20 {
			sound(t, c) // never a false alarm while the sale goes on
		}
		wg.Wait()
		rep := obs.drained(t, c)
		if len(rep.Cells) != 3 {
			t.Fatalf("%d cells, want 3", len(rep.Cells))
		}
		for _, cell := range rep.Cells {
			for sku, n := range cell.DB {
				if n.Avail+n.Held+n.Sold != n.Loaded || n.Sold == 0 {
					t.Errorf("%s %s: %+v", cell.Cell, sku, n)
				}
			}
		}
	})
}

func TestRelay_CrashBetweenAckAndMarkRepeatsButAppliesOnce(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	cfg := pipeConfig(t, testenv.Kafka(t))
	cfg.RelayBatch, cfg.OutboxKeep, cfg.OutboxMax = 5, 10, 10_000
	s := newShop(t, cfg)
	obs := newSignals()
	s.load(t, "E", map[string]int64{"A": 500, "B": 500})
	traffic(t, s, "E", 4, 30)
	relay := newRelay(t, s, obs)
	var crashes atomic.Int64
	crash := errors.New("crash")
	relay.SetAfterSend(func(stockapi.Batch) error {
		if crashes.Add(1)%3 != 0 { // two of three records are sent again
			return crash
		}
		return nil
	})
	start(t, relay.Run)
	start(t, newLedger(t, s.cfg, db, obs).Run)
	obs.drained(t, newChecker(t, s, db))
	obs.mu.Lock()
	defer obs.mu.Unlock()
	if obs.dups == 0 {
		t.Error("nothing was sent twice; the test shows nothing")
	}
}

func TestRelay_TwoRelaysApplyOnceAndTrimOnlyWhatIsDelivered(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	cfg := pipeConfig(t, testenv.Kafka(t))
	cfg.RelayBatch, cfg.OutboxKeep, cfg.OutboxMax = 7, 10, 10_000
	s := newShop(t, cfg)
	obs := newSignals()
	s.load(t, "E", map[string]int64{"A": 500, "B": 500})
	start(t, newRelay(t, s, obs).Run)
	start(t, newRelay(t, s, obs).Run)
	start(t, newLedger(t, s.cfg, db, obs).Run)
	traffic(t, s, "E", 6, 60)
	obs.drained(t, newChecker(t, s, db))
	snap, err := s.Snapshot(t.Context(), "E")
	if err != nil {
		t.Fatal(err)
	}
	if snap.Outbox != 10 || snap.Pending() != 0 {
		t.Errorf("outbox has %d entries, %d pending; want the 10 that are kept", snap.Outbox, snap.Pending())
	}
}

func TestRelay_TrimsNothingThatKafkaHasNotAcknowledged(t *testing.T) {
	cfg := pipeConfig(t, testenv.Kafka(t))
	cfg.RelayBatch, cfg.OutboxKeep, cfg.OutboxMax = 5, 1, 10_000
	s := newShop(t, cfg)
	s.load(t, "E", map[string]int64{"A": 100})
	for i := range 30 {
		s.mustHold(t, want(fmt.Sprint("u", i), "k", item("A", 1)))
	}
	obs := newSignals()
	relay := newRelay(t, s, obs)
	var sent atomic.Int64
	down := errors.New("kafka is away")
	relay.SetAfterSend(func(b stockapi.Batch) error {
		if sent.Add(int64(len(b.Events))) > 10 {
			return down
		}
		return nil
	})
	stop := start(t, relay.Run)
	obs.until(t, "a refused batch", func() (bool, string) {
		obs.mu.Lock()
		defer obs.mu.Unlock()
		return len(obs.failed) > 0, ""
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	events := s.outbox(t, "E")
	if first, last := events[0].Seq, events[len(events)-1].Seq; first > 10 || last != 31 {
		t.Fatalf("the outbox goes from %d to %d, want at most 10 to 31", first, last)
	}
}

// TestLoop_EveryPartRestartsInMidStream stops and starts relay, ledger and sweeper
// while the sale goes on.
func TestLoop_EveryPartRestartsInMidStream(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		cfg := pipeConfig(t, testenv.Kafka(t))
		cfg.RelayBatch, cfg.LedgerBatch = 8, 16
		s := newShop(t, cfg)
		obs := newSignals()
		s.load(t, "E", map[string]int64{"A": 400, "B": 300})
		done := make(chan struct{})
		go func() {
			defer close(done)
			traffic(t, s, "E", 6, 150)
		}()
		parts := []func() func(context.Context) error{
			func() func(context.Context) error { return newRelay(t, s, obs).Run },
			func() func(context.Context) error { return newLedger(t, s.cfg, db, obs).Run },
			func() func(context.Context) error { return s.Run },
		}
		stops := make([]func() error, len(parts))
		for i, p := range parts {
			stops[i] = start(t, p())
		}
		for restarts := 0; restarts < 12; restarts++ {
			select {
			case <-obs.moved: // something was relayed or applied since the last restart
			case <-time.After(deadline):
				t.Fatal("nothing moves")
			}
			i := rand.IntN(len(parts))
			if err := stops[i](); err != nil {
				t.Fatal(err)
			}
			stops[i] = start(t, parts[i]())
			select {
			case <-done:
				restarts = 12
			default:
			}
		}
		<-done
		obs.drained(t, newChecker(t, s, db))
	})
}

func TestLedger_GapInKafkaStopsLoudly(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	cfg := pipeConfig(t, testenv.Kafka(t))
	cfg.RelayBatch = 4
	s := newShop(t, cfg)
	s.load(t, "E", map[string]int64{"A": 100})
	for i := range 11 {
		s.mustHold(t, want(fmt.Sprint("u", i), "k", item("A", 1)))
	}
	obs := newSignals()
	stop := start(t, newRelay(t, s, obs).Run)
	obs.until(t, "delivery", func() (bool, string) {
		snap, err := s.Snapshot(t.Context(), "E")
		if err != nil {
			t.Fatal(err)
		}
		return snap.Pending() == 0, fmt.Sprint(snap.Pending(), " pending")
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// An outbox whose events 13 to 15 were lost, as if the topic had been cut.
	producer, err := sarama.NewSyncProducer(cfg.Kafka.Brokers, stockapi.SaramaConfig(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = producer.Close() }()
	value, err := stockapi.EncodeBatch(stockapi.Batch{Event: "E", Epoch: 1, Events: []stockapi.Event{{
		Seq: 16, Type: stockapi.EventHold, Hold: "aaaaaaaaaaaaaaaaaaaaaaaaaa", User: "u", RedisMS: 1,
		Items: []stockapi.EventItem{{SKU: "A", Qty: 1, AvailAfter: 85}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: cfg.Kafka.Topic, Key: sarama.StringEncoder("E:0"), Value: sarama.ByteEncoder(value)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := newLedger(t, s.cfg, db, obs).Run(ctx); !errors.Is(err, stockapi.ErrGap) {
		t.Fatalf("run: %v, want ErrGap", err)
	}
	if got := count(t, db, "SELECT COUNT(*) FROM stock_flow WHERE seq>=13"); got != 0 {
		t.Errorf("%d events behind the gap were applied", got)
	}
	if len(obs.stopped) != 1 {
		t.Errorf("observer heard of %d stops, want 1", len(obs.stopped))
	}
}

// TestLoop_RedisThatLostItsWritesIsFoundOut empties Redis under a running sale and
// loads the same epoch again, as a process that boots might do it.
func TestLoop_RedisThatLostItsWritesIsFoundOut(t *testing.T) {
	eachDB(t, func(t *testing.T, db *sql.DB) {
		s := newShop(t, pipeConfig(t, testenv.Kafka(t)))
		obs := newSignals()
		s.load(t, "E", map[string]int64{"A": 10})
		s.mustHold(t, want("u1", "k", item("A", 1)))
		start(t, newRelay(t, s, obs).Run)
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		stopped := make(chan error, 1)
		go func() { stopped <- newLedger(t, s.cfg, db, obs).Run(ctx) }()
		obs.drained(t, newChecker(t, s, db))
		before := state(t, db)
		for key := range s.dump(t) {
			if err := s.rdb.Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.load(t, "E", map[string]int64{"A": 10})
		s.mustHold(t, want("u2", "k", item("A", 1)))
		if err := <-stopped; !errors.Is(err, stockapi.ErrDivergence) {
			t.Fatalf("ledger: %v, want ErrDivergence", err)
		}
		if got := state(t, db); got != before {
			t.Fatalf("tables changed:\n%s\nwant\n%s", got, before)
		}
	})
}

func TestLoop_SurvivesKafkaBeingAway(t *testing.T) {
	kafka, err := testenv.StartKafka(t.Context(), testenv.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kafka.Stop(context.Background()) })
	db := newDB(t, testenv.MariaDB(t))
	cfg := pipeConfig(t, kafka.Brokers())
	if err := kafka.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := newShop(t, cfg)
	obs := newSignals()
	s.load(t, "E", map[string]int64{"A": 300, "B": 300})
	start(t, newRelay(t, s, obs).Run) // Kafka is not even there at the start
	start(t, newLedger(t, s.cfg, db, obs).Run)
	traffic(t, s, "E", 4, 20)
	for range 2 {
		if err := kafka.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		obs.drained(t, newChecker(t, s, db))
		if err := kafka.Kill(); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			_, err := s.Hold(t.Context(), want(fmt.Sprint("away", i), fmt.Sprint(time.Now().UnixNano()), item("A", 1)))
			if err != nil {
				t.Fatalf("hold while kafka is away: %v", err)
			}
		}
	}
	if err := kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	obs.drained(t, newChecker(t, s, db))
}

func TestEnsureTopic_TwiceIsFineAndImpossibleSaysWhy(t *testing.T) {
	cfg := pipeConfig(t, testenv.Kafka(t))
	if err := stockapi.EnsureTopic(cfg, nil); err != nil {
		t.Fatalf("again: %v", err)
	}
	cfg.Kafka.Topic = testenv.UniqueName(t, "stock")
	cfg.Kafka.Replication = 3 // there is one broker
	if err := stockapi.EnsureTopic(cfg, nil); err == nil {
		t.Fatal("a topic with more replicas than brokers was created")
	} else {
		t.Log(err)
	}
}
