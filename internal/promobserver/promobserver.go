// Package promobserver turns the stages' hooks into Prometheus metrics. The
// stages know only their own small Observer interfaces, so that whoever embeds
// one of them is not made to use Prometheus.
package promobserver

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// latency buckets from 100 µs to 10 s, three per decade.
var latency = []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// Pipeline observes the source, the aggregator and the publisher of one daemon.
type Pipeline struct {
	transactions, changes, bytes, reconnects prometheus.Counter
	connected, redisUp, kafkaUp, commit      prometheus.Gauge
	flushes, entries, invalidations          prometheus.Counter
	flushSeconds, lagSeconds, sendSeconds    prometheus.Histogram
	overwrites, rebuilt, setAside, raised    *prometheus.CounterVec
	rebuildSeconds                           *prometheus.HistogramVec
	filled, fillDropped, fillFailures        prometheus.Counter
	filling, fillRemaining                   prometheus.Gauge
	heartbeatSeconds                         prometheus.Histogram

	state State
}

// State is what /readyz and /status tell, kept beside the metrics.
type State struct {
	Connected, RedisAway, KafkaAway atomic.Bool
	CheckpointAway                  atomic.Bool
	Transactions, Changes, Entries  atomic.Int64
	Written, Stale                  atomic.Int64
	LagMicros                       atomic.Int64
}

// New makes the metrics and registers them.
func New(reg prometheus.Registerer) *Pipeline {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	hist := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latency})
	}
	p := &Pipeline{
		transactions:  counter("rowtide_source_transactions_total", "Transactions read from the log."),
		changes:       counter("rowtide_source_changes_total", "Row changes of watched tables read from the log."),
		bytes:         counter("rowtide_source_rows_bytes_total", "Size of rows events read from the log."),
		reconnects:    counter("rowtide_source_reconnects_total", "Times the stream broke and was opened again."),
		connected:     gauge("rowtide_source_connected", "1 while the log is being read."),
		commit:        gauge("rowtide_source_last_commit_timestamp_seconds", "Source's clock at the commit read last."),
		flushes:       counter("rowtide_aggregator_flushes_total", "Flushes that Redis and Kafka have acknowledged."),
		entries:       counter("rowtide_aggregator_entries_total", "Entries in those flushes."),
		flushSeconds:  hist("rowtide_aggregator_flush_seconds", "From taking a flush to Kafka's acknowledgement."),
		lagSeconds:    hist("rowtide_aggregator_lag_seconds", "From a flush's oldest commit (source's clock) to Kafka's acknowledgement."),
		invalidations: counter("rowtide_publisher_invalidations_total", "Invalidations that Kafka acknowledged."),
		sendSeconds:   hist("rowtide_publisher_broadcast_seconds", "From building a flush's records to Kafka's acknowledgement."),
		redisUp:       gauge("rowtide_publisher_redis_up", "1 while Redis accepts writes."),
		kafkaUp:       gauge("rowtide_publisher_kafka_up", "1 while Kafka accepts records."),
		overwrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rowtide_publisher_overwrites_total", Help: "Keys by what set-if-newer did with them.",
		}, []string{"module", "result"}),
		rebuilt: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rowtide_aggregator_rebuilt_keys_total", Help: "Documents assembled by queries.",
		}, []string{"module"}),
		setAside: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rowtide_aggregator_set_aside_total", Help: "Changes that went to the dead letters.",
		}, []string{"module"}),
		raised: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rowtide_aggregator_generations_total", Help: "Times that a module's generation was raised.",
		}, []string{"module"}),
		rebuildSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rowtide_aggregator_rebuild_seconds", Help: "Queries for one batch of documents.", Buckets: latency,
		}, []string{"module"}),
	}
	p.filled = counter("rowtide_backfill_rows_total", "Rows that a backfill read and handed over.")
	p.fillDropped = counter("rowtide_backfill_dropped_rows_total", "Rows that a backfill read and left to the log, which had changed them meanwhile.")
	p.fillFailures = counter("rowtide_backfill_failures_total", "Backfills that were given up.")
	p.filling = gauge("rowtide_backfill_running", "1 while a table is being read.")
	p.fillRemaining = gauge("rowtide_backfill_remaining_rows", "Estimated rows that the running backfill has not read yet.")
	p.heartbeatSeconds = hist("rowtide_source_heartbeat_seconds", "From writing the heartbeat row to the checkpoint that covers it.")
	reg.MustRegister(p.filled, p.fillDropped, p.fillFailures, p.filling, p.fillRemaining, p.heartbeatSeconds)
	p.redisUp.Set(1)
	p.kafkaUp.Set(1)
	reg.MustRegister(p.transactions, p.changes, p.bytes, p.reconnects, p.connected, p.commit, p.flushes, p.entries, p.flushSeconds,
		p.lagSeconds, p.invalidations, p.sendSeconds, p.redisUp, p.kafkaUp, p.overwrites, p.rebuilt, p.rebuildSeconds,
		p.setAside, p.raised)
	return p
}

