//go:build integration

package publisher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// BenchmarkRedis_Overwrite is where the numbers of keys per call, keys per
// pipeline and lanes come from; change them and run it.
func BenchmarkRedis_Overwrite(b *testing.B) {
	s, err := testenv.StartRedis(b.Context(), testenv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Stop(b.Context()) })
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	b.Cleanup(func() { rdb.Close() })
	if err := rdb.Set(b.Context(), termKey, 1, 0).Err(); err != nil {
		b.Fatal(err)
	}
	for _, flush := range []int{1, 50, 1000, 10000} {
		for lanes := 1; lanes <= 4; lanes++ {
			for _, layout := range []publisher.Layout{publisher.LayoutEnvelope, publisher.LayoutPlain} {
				if lanes > 1 && flush <= 50 {
					continue // one call, one lane
				}
				for term := range uint64(2) { // without and with a fence
					b.Run(fmt.Sprintf("flush=%d/lanes=%d/layout=%d/term=%d", flush, lanes, layout, term), func(b *testing.B) {
						overwriteAgain(b, flush, publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{}, publisher.WithLanes(lanes),
							publisher.WithFence(termKey, term), publisher.WithLayout(func(string) publisher.Layout { return layout })))
					})
				}
			}
		}
	}
}

func overwriteAgain(b *testing.B, flush int, r *publisher.Redis) {
	entries := make([]rowtide.Entry, flush)
	for i := range entries {
		entries[i] = entry(i, 1)
	}
	begin := time.Now()
	v := rowtide.Version(begin.UnixNano()) // newer than the case before
	for b.Loop() {
		v++
		for i := range entries {
			entries[i].Version = v
		}
		if err := r.Overwrite(b.Context(), entries); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*flush)/time.Since(begin).Seconds(), "keys/s")
}
