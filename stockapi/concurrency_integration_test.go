//go:build integration

package stockapi_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide/stockapi"
)

func TestEnd_RaceOfCancelConfirmAndExpireReturnsOnce(t *testing.T) {
	const holds = 300
	s := newShop(t, stockapi.Config{Grace: -1, SweepBatch: 7})
	s.load(t, "E", map[string]int64{"A": holds})
	ids := make([]stockapi.HoldID, holds)
	for i := range holds {
		req := want(fmt.Sprint("u", i), "k", item("A", 1))
		req.TTL = time.Millisecond
		ids[i] = s.mustHold(t, req).ID
	}
	// All of them are due, or will be within a millisecond. Sweepers go by deadline;
	// buyers come from the other end, two for each hold, and meet the sweepers.
	var confirmed atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range holds / 20 {
				if _, err := s.Sweep(t.Context()); err != nil {
					t.Errorf("sweep: %v", err)
				}
			}
		})
	}
	each := func(f func(i int, id stockapi.HoldID) error) {
		wg.Go(func() {
			for i := range ids {
				i = holds - 1 - i
				if err := f(i, ids[i]); err != nil && stockapi.RefusalCode(err) == "" {
					t.Errorf("hold %d: %v", i, err)
				}
			}
		})
	}
	cancel := func(_ int, id stockapi.HoldID) error {
		_, err := s.Cancel(t.Context(), id, "race")
		return err
	}
	each(cancel)
	each(cancel)
	each(func(i int, id stockapi.HoldID) error {
		if i%3 != 0 {
			return nil
		}
		h, err := s.Confirm(t.Context(), id, "p")
		if err == nil && !h.Replayed {
			confirmed.Add(1)
		}
		return err
	})
	wg.Wait()
	sold := confirmed.Load()
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Avail: holds - sold, Sold: sold, Loaded: holds}); got != want {
		t.Fatalf("counters=%+v, want %+v", got, want)
	}
	ends, kinds := make(map[string]int), make(map[stockapi.EventType]int)
	for _, e := range s.outbox(t, "E") {
		if e.Type != stockapi.EventHold && e.Type != stockapi.EventLoad {
			ends[e.Hold]++
			kinds[e.Type]++
		}
	}
	t.Logf("ends: %v", kinds)
	for id, n := range ends {
		if n != 1 {
			t.Errorf("hold %s ended %d times", id, n)
		}
	}
	if len(ends) != holds {
		t.Errorf("%d holds ended, want %d", len(ends), holds)
	}
}

func TestHold_NeverOversellsAndSellsEverything(t *testing.T) {
	const stock, buyers = 500, 64
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": stock, "B": stock})
	var soldA, soldB, refused atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			snap, err := s.Snapshot(t.Context(), "E")
			if err != nil {
				t.Errorf("snapshot: %v", err)
				return
			}
			for sku, n := range snap.SKUs {
				if n.Avail < 0 || n.Held < 0 || n.Sold < 0 || n.Avail+n.Held+n.Sold != stock {
					t.Errorf("at seq %d %s: %+v", snap.Seq, sku, n)
				}
			}
		}
	})
	for w := range buyers {
		wg.Go(func() {
			for i := range 3 * stock / buyers * 2 { // demand is three times the stock
				req := want(fmt.Sprintf("u%d", w), fmt.Sprint(i), item("A", 1))
				if i%2 == 1 {
					req.Items = []stockapi.Item{item("B", 1+int64(i%3))}
				}
				h, err := s.Hold(t.Context(), req)
				switch stockapi.RefusalCode(err) {
				case "":
					if err != nil {
						t.Errorf("hold: %v", err)
						return
					}
				case stockapi.CodeSoldOut, stockapi.CodeAllHeld:
					refused.Add(1)
					continue
				default:
					t.Errorf("hold: %v", err)
					return
				}
				if _, err := s.Confirm(t.Context(), h.ID, "p"); err != nil {
					t.Errorf("confirm: %v", err)
					return
				}
				if req.Items[0].SKU == "A" {
					soldA.Add(1)
				} else {
					soldB.Add(req.Items[0].Qty)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	watcher.Wait()
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Sold: stock, Loaded: stock}); got != want {
		t.Errorf("A: %+v, want %+v", got, want)
	}
	if got := s.counters(t, "E", "B"); got.Sold != soldB.Load() || got.Avail > 2 || got.Held != 0 {
		t.Errorf("B: %+v, buyers have %d", got, soldB.Load())
	}
	if soldA.Load() != stock || refused.Load() == 0 {
		t.Errorf("buyers have %d of A, want %d; %d refused", soldA.Load(), stock, refused.Load())
	}
}
