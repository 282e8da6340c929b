// Package localprom makes Prometheus metrics of a node's cache. It is apart from
// localsync so that web nodes without Prometheus do not get its packages.
//
//	cache, err := localsync.Open(ctx, localsync.Options{
//		Redis: rdb, Brokers: brokers, Observer: localprom.New(prometheus.DefaultRegisterer),
//	})
//
// With an observer of your own beside it: localsync.Observers(localprom.New(reg), own).
package localprom

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// latency buckets from 100 µs to 10 s, three per decade.
var latency = []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// metrics reads a cache's statistics when it is scraped; the hooks are only for
// what must be timed as it happens.
type metrics struct {
	localsync.NopObserver
	cache atomic.Pointer[localsync.Cache]

	load   *prometheus.HistogramVec
	commit prometheus.Histogram
}

// New registers the metrics of docs/metrics.md, Web nodes, and returns the
// observer to open one cache with; until then they are not there. It panics when
// reg has them already: wrap reg with a label to open several caches in one
// process (prometheus.WrapRegistererWith).
func New(reg prometheus.Registerer) localsync.Observer {
	m := &metrics{
		load: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rowtide_localsync_load_seconds", Help: "Calls of the loader.", Buckets: latency,
		}, []string{"module"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rowtide_localsync_commit_to_node_seconds", Help: "From a commit (source's clock) until the bus told this node, which hints do sooner.", Buckets: latency,
		}),
	}
	reg.MustRegister(m, m.load, m.commit)
	return m
}

// Opened implements localsync.Observer.
func (m *metrics) Opened(c *localsync.Cache) { m.cache.Store(c) }

// Loaded implements localsync.Observer.
func (m *metrics) Loaded(module string, _ int, took time.Duration, _ error) {
	m.load.WithLabelValues(module).Observe(took.Seconds())
}

// Applied implements localsync.Observer.
func (m *metrics) Applied(_ rowtide.Invalidation, b *rowtide.Batch) {
	if !b.CommittedAt.IsZero() {
		m.commit.Observe(max(time.Since(b.CommittedAt), 0).Seconds())
	}
}

// perModule are the numbers that each module has; versions of one name are added
// up.
var perModule = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*localsync.ModuleStats) float64
}{
	{module("empty_reads_total", "Reads that were answered with not found."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Empty) }},
	{module("stale_reads_total", "Reads that were answered with a value marked stale."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Stale) }},
	{module("failed_reads_total", "Reads that gave neither a value nor not found."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Errors) }},
	{module("failed_loads_total", "Keys that a call of the loader failed for."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.LoadErrors) }},
	{module("unasked_keys_total", "Keys that the loader returned without having been asked for them."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Unasked) }},
	{module("refreshes_total", "Entries renewed behind a reader."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Refreshes) }},
	{module("refused_values_total", "Values not kept, because of something newer or their size."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Refused) }},
	{module("unusable_values_total", "Values in Redis that were foreign, damaged or of a newer format."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Corrupt) }},
	{module("behind_values_total", "Values in Redis older than this node knew."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Behind) }},
	{module("redis_failures_total", "Round trips to Redis that failed."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.RedisErrors) }},
	{module("leased_keys_total", "Keys that this node took on itself to load for the fleet."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.Leases) }},
	{module("lease_waits_total", "Keys that this node left to another to load."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.LeaseWaits) }},
	{module("lease_timeouts_total", "Keys that it loaded after all, having waited for long enough."), prometheus.CounterValue, func(s *localsync.ModuleStats) float64 { return float64(s.LeaseTimeouts) }},
	{module("loading_keys", "Keys being read from Redis or the loader."), prometheus.GaugeValue, func(s *localsync.ModuleStats) float64 { return float64(s.Loading) }},
}

// perNode are the numbers of the whole cache.
var perNode = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*localsync.Stats) float64
}{
	{node("invalidations_total", "Invalidations applied."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Applied) }},
	{node("hints_total", "Invalidations that Redis passed on ahead of the bus."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Hinted) }},
	{node("bus_records_total", "Records heard that carried invalidations."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Records) }},
	{node("bus_heartbeats_total", "Heartbeats heard."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Heartbeats) }},
	{node("bus_gaps_total", "Times that a partition turned suspect."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Gaps) }},
	{node("bus_undecodable_total", "Records that could not be read."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Undecodable) }},
	{node("bus_resizes_total", "Times that the topic had another number of partitions than before."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Resized) }},
	{node("bus_partitions", "Partitions of the bus."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Partitions) }},
	{node("bus_silent_partitions", "Partitions of which nothing newer than Options.Silence is known; above 0 the node is degraded."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Bus.Silent) }},
	{node("bus_lag_seconds", "From the daemon's sending to here, or how long the quietest partition has been silent."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return s.Bus.Lag.Seconds() }},
	{node("bus_behind_seconds", "How far behind the source the daemon says it is; from Options.Silence on the node is degraded."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return s.Bus.Behind.Seconds() }},
	{node("store_entries", "Entries in the local store."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Store.Entries) }},
	{node("store_floors", "Recently changed keys that are remembered."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Store.Floors) }},
	{node("store_bytes", "Bytes that the local store has allocated for values."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Store.Bytes) }},
	{node("store_live_bytes", "Of those, what entries take."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Store.Live) }},
	{node("store_limit_bytes", "Options.MaxBytes."), prometheus.GaugeValue, func(s *localsync.Stats) float64 { return float64(s.Store.MaxBytes) }},
	{node("store_evictions_total", "Entries that made room for others."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Store.Evicted) }},
	{node("store_compactions_total", "Times that a shard's entries were moved to fresh memory."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Store.Compactions) }},
	{node("store_too_big_total", "Values not kept for their size."), prometheus.CounterValue, func(s *localsync.Stats) float64 { return float64(s.Store.TooBig) }},
}

var reads = prometheus.NewDesc("rowtide_localsync_reads_total", "Reads by the level that answered.", []string{"module", "level"}, nil)

func module(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("rowtide", "localsync", name), help, []string{"module"}, nil)
}

func node(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("rowtide", "localsync", name), help, nil, nil)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- reads
	for _, p := range perModule {
		ch <- p.desc
	}
	for _, p := range perNode {
		ch <- p.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	c := m.cache.Load()
	if c == nil {
		return
	}
	s := c.Stats()
	for same := s.Modules; len(same) > 0; { // sorted by name
		n := 1
		for n < len(same) && same[n].Name == same[0].Name {
			n++
		}
		collectModule(ch, same[:n])
		same = same[n:]
	}
	for _, p := range perNode {
		ch <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(&s))
	}
}

// collectModule adds up the versions of one module.
func collectModule(ch chan<- prometheus.Metric, versions []localsync.ModuleStats) {
	name := versions[0].Name
	byLevel := map[localsync.Level]float64{}
	for i := range versions {
		for l, n := range versions[i].ByLevel() {
			byLevel[l] += float64(n)
		}
	}
	for l, n := range byLevel {
		ch <- prometheus.MustNewConstMetric(reads, prometheus.CounterValue, n, name, l.String())
	}
	for _, p := range perModule {
		sum := 0.0
		for i := range versions {
			sum += p.value(&versions[i])
		}
		ch <- prometheus.MustNewConstMetric(p.desc, p.kind, sum, name)
	}
}