// State is live.
func (p *Pipeline) State() *State { return &p.state }

// Connected implements binlog.Observer.
func (p *Pipeline) Connected() {
	p.state.Connected.Store(true)
	p.connected.Set(1)
}

// Disconnected implements binlog.Observer.
func (p *Pipeline) Disconnected(error) {
	p.state.Connected.Store(false)
	p.connected.Set(0)
	p.reconnects.Inc()
}

// Received implements binlog.Observer.
func (p *Pipeline) Received(tx *rowtide.Tx) {
	p.state.Transactions.Add(1)
	p.state.Changes.Add(int64(len(tx.Changes)))
	p.transactions.Inc()
	p.changes.Add(float64(len(tx.Changes)))
	p.bytes.Add(float64(tx.Bytes))
	p.commit.Set(float64(tx.CommittedAt.UnixMicro()) / 1e6)
}

// Backfilled implements binlog.Observer.
func (p *Pipeline) Backfilled(rows, dropped int) {
	p.filled.Add(float64(rows))
	p.fillDropped.Add(float64(dropped))
}

// BackfillState implements binlog.Observer.
func (p *Pipeline) BackfillState(running bool, remaining int64) {
	p.filling.Set(0)
	if running {
		p.filling.Set(1)
	}
	p.fillRemaining.Set(float64(remaining))
}

// BackfillFailed implements binlog.Observer.
func (p *Pipeline) BackfillFailed() { p.fillFailures.Inc() }

// HeartbeatCovered implements binlog.Observer.
func (p *Pipeline) HeartbeatCovered(after time.Duration) { p.heartbeatSeconds.Observe(after.Seconds()) }

// CheckpointAway implements binlog.Observer.
func (p *Pipeline) CheckpointAway(err error) { p.state.CheckpointAway.Store(err != nil) }

// Flushed implements aggregator.Observer.
func (p *Pipeline) Flushed(_, entries int, d time.Duration, oldest time.Time) {
	lag := time.Since(oldest)
	p.state.Entries.Add(int64(entries))
	p.state.LagMicros.Store(lag.Microseconds())
	p.flushes.Inc()
	p.entries.Add(float64(entries))
	p.flushSeconds.Observe(d.Seconds())
	p.lagSeconds.Observe(lag.Seconds())
}

// Rebuilt implements aggregator.Observer.
func (p *Pipeline) Rebuilt(module string, keys int, d time.Duration) {
	p.rebuilt.WithLabelValues(module).Add(float64(keys))
	p.rebuildSeconds.WithLabelValues(module).Observe(d.Seconds())
}

// SetAside implements aggregator.Observer.
func (p *Pipeline) SetAside(module string, faults int) {
	p.setAside.WithLabelValues(module).Add(float64(faults))
}

// Raised implements aggregator.Observer.
func (p *Pipeline) Raised(module string) { p.raised.WithLabelValues(module).Inc() }

// Overwrote implements publisher.Observer.
func (p *Pipeline) Overwrote(module string, result overwrite.Result, n int) {
	if result == overwrite.Written {
		p.state.Written.Add(int64(n))
	} else {
		p.state.Stale.Add(int64(n))
	}
	p.overwrites.WithLabelValues(module, result.String()).Add(float64(n))
}

// Broadcast implements publisher.Observer.
func (p *Pipeline) Broadcast(n int, d time.Duration) {
	p.invalidations.Add(float64(n))
	p.sendSeconds.Observe(d.Seconds())
}

// RedisAway implements publisher.Observer.
func (p *Pipeline) RedisAway(err error) {
	p.state.RedisAway.Store(err != nil)
	p.redisUp.Set(up(err))
}

// KafkaAway implements publisher.Observer.
func (p *Pipeline) KafkaAway(err error) {
	p.state.KafkaAway.Store(err != nil)
	p.kafkaUp.Set(up(err))
}

func up(err error) float64 {
	if err != nil {
		return 0
	}
	return 1
}
