//go:build integration

package stockapi_test

import (
	"database/sql"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// BenchmarkService is operations per second of one Service on the shared Redis, 64
// callers at a time.
func BenchmarkService(b *testing.B) {
	limits := []stockapi.LimitRule{
		{ID: "ev", Per: []string{"user", "event"}, Max: 5},
		{ID: "sku", Per: []string{"user", "sku"}, Max: 3},
	}
	for _, bc := range []struct {
		name    string
		cfg     stockapi.Config
		stock   int64
		confirm bool
	}{
		{"hold", stockapi.Config{}, 1 << 40, false},
		{"hold with 2 limits", stockapi.Config{Limits: limits}, 1 << 40, false},
		{"hold and confirm", stockapi.Config{}, 1 << 40, true},
		{"sold out", stockapi.Config{}, 0, false},
	} {
		b.Run(bc.name, func(b *testing.B) {
			cfg := bc.cfg
			cfg.OutboxMax = 1 << 40
			s := newShop(b, cfg)
			s.load(b, "E", map[string]int64{"A": bc.stock})
			var n atomic.Int64
			b.SetParallelism(32) // per core, and there are two
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := strconv.FormatInt(n.Add(1), 10)
					h, err := s.Hold(b.Context(), want("u"+i, i, item("A", 1)))
					if code := stockapi.RefusalCode(err); err != nil && code != stockapi.CodeSoldOut {
						b.Error(err)
						return
					}
					if bc.confirm {
						if _, err := s.Confirm(b.Context(), h.ID, "p"); err != nil {
							b.Error(err)
							return
						}
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
	}
}

// BenchmarkLedger is events per second of one ledger, one SKU, transactions of 256
// events: half of them holds, half confirms of the batch before.
func BenchmarkLedger(b *testing.B) {
	for _, target := range testenv.SQLServers(b) {
		b.Run(target.Flavor, func(b *testing.B) { benchLedger(b, newDB(b, target)) })
	}
}

func benchLedger(b *testing.B, db *sql.DB) {
	const stock, batch = 1 << 40, 256
	l := newLedger(b, stockapi.Config{Kafka: stockapi.KafkaConfig{Topic: "bench"}}, db, nil)
	apply(b, l, records([]stockapi.Event{{
		Seq: 1, Type: stockapi.EventLoad, RedisMS: 1, Load: &stockapi.EventLoadInfo{Cells: 1},
		Items: []stockapi.EventItem{{SKU: "A", Qty: stock, AvailAfter: stock}},
	}}, 1, 0)...)
	id := func(i int64) string { return fmt.Sprintf("%026d", i)[:26] }
	seq, held := int64(1), int64(0)
	i := int64(0)
	for b.Loop() {
		i++
		events := make([]stockapi.Event, 0, batch)
		for range batch / 2 {
			seq, held = seq+1, held+1
			events = append(events, stockapi.Event{
				Seq: seq, Type: stockapi.EventHold, Hold: id(held), User: "u", Deadline: 1762826400000, RedisMS: 1762825800000,
				Items: []stockapi.EventItem{{SKU: "A", Qty: 1, AvailAfter: stock - held}},
			})
		}
		for j := range int64(batch / 2) {
			if held-batch < 0 {
				break
			}
			seq++
			events = append(events, stockapi.Event{
				Seq: seq, Type: stockapi.EventConfirm, Hold: id(held - batch + 1 + j), User: "u", Deadline: 1762826400000, RedisMS: 1762825800000,
				Items: []stockapi.EventItem{{SKU: "A", Qty: 1, AvailAfter: stock - held}},
			})
		}
		apply(b, l, records(events, batch, i)...)
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "events/s")
}
