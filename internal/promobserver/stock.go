package promobserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide/stockapi"
)

// Stock observes the stock API. It implements stockapi.Observer.
type Stock struct {
	operations  *prometheus.CounterVec
	opSeconds   *prometheus.HistogramVec
	relayed     prometheus.Counter
	relayFailed prometheus.Counter
	pending     prometheus.Gauge
	applied     prometheus.Counter
	repeated    prometheus.Counter
	ledgerLag   prometheus.Histogram
	retries     prometheus.Counter
	stopped     prometheus.Gauge
}

// NewStock makes the metrics and registers them.
func NewStock(reg prometheus.Registerer) *Stock {
	s := &Stock{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rowtide_stock_operations_total", Help: "Operations by kind and outcome.",
		}, []string{"op", "code"}),
		opSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rowtide_stock_operation_seconds", Help: "Script calls by kind.", Buckets: latency,
		}, []string{"op"}),
		relayed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_stock_relayed_events_total", Help: "Events that Kafka acknowledged."}),
		relayFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_stock_relay_failures_total", Help: "Relay attempts that were repeated."}),
		pending:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "rowtide_stock_outbox_events", Help: "Events that wait in the outbox of the cell relayed last."}),
		applied:     prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_stock_ledger_events_total", Help: "Events applied to MySQL."}),
		repeated:    prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_stock_ledger_repeated_events_total", Help: "Events seen again and dropped."}),
		ledgerLag:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rowtide_stock_ledger_lag_seconds", Help: "From an event to its row in MySQL.", Buckets: latency}),
		retries:     prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_stock_ledger_retries_total", Help: "Ledger transactions that were repeated."}),
		stopped:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "rowtide_stock_ledger_stopped", Help: "1 when a gap or divergence has stopped the ledger."}),
	}
	reg.MustRegister(s.operations, s.opSeconds, s.relayed, s.relayFailed, s.pending, s.applied, s.repeated, s.ledgerLag, s.retries, s.stopped)
	return s
}

// Operation implements stockapi.Observer.
func (s *Stock) Operation(op, code string, took time.Duration) {
	s.operations.WithLabelValues(op, code).Inc()
	s.opSeconds.WithLabelValues(op).Observe(took.Seconds())
}

// Relayed implements stockapi.Observer.
func (s *Stock) Relayed(_ stockapi.Cell, events int, pending int64, _ time.Duration) {
	s.relayed.Add(float64(events))
	s.pending.Set(float64(pending))
}

// RelayFailed implements stockapi.Observer.
func (s *Stock) RelayFailed(stockapi.Cell, error) { s.relayFailed.Inc() }

// LedgerBatch implements stockapi.Observer.
func (s *Stock) LedgerBatch(_ int32, events, applied int, lag, _ time.Duration) {
	s.applied.Add(float64(applied))
	s.repeated.Add(float64(events - applied))
	if applied > 0 {
		s.ledgerLag.Observe(lag.Seconds())
	}
}

// LedgerRetry implements stockapi.Observer.
func (s *Stock) LedgerRetry(int32, error) { s.retries.Inc() }

// LedgerStopped implements stockapi.Observer.
func (s *Stock) LedgerStopped(int32, error) { s.stopped.Set(1) }
