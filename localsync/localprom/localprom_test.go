package localprom_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/localsync/localprom"
)

// bus lets the test speak on partition 0.
type bus struct{ sink chan localsync.Sink }

func (b bus) Open(context.Context) (int32, error) { return 1, nil }
func (b bus) Close() error                        { return nil }

func (b bus) Run(ctx context.Context, s localsync.Sink) error {
	b.sink <- s
	<-ctx.Done()
	return nil
}

func open(t *testing.T, reg prometheus.Registerer, more ...localsync.Observer) (*localsync.Cache, localsync.Sink) {
	t.Helper()
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr()})
	t.Cleanup(func() { rdb.Close() })
	b := bus{make(chan localsync.Sink, 1)}
	c, err := localsync.Open(t.Context(), localsync.Options{
		Redis: rdb, Bus: b, ReportEvery: -1, Logger: slog.New(slog.DiscardHandler),
		Observer: localsync.Observers(append(more, localprom.New(reg))...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c, <-b.sink
}

func TestNew_CountsPerModuleAndLevel(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c, sink := open(t, reg)
	load := func(_ context.Context, ids []int) (map[int][]byte, error) {
		return map[int][]byte{1: []byte("one")}, nil
	}
	for _, version := range []uint16{1, 2} {
		m, err := localsync.NewModule(c, localsync.ModuleConfig[int]{Name: "show", Version: version}, localsync.Bytes(), load)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []int{1, 1, 1, 2} {
			_, _ = m.Get(t.Context(), id)
		}
	}
	r := rowtide.Batch{
		Producer: 1, Sequence: 1, SentAt: time.Now(), CommittedAt: time.Now().Add(-time.Millisecond),
		Items: []rowtide.Invalidation{{Key: rowtide.Key{Module: "show", Version: 1, ID: "1"}, Version: 7}},
	}
	sink.Record(0, r.AppendBatch(nil))

	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP rowtide_localsync_reads_total Reads by the level that answered.
# TYPE rowtide_localsync_reads_total counter
rowtide_localsync_reads_total{level="loader",module="show"} 4
rowtide_localsync_reads_total{level="local",module="show"} 4
rowtide_localsync_reads_total{level="object",module="show"} 0
rowtide_localsync_reads_total{level="redis",module="show"} 0
# HELP rowtide_localsync_empty_reads_total Reads that were answered with not found.
# TYPE rowtide_localsync_empty_reads_total counter
rowtide_localsync_empty_reads_total{module="show"} 2
# HELP rowtide_localsync_invalidations_total Invalidations applied.
# TYPE rowtide_localsync_invalidations_total counter
rowtide_localsync_invalidations_total 1
`), "rowtide_localsync_reads_total", "rowtide_localsync_empty_reads_total", "rowtide_localsync_invalidations_total")
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"rowtide_localsync_load_seconds", "rowtide_localsync_commit_to_node_seconds", "rowtide_localsync_store_limit_bytes"} {
		if n, err := testutil.GatherAndCount(reg, name); n != 1 || err != nil {
			t.Errorf("%s is there %d times, %v", name, n, err)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// seen is an application's own observer.
type seen struct {
	localsync.NopObserver
	opened, applied int
}

func (s *seen) Opened(*localsync.Cache)                      { s.opened++ }
func (s *seen) Applied(rowtide.Invalidation, *rowtide.Batch) { s.applied++ }

func TestNew_WorksBesideAnotherObserverAndTwiceUnderDifferentLabels(t *testing.T) {
	reg, own := prometheus.NewPedanticRegistry(), &seen{}
	_, sink := open(t, prometheus.WrapRegistererWith(prometheus.Labels{"cache": "a"}, reg), own)
	open(t, prometheus.WrapRegistererWith(prometheus.Labels{"cache": "b"}, reg))
	r := rowtide.Batch{Producer: 1, Sequence: 1, SentAt: time.Now(), Items: []rowtide.Invalidation{{Key: rowtide.Key{Module: "show", Version: 1, ID: "1"}, Version: 7}}}
	sink.Record(0, r.AppendBatch(nil))
	if own.opened != 1 || own.applied != 1 {
		t.Errorf("the own observer was told %+v", own)
	}
	if n, err := testutil.GatherAndCount(reg, "rowtide_localsync_store_entries"); n != 2 || err != nil {
		t.Errorf("%d caches told, %v", n, err)
	}
}

func TestNew_BeforeOpenTellsNothingOfACache(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	localprom.New(reg)
	if n, err := testutil.GatherAndCount(reg, "rowtide_localsync_store_entries"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
