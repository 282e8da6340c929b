package promobserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide/internal/sidecar"
)

// node reads a sidecar's counters when it is scraped.
type node struct{ counts func() sidecar.Counts }

// perNode are the numbers of a sidecar.
var perNode = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*sidecar.Counts) float64
}{
	{nodeDesc("rowtide_node_connections", "Connections of Redis's protocol that are open."), prometheus.GaugeValue, func(c *sidecar.Counts) float64 { return float64(c.Connections) }},
	{nodeDesc("rowtide_node_accepted_connections_total", "Connections accepted."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Accepted) }},
	{nodeDesc("rowtide_node_refused_connections_total", "Connections refused, since there were node.max_connections."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Refused) }},
	{nodeDesc("rowtide_node_malformed_requests_total", "Connections ended for breaking the protocol."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Malformed) }},
	{nodeDesc("rowtide_node_slow_readers_total", "Connections ended since replies were not taken within node.write_timeout."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Slow) }},
	{nodeDesc("rowtide_node_commands_total", "Commands of Redis's protocol answered."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Commands) }},
	{nodeDesc("rowtide_node_refused_writes_total", "Commands refused since they write."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Writes) }},
	{nodeDesc("rowtide_node_failed_commands_total", "Commands answered with another error."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Errors) }},
	{nodeDesc("rowtide_node_http_requests_total", "Requests over HTTP."), prometheus.CounterValue, func(c *sidecar.Counts) float64 { return float64(c.Requests) }},
}

func nodeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, nil, nil)
}

// NewNode registers the metrics of a sidecar.
func NewNode(reg prometheus.Registerer, s *sidecar.Server) { reg.MustRegister(node{s.Counts}) }

// Describe implements prometheus.Collector.
func (n node) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range perNode {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (n node) Collect(ch chan<- prometheus.Metric) {
	c := n.counts()
	for _, m := range perNode {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&c))
	}
}
