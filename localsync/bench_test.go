package localsync_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/allegro/bigcache/v3"
	"github.com/maypok86/otter/v2"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const benchKeys = 10_000

// benchNode is a node on the real clock with a resident value per key.
func benchNode[K comparable, V any](b *testing.B, keys []K, objects int, codec localsync.Codec[V], value V) *localsync.Module[K, V] {
	b.Helper()
	n := newNode(b, func(o *localsync.Options) { o.Now, o.MaxBytes, o.ReplicaLag = nil, 256<<20, time.Millisecond })
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[K]{Name: "event", Refresh: time.Hour, Objects: objects}, codec,
		func(_ context.Context, ids []K) (map[K]V, error) {
			out := make(map[K]V, len(ids))
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
	for range 2 { // what is read twice is decoded and kept
		for some := range slices.Chunk(keys, 100) {
			if _, err := m.GetMany(b.Context(), some); err != nil {
				b.Fatal(err)
			}
		}
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

func numbers() []int64 {
	ids := make([]int64, benchKeys)
	for i := range ids {
		ids[i] = int64(i)
	}
	return ids
}

func texts() []string {
	ids := make([]string, benchKeys)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	return ids
}

// BenchmarkBytes is Get of bytes beside bigcache's own Get of the same names and
// values. The names are spelled beforehand for bigcache and in each read for us.
func BenchmarkBytes(b *testing.B) {
	for _, size := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("%d/int64", size), func(b *testing.B) { benchBytes(b, numbers(), size) })
		b.Run(fmt.Sprintf("%d/string", size), func(b *testing.B) { benchBytes(b, texts(), size) })
	}
}

func benchBytes[K comparable](b *testing.B, ids []K, size int) {
	b.Helper()
	value := make([]byte, size)
	raw := rawBigcache(b)
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = fmt.Sprint("event:1:", id)
		if err := raw.Set(names[i], value); err != nil {
			b.Fatal(err)
		}
	}
	m := benchNode(b, ids, 0, localsync.Bytes(), value)
	ctx := b.Context()
	beside(b, "bigcache", func(i int) bool {
		v, err := raw.Get(names[i])
		return err == nil && len(v) == size
	}, func(i int) bool {
		v, err := m.Get(ctx, ids[i])
		return err == nil && len(v) == size
	})
}

func rawBigcache(b *testing.B) *bigcache.BigCache {
	b.Helper()
	cfg := bigcache.DefaultConfig(48 * time.Hour)
	cfg.CleanWindow, cfg.Shards, cfg.HardMaxCacheSize, cfg.Verbose = 0, 64, 256, false
	c, err := bigcache.New(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkObject is Get of decoded values beside otter's GetIfPresent.
func BenchmarkObject(b *testing.B) {
	b.Run("int64", func(b *testing.B) { benchObject(b, numbers()) })
	b.Run("string", func(b *testing.B) { benchObject(b, texts()) })
}

func benchObject[K comparable](b *testing.B, ids []K) {
	b.Helper()
	o := otter.Must(&otter.Options[K, document]{MaximumSize: 2 * benchKeys})
	for _, id := range ids {
		o.Set(id, sample())
	}
	m := benchNode(b, ids, 2*benchKeys, localsync.JSON[document](), sample())
	ctx := b.Context()
	beside(b, "otter", func(i int) bool {
		v, ok := o.GetIfPresent(ids[i])
		return ok && v.ID == 42
	}, func(i int) bool {
		v, err := m.Get(ctx, ids[i])
		return err == nil && v.ID == 42
	})
}

// beside measures two reads in turns, so that whatever else the machine does
// slows both, and reports the medians and their ratio. An operation is one turn of
// both. Both take the ids in the same order, which no prefetcher follows.
func beside(b *testing.B, name string, theirs, ours func(i int) bool) {
	b.Helper()
	for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("procs=%d", workers), func(b *testing.B) {
			var took [2][]float64
			at := 0
			for b.Loop() {
				for i, read := range []func(int) bool{theirs, ours} {
					took[i] = append(took[i], turn(b, workers, at, read))
				}
				at += turnReads
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(took[0]), name+"-ns")
			b.ReportMetric(median(took[1]), "ours-ns")
			b.ReportMetric(median(took[1])/median(took[0]), "ratio")
			b.ReportMetric(testing.AllocsPerRun(1000, func() { _ = ours(1) }), "ours-allocs")
		})
	}
}

// turnReads is short enough that most turns are not interrupted, so that the median
// is of the reads and not of the scheduler.
const turnReads = 500

// turn is the nanoseconds that one read takes of the wall clock, with all workers
// reading.
func turn(b *testing.B, workers, at int, read func(i int) bool) float64 {
	b.Helper()
	var g sync.WaitGroup
	began := time.Now()
	for w := range workers {
		g.Go(func() {
			for i := range turnReads {
				if !read((at + w*benchKeys/2 + i) * 7919 % benchKeys) {
					b.Error("a read failed")
					return
				}
			}
		})
	}
	g.Wait()
	return float64(time.Since(began).Nanoseconds()) / float64(turnReads*workers)
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func BenchmarkJSON(b *testing.B) {
	m := benchNode(b, numbers(), 0, localsync.JSON[document](), sample())
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if _, err := m.Get(b.Context(), i%benchKeys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetMany100(b *testing.B) {
	m := benchNode(b, numbers(), 0, localsync.Bytes(), make([]byte, 1000))
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
