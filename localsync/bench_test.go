package localsync_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const benchKeys = 10_000

// benchNode is a node on the real clock with benchKeys resident values.
func benchNode[V any](b *testing.B, codec localsync.Codec[V], value V) *localsync.Module[int64, V] {
	b.Helper()
	n := newNode(b, func(o *localsync.Options) { o.Now, o.MaxBytes, o.ReplicaLag = time.Now, 256<<20, time.Millisecond })
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Refresh: time.Hour}, codec,
		func(_ context.Context, ids []int64) (map[int64]V, error) {
			out := make(map[int64]V, len(ids))
			for _, id := range ids {
				out[id] = value
			}
			return out, nil
		})
	if err != nil {
		b.Fatal(err)
	}
	// Values are to have a version; without one they are looked at again soon.
	n.wm = 1
	n.beat()
	<-time.After(10 * time.Millisecond)
	var ids []int64
	for id := range int64(benchKeys) {
		ids = append(ids, id)
	}
	if _, err := m.GetMany(b.Context(), ids); err != nil {
		b.Fatal(err)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // the bus must not fall silent during a long run
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.beat()
			case <-stop:
				return
			}
		}
	}()
	b.Cleanup(func() { close(stop); <-done })
	return m
}

// document is about 880 bytes of JSON, the size of research/cache.md's figures.
type document struct {
	ID     int64             `json:"id"`
	Title  string            `json:"title"`
	Body   string            `json:"body"`
	Tags   []string          `json:"tags"`
	Prices map[string]string `json:"prices"`
}

func sample() document {
	return document{
		ID: 42, Title: "Hamlet", Body: strings.Repeat("to be or not to be ", 38),
		Tags: []string{"theatre", "classic", "tragedy"}, Prices: map[string]string{"A": "120.00", "B": "80.00"},
	}
}

func BenchmarkGetLocal(b *testing.B) {
	for _, size := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			benchGet(b, benchNode(b, localsync.Bytes(), make([]byte, size)))
		})
	}
	b.Run("json=880", func(b *testing.B) { benchGet(b, benchNode(b, localsync.JSON[document](), sample())) })
}

func benchGet[V any](b *testing.B, m *localsync.Module[int64, V]) {
	b.Helper()
	b.ReportAllocs()
	ctx := b.Context()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			if _, err := m.Get(ctx, i%benchKeys); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := int64(0); pb.Next(); i++ {
				if _, err := m.Get(ctx, i%benchKeys); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkGetManyLocal100(b *testing.B) {
	m := benchNode(b, localsync.Bytes(), make([]byte, 1000))
	ids := make([]int64, 100)
	for i := range ids {
		ids[i] = int64(i) * 97
	}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := m.GetMany(b.Context(), ids); err != nil || len(got) != len(ids) {
			b.Fatal(len(got), err)
		}
	}
}

// BenchmarkApply is the bus side: records of 100 invalidations, a tenth of them
// resident.
func BenchmarkApply(b *testing.B) {
	n := newNode(b, func(o *localsync.Options) { o.Now = time.Now })
	items := make([]rowtide.Invalidation, 100)
	v := rowtide.Version(1)
	b.ReportAllocs()
	for b.Loop() {
		v++
		for i := range items {
			items[i] = rowtide.Invalidation{Key: eventKey(int64(v)*7 + int64(i)), Version: v}
		}
		n.bus.batch(0, time.Now(), v, items...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/invalidation")
}
